//! Continuation from an adapter that was trained before and written by Flowmill, the package PEFT or the public VALL-E trainer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use flowmill_nn::Parameters;
use flowmill_nn::low_rank::{self, adapted_module, is_down};
use serde::Deserialize;

use super::{ADAPTER_CONFIG, ADAPTER_MODEL, LoraConfig, peft, public};
use crate::TrainError;
use crate::checkpoint::{MODEL_FILE, STATE_FILE};
use crate::coverage::shorten;

/// Name of the tensors' file in older versions of PEFT.
const PICKLED_MODEL: &str = "adapter_model.bin";
/// The setting that names an adapter.
const KEY: &str = "lora.init_from";

/// Files of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterFiles {
    /// The tensors.
    pub model: PathBuf,
    /// Their description; none for checkpoints and for files that describe themselves.
    pub config: Option<PathBuf>,
}

impl AdapterFiles {
    /// Returns the files at a path: the tensors in that folder, or that file, and the description next to them.
    pub fn at(path: &Path) -> Self {
        let own = [ADAPTER_MODEL, PICKLED_MODEL].into_iter().chain(public::FILES);
        // An exported model, whose adapters are merged, has the same name as the weights of a checkpoint.
        let checkpoint = path.join(STATE_FILE).exists().then_some(MODEL_FILE);
        let model = match path.is_dir() {
            true => path.join(own.chain(checkpoint).find(|name| path.join(name).exists()).unwrap_or(ADAPTER_MODEL)),
            false => path.to_owned(),
        };
        let name = model.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let config = model.with_file_name(ADAPTER_CONFIG);
        let has_config =
            [ADAPTER_MODEL, PICKLED_MODEL].contains(&name) || !public::FILES.contains(&name) && config.exists();
        Self { config: has_config.then_some(config), model }
    }

    /// Iterates over the files.
    pub fn iter(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&self.model).chain(&self.config).map(PathBuf::as_path)
    }
}

/// The part of `adapter_config.json` that determines the meaning of the tensors.
#[derive(Debug, Deserialize)]
struct Description {
    peft_type: Option<String>,
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: f64,
    use_rslora: Option<bool>,
    use_dora: Option<bool>,
    bias: Option<String>,
    alpha_pattern: Option<BTreeMap<String, f64>>,
    rank_pattern: Option<BTreeMap<String, usize>>,
    modules_to_save: Option<Vec<String>>,
}

/// An adapter that was trained before.
#[derive(Debug)]
pub struct SavedAdapter {
    /// Name of the weights that it was trained on.
    pub base: Option<String>,
    rank: usize,
    /// The factor on the products; `None` if no file has it.
    scale: Option<f64>,
    /// Tensors by the names of the model's parameters.
    tensors: BTreeMap<String, Tensor>,
    from: PathBuf,
}

impl SavedAdapter {
    /// Reads an adapter.
    ///
    /// # Errors
    /// [`TrainError::Config`] when a file is missing, damaged, or contains more than low-rank products of one rank.
    pub fn read(files: &AdapterFiles) -> Result<Self, TrainError> {
        let AdapterFiles { model, config } = files;
        let peft::Read { tensors, settings } = peft::read(model).map_err(|error| refuse(error.to_string()))?;
        let Some(config) = config else {
            let rank = tensors
                .iter()
                .find(|(name, _)| is_down(name))
                .and_then(|(_, down)| down.dims().first().copied())
                .unwrap_or(0);
            let scale = settings.map(|settings| settings.alpha / settings.rank.max(1) as f64);
            return Ok(Self { base: None, rank, scale, tensors, from: model.clone() });
        };
        let fail = |path: &Path, reason: String| refuse(format!("{}: {reason}", path.display()));
        let text = std::fs::read_to_string(config).map_err(|error| {
            fail(
                config,
                format!(
                    "{error}; rank and alpha of an adapter are in this file, which PEFT writes next to the tensors"
                ),
            )
        })?;
        let described: Description = serde_json::from_str(&text).map_err(|error| fail(config, error.to_string()))?;
        if let Some(reason) = described.beyond_us() {
            return Err(fail(config, reason));
        }
        let (rank, scale) = (described.r, Some(described.scale()));
        Ok(Self { base: described.base_model_name_or_path, rank, scale, tensors, from: model.clone() })
    }

    /// Returns the adapter with the factor of these settings, which it was trained with, if no file has it.
    #[must_use]
    pub fn trained_with(self, config: &LoraConfig) -> Self {
        Self { scale: self.scale.or(Some(config.alpha / config.rank.max(1) as f64)), ..self }
    }

    /// Adds the adapter to base weights, by the names of the model's parameters.
    ///
    /// # Errors
    /// [`TrainError::Config`] when no file has its factor, or a weight is missing or of another shape.
    pub fn merge_into(self, weights: &mut BTreeMap<String, Tensor>) -> Result<(), TrainError> {
        let about = |reason: String| refuse(format!("{}: {reason}", self.from.display()));
        let scale = self.scale.ok_or_else(|| {
            about("its alpha is not in the file; name an exported adapter or a checkpoint of Flowmill".to_owned())
        })?;
        weights.extend(self.tensors.clone());
        low_rank::merge(weights, scale as f32).map(drop).map_err(|error| about(error.to_string()))
    }

