//! Loading of initial weights from a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use flowmill_nn::{LoadReport, Parameters, low_rank};
use flowmill_runner::{Recipe, StageError};
use flowmill_train::checkpoint::read_state;
use flowmill_train::lora::{AdapterFiles, SavedAdapter};
use flowmill_train::{LoraConfig, TrainError};
use flowmill_weights::{Archive, Naming, NamingError};
use serde::Deserialize;

use crate::{Adapted, CONFIG_FILE, TrainSection};

/// The name of the weight file in the folder of a checkpoint, or of an averaged or exported model.
const IN_FOLDERS: &str = "model.safetensors";
/// The number of names of each kind in a message.
const SHOWN: usize = 5;

/// Returns the weight file for a path: itself, or the weights in that folder, or where they should be.
pub fn weight_file(path: &Path) -> PathBuf {
    flowmill_weights::locate(path).unwrap_or_else(|_| path.join(IN_FOLDERS))
}

/// Checks that there is a weight file for a path.
///
/// # Errors
/// Returns the missing file.
pub fn check_weight_file(path: &Path) -> Result<(), String> {
    let file = flowmill_weights::locate(path).map_err(|error| error.to_string())?;
    if file.is_file() { Ok(()) } else { Err(format!("there is no file {}", file.display())) }
}

/// Returns all weight files for a path: an index and its shards, or one file.
pub fn weight_files(path: &Path) -> Vec<PathBuf> {
    flowmill_weights::files(path)
}

/// Weights that were loaded.
pub struct Start {
    /// The tensors that matched.
    pub report: LoadReport,
    /// The place in the file where they were found.
    origin: Origin,
}

impl Start {
    /// Returns a line for the log: the tensors of the file, the number that matched, and those that were left out.
    pub fn told(&self) -> String {
        format!("{}{}{}", told(&self.report), self.origin.found(), self.origin.left_out())
    }
}

/// The place in a file where the weights of a model were found.
struct Origin {
    /// The entry of a PyTorch file that contains them.
    entry: Option<String>,
    /// The part that was removed from their names.
    naming: Option<Naming>,
    /// Other content of the file: names and descriptions.
    left_out: Vec<(String, String)>,
}

impl Origin {
    /// Describes the tensors that were used, if they are not the whole file under their own names.
    fn found(&self) -> String {
        let entry = self.entry.as_ref().map_or(String::new(), |entry| format!(", of its entry `{entry}`"));
        let naming = self.naming.as_ref().map_or(String::new(), |naming| format!(", {naming}"));
        format!("{entry}{naming}")
    }

    fn left_out(&self) -> String {
        if self.left_out.is_empty() {
            return String::new();
        }
        let named: Vec<String> =
            self.left_out.iter().map(|(name, what)| format!("{} ({})", short(name), short(what))).collect();
        format!("; left out: {}", shorten(&named.iter().map(String::as_str).collect::<Vec<_>>()))
    }
}

/// Shortens a name from a file and removes control characters.
fn short(name: &str) -> String {
    name.chars().take(60).collect::<String>().replace(char::is_control, "?")
}

/// Loads the weights of a file. With `partial` only those that match by name and shape, otherwise all must match. A
/// prefix before all names, or a wrapper in them, is removed if the names match without it. Returns the matches.
///
/// # Errors
/// Returns an error if the file cannot be read, contains a number that is not finite, does not match the model, or
/// contains it more than once.
pub fn start_from(parameters: &mut Parameters, file: &Path, partial: bool) -> Result<Start, StageError> {
    let refuse = |problem: String| Err(StageError::new(format!("train.init_from: {}: {problem}", file.display())));
    let mut archive = match Archive::open(file) {
        Ok(archive) => archive,
        Err(error) => return refuse(error.about(file)),
    };
    if let Some((name, _)) = archive.tensors.iter().find(|(name, _)| low_rank::adapted_module(name).is_some()) {
        return refuse(format!(
            "contains adapters (`{name}`); start from the exported model, where they are merged, or continue from an exported \
             adapter with train.lora.init_from"
        ));
    }
    let model: BTreeMap<String, Vec<usize>> =
        parameters.own_tensors().into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect();
    let naming = match archive.fit_names(&model) {
        Ok(naming) => naming,
        Err(NamingError::Ambiguous(prefixes)) if partial && prefixes.iter().any(String::is_empty) => None,
        Err(error @ NamingError::Ambiguous(_)) => return refuse(format!("{error}; {}", choose(&error, file))),
    };
    let origin = Origin { entry: archive.entry.clone(), naming, left_out: archive.left_out.clone() };
    let read = match archive.weights() {
        Ok(read) => read,
        Err(error) => return refuse(error.about(file)),
    };
    let report = parameters.load(&read.tensors).map_err(StageError::other)?.with_integers(&read.integers);
    let told = format!("{}{}", told(&report), origin.found());
    if report.matched.is_empty() && !report.integers.is_empty() {
        return refuse(format!("its tensors are integers, but the model's are floats; save it as floats ({told})"));
    }
    if report.matched.is_empty() {
        return refuse(format!("these are the weights of another model: none matches by name and shape ({told})"));
    }
    if !report.is_exact() && !partial {
        let advice = "to load only those that match, set train.init_partial: true";
        return refuse(format!("these weights are not for this model: {told}; {advice}"));
    }
    Ok(Start { report, origin })
}

