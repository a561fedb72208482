//! Starting from the weights of a file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use flowmill_nn::weights::{self, LoadReport, WeightFile};
use flowmill_nn::{NnError, Parameters, low_rank};
use flowmill_runner::StageError;
use flowmill_train::LoraConfig;

/// The file in the folder of a checkpoint, an averaged or an exported model.
const IN_FOLDERS: &str = "model.safetensors";
/// What PyTorch puts before all names when it spreads a model over devices.
const WRAPPER: &str = "module.";
/// Names told of each kind of misfit.
const SHOWN: usize = 5;

/// The weight file that a path stands for: itself, or the weights in that folder.
pub fn weight_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(IN_FOLDERS) } else { path.to_owned() }
}

/// Takes over the weights of a file; only what fits by name and shape when `partial`, otherwise all must fit. Gives what fitted.
///
/// # Errors
/// When the file cannot be read, holds a number that is not finite, or does not fit the model.
pub fn start_from(parameters: &mut Parameters, file: &Path, partial: bool) -> Result<LoadReport, StageError> {
    let refuse = |problem: String| Err(StageError::new(format!("train.init_from: {}: {problem}", file.display())));
    let tensors = match weights::read(file).and_then(without_wrapper) {
        Ok(read) => read.tensors,
        Err(NnError::WeightFile { message, .. }) => return refuse(message),
        Err(other) => return refuse(other.to_string()),
    };
    if let Some(name) = tensors.keys().find(|name| low_rank::adapted_module(name).is_some()) {
        return refuse(format!(
            "holds adapters (`{name}`) beside its weights; start from the exported model, where they are merged"
        ));
    }
    let report = parameters.load(&tensors).map_err(StageError::other)?;
    let told = told(&report);
    if report.matched.is_empty() {
        return refuse(format!("these are the weights of another model: none fits by name and shape ({told})"));
    }
    if !report.is_exact() && !partial {
        let advice = "to take over what fits, set train.init_partial: true";
        return refuse(format!("these weights are not for this model: {told}; {advice}"));
    }
    Ok(report)
}

/// Puts adapters beside the layers that `lora` names, whose weights must be among those that were loaded. Gives what to tell about it.
///
/// # Errors
/// When a target names no linear layer, the rank is too high for one, or its weight was not loaded.
pub fn adapt(
    parameters: &mut Parameters,
    lora: &LoraConfig,
    loaded: &LoadReport,
    seed: u64,
) -> Result<String, StageError> {
    let adapted = lora.attach(parameters, seed).map_err(StageError::other)?;
    let loaded: BTreeSet<&str> = loaded.matched.iter().map(String::as_str).collect();
    let names = adapted.iter().map(|id| parameters.name(*id));
    if let Some(name) = names.into_iter().find(|name| !loaded.contains(name)) {
        return Err(StageError::new(format!(
            "train.lora: `{name}` is not among the weights that were loaded: an adapter would be trained on random numbers"
        )));
    }
    let (layers, count) = (adapted.len(), parameters.element_count(true));
    Ok(format!("adapters of rank {} on {layers} linear layers: {count} weights are trained", lora.rank))
}

/// Names as the model has them: checkpoints of a model that PyTorch had wrapped for several devices call all of it `module.`.
fn without_wrapper(file: WeightFile) -> Result<WeightFile, NnError> {
    let wrapped =
        !file.tensors.is_empty() && file.tensors.keys().chain(file.integers.keys()).all(|n| n.starts_with(WRAPPER));
    if wrapped { file.without_prefix(WRAPPER) } else { Ok(file) }
}

/// The report with the first names of each kind of misfit.
pub fn told(report: &LoadReport) -> String {
    let mut text = format!("{} tensors matched", report.matched.len());
    let different =
        report.mismatched.iter().map(|(name, model, file)| format!("{name}: model {model:?}, file {file:?}"));
    let kinds = [
        ("missing in the file", report.missing.clone()),
        ("not in the model", report.extra.clone()),
        ("of another shape", different.collect()),
    ];
    for (kind, names) in kinds.iter().filter(|(_, names)| !names.is_empty()) {
        let more = names.len().saturating_sub(SHOWN);
        text += &format!("; {} {kind} ({}", names.len(), names[..names.len() - more].join(", "));
        text += &if more > 0 { format!(" and {more} more)") } else { ")".to_owned() };
    }
    text
}