    /// Sets the adapters of `parameters`, which `config` has attached, to the trained values. Returns the number of layers.
    ///
    /// # Errors
    /// [`TrainError::Config`] when rank, scale, layers or shapes differ, with the setting that would fit.
    pub fn load(&self, config: &LoraConfig, parameters: &mut Parameters) -> Result<usize, TrainError> {
        let from = self.from.display();
        if self.rank != config.rank {
            let (there, here) = (self.rank, config.rank);
            return Err(refuse(format!("{from} has rank {there}, train.lora.rank is {here}: set rank: {there}")));
        }
        if let Some(there) = self.scale.filter(|scale| (*scale as f32).to_bits() != config.scale().to_bits()) {
            let (here, alpha) = (config.scale(), there * self.rank as f64);
            return Err(refuse(format!(
                "{from} has the factor {there}, alpha / rank of train.lora is {here}: set alpha: {alpha}"
            )));
        }
        let attached = |name: &str| parameters.find(name).is_some() && adapted_module(name).is_some();
        let here: BTreeSet<&str> = parameters
            .ids()
            .filter_map(|id| parameters.low_rank(id))
            .map(|a| parameters.name(a.down))
            .filter_map(adapted_module)
            .collect();
        let there: BTreeSet<&str> = self.tensors.keys().filter_map(|name| adapted_module(name)).collect();
        check_layers(&self.from, &there, &here)?;
        if let Some(name) = self.tensors.keys().find(|name| !attached(name)) {
            return Err(refuse(format!("{from}: `{name}` is not a parameter of this model")));
        }
        let report = parameters.clone().load(&self.tensors).map_err(TrainError::tensor("loading the adapter"))?;
        if let Some((name, model, file)) = report.mismatched.first() {
            return Err(refuse(format!(
                "{from}: `{name}` has shape {file:?} in the file and {model:?} in the model: it was trained on another model"
            )));
        }
        if report.matched.len() != 2 * here.len() {
            return Err(refuse(format!("{from} lacks one half of an adapter")));
        }
        let count = here.len();
        parameters.load(&self.tensors).map_err(TrainError::tensor("loading the adapter"))?;
        Ok(count)
    }
}

/// Checks that the adapter has exactly the layers that the targets name.
fn check_layers(from: &Path, there: &BTreeSet<&str>, here: &BTreeSet<&str>) -> Result<(), TrainError> {
    let names = |names: Vec<&&str>| shorten(&names.into_iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    let (lacking, more): (Vec<&&str>, Vec<&&str>) =
        (here.difference(there).collect(), there.difference(here).collect());
    let from = from.display();
    if !lacking.is_empty() {
        let count = lacking.len();
        return Err(refuse(format!(
            "{from} has no adapter for {count} layers that train.lora.targets name ({}): name the layers that it has ({})",
            names(lacking),
            names(there.iter().collect())
        )));
    }
    if !more.is_empty() {
        let count = more.len();
        return Err(refuse(format!(
            "{from} has adapters for {count} layers that train.lora.targets do not name ({}): add them to the targets",
            names(more)
        )));
    }
    Ok(())
}

impl Description {
    fn scale(&self) -> f64 {
        let rank = self.r.max(1) as f64;
        self.lora_alpha / if self.use_rslora == Some(true) { rank.sqrt() } else { rank }
    }

    /// Returns the first feature of the adapter beyond low-rank products of one rank and scale.
    fn beyond_us(&self) -> Option<String> {
        let none_of =
            |set: bool, what: &str| set.then(|| format!("{what}: only plain LoRA of one rank can be continued"));
        let other = self.peft_type.as_deref().filter(|kind| *kind != "LORA");
        let bias = self.bias.as_deref().filter(|bias| *bias != "none");
        let saved = self.modules_to_save.as_ref().filter(|modules| !modules.is_empty());
        other
            .map(|kind| format!("peft_type is {kind}: only LORA can be continued"))
            .or_else(|| bias.map(|bias| format!("bias is {bias}: biases were trained in addition to the adapter")))
            .or_else(|| saved.map(|modules| format!("modules_to_save: {} were trained whole", shorten(modules))))
            .or_else(|| none_of(self.use_dora == Some(true), "use_dora is set"))
            .or_else(|| none_of(self.alpha_pattern.as_ref().is_some_and(|p| !p.is_empty()), "alpha_pattern is set"))
            .or_else(|| none_of(self.rank_pattern.as_ref().is_some_and(|p| !p.is_empty()), "rank_pattern is set"))
    }
}

fn refuse(reason: String) -> TrainError {
    TrainError::Config { key: KEY, reason }
}