/// Returns advice on choosing one of several sets of weights in a file.
fn choose(NamingError::Ambiguous(prefixes): &NamingError, file: &Path) -> String {
    let prefix = prefixes.iter().find(|prefix| !prefix.is_empty()).map_or("", String::as_str);
    format!(
        "choose one of them, for example with `flowmill convert {} chosen.safetensors --strip-prefix {}`, and start from that file",
        file.display(),
        short(prefix)
    )
}

/// Checks that exported weights are not the base weights of adapters in a separate file, which alone are not the
/// trained model.
///
/// # Errors
/// Returns an error if `config.json` next to the file says so.
pub fn refuse_detached_adapters(file: &Path) -> Result<(), StageError> {
    /// The relevant part of the description.
    #[derive(serde::Deserialize)]
    struct Description {
        lora: Option<Adapted>,
    }
    let described = std::fs::read(file.with_file_name(CONFIG_FILE)).unwrap_or_default();
    // A file that is not our description says nothing about adapters.
    let lora = serde_json::from_slice(&described).ok().and_then(|description: Description| description.lora);
    if lora.is_none_or(|adapted| adapted.merged) {
        return Ok(());
    }
    Err(StageError::new(format!(
        "train.init_from: {} are the base weights of adapters (export.merge_adapters: false): continue from the adapters too, with \
         train.lora.init_from, or export them merged",
        file.display()
    )))
}

/// Adds adapters to the layers that `lora` names. All other weights are frozen, so all must be among those that were
/// loaded. Returns a line for the log.
///
/// # Errors
/// Returns an error if a target names no linear layer, the rank is too high for one, or a weight was not loaded.
pub fn adapt(
    parameters: &mut Parameters,
    lora: &LoraConfig,
    loaded: &LoadReport,
    seed: u64,
) -> Result<String, StageError> {
    let adapted = lora.attach(parameters, seed).map_err(StageError::other)?;
    let loaded: BTreeSet<&str> = loaded.matched.iter().map(String::as_str).collect();
    let frozen = parameters.ids().filter(|id| !parameters.trainable(*id)).map(|id| parameters.name(id));
    let random: Vec<&str> = frozen.filter(|name| !loaded.contains(name)).collect();
    if !random.is_empty() {
        return Err(StageError::new(format!(
            "train.lora: {} tensors were not loaded, and with adapters they would stay frozen at random values: {}; \
             start from a file that has them, or train them by removing train.lora",
            random.len(),
            shorten(&random)
        )));
    }
    let (layers, count) = (adapted.len(), parameters.element_count(true));
    Ok(format!("adapters of rank {} on {layers} linear layers: {count} weights are trained", lora.rank))
}

/// Returns the files of the adapter from which the section continues.
pub fn adapter_files(section: &TrainSection, recipe: &Recipe) -> Option<AdapterFiles> {
    let path = section.settings.lora.as_ref()?.init_from.as_deref()?;
    Some(AdapterFiles::at(&recipe.resolve(path)))
}

/// Reads an adapter. A checkpoint has its settings in the record of what the training was started with.
///
/// # Errors
/// See [`SavedAdapter::read`].
pub fn saved_adapter(files: &AdapterFiles) -> Result<SavedAdapter, TrainError> {
    let saved = SavedAdapter::read(files)?;
    let folder = files.model.parent().unwrap_or(Path::new(""));
    let record = read_state(folder).ok().and_then(|state| state.record);
    let lora = record.and_then(|record| LoraConfig::deserialize(&record["config"]["lora"]).ok());
    Ok(match lora {
        Some(lora) => saved.trained_with(&lora),
        None => saved,
    })
}

/// Loads the values of an earlier adapter into the attached adapters. Returns a line for the log.
///
/// # Errors
/// Returns an error if it cannot be read, or has other layers, another rank or scale.
pub fn go_on_from(parameters: &mut Parameters, lora: &LoraConfig, files: &AdapterFiles) -> Result<String, StageError> {
    let saved = saved_adapter(files).map_err(StageError::other)?;
    let layers = saved.load(lora, parameters).map_err(StageError::other)?;
    let base = saved.base.map_or("unnamed weights".to_owned(), |base| format!("`{base}`"));
    Ok(format!("continuing from the adapter {} of {layers} layers, trained on {base}", files.model.display()))
}

/// Formats the report with the first names of each kind of mismatch.
fn told(report: &LoadReport) -> String {
    let mut text = format!("{} tensors matched", report.matched.len());
    let different =
        report.mismatched.iter().map(|(name, model, file)| format!("{name}: model {model:?}, file {file:?}"));
    let kinds = [
        ("missing in the file", report.missing.clone()),
        ("of integers in the file", report.integers.clone()),
        ("not in the model", report.extra.clone()),
        ("of another shape", different.collect()),
    ];
    for (kind, names) in kinds.iter().filter(|(_, names)| !names.is_empty()) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        text += &format!("; {} {kind} ({})", names.len(), shorten(&names));
    }
    text
}

/// Formats the first names of a list, and the number of others.
fn shorten(names: &[&str]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}
