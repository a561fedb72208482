//! Samples of the weights in training, and their export as a model.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use flowmill_family::{AnyModel, Configured, Examples, ExtractorFiles, Made};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, low_rank};
use flowmill_train::checkpoint::MODEL_FILE;
use flowmill_train::lora::{ADAPTER_CONFIG, ADAPTER_MODEL, write_adapter};
use flowmill_train::{BoxError, Sample};
use rayon::prelude::*;
use serde_json::Value;

use crate::{Adapted, CONFIG_FILE};

/// Everything except the weights that is needed to generate and to export.
pub struct Preview {
    /// Validation examples; none without a validation split.
    pub examples: Option<Examples>,
    /// The seed of the noise.
    pub seed: u64,
    /// The description of the model for `config.json`.
    pub description: Value,
    /// The adapters in the weights, if any.
    pub adapted: Option<Adapted>,
    /// The settings of the family.
    pub config: Arc<dyn Configured>,
    /// The fitted extractors that belong to the model, and their names in its folder.
    pub extractors: ExtractorFiles,
}

impl Preview {
    /// Generates samples of the examples, from noise that is always the same.
    pub fn samples(&self, model: &dyn AnyModel, parameters: &Parameters) -> Result<Vec<Sample>, BoxError> {
        let examples = self.examples.as_ref().ok_or("there is no validation split with utterances to sample")?;
        self.files(&self.made(model, parameters, examples)?)
    }

    /// Generates outputs for some examples, from noise that is always the same.
    pub fn made(
        &self,
        model: &dyn AnyModel,
        parameters: &Parameters,
        examples: &Examples,
    ) -> Result<Vec<Made>, BoxError> {
        let (context, rng_key) = (Context::inference(parameters), RngKey::new(self.seed).purpose("samples"));
        model.preview(&context, examples, &self.description, &self.extractors, rng_key)
    }

    /// Returns the files of outputs.
    pub fn files(&self, made: &[Made]) -> Result<Vec<Sample>, BoxError> {
        let files = made.par_iter().map(|made| made.files(&file_name(&made.name)));
        Ok(files.collect::<Result<Vec<_>, BoxError>>()?.into_iter().flatten().collect())
    }

    /// Writes a model folder for `flowmill synth --model`; adapters are merged into the weights, and written next to them.
    pub fn export(&self, parameters: &Parameters, folder: &Path) -> Result<(), BoxError> {
        let mut tensors: BTreeMap<_, _> = parameters.own_tensors().into_iter().collect();
        if let Some(Adapted { settings, base, .. }) = &self.adapted {
            let adapters = low_rank::merge(&mut tensors, settings.scale())?;
            let [alone, description] = [ADAPTER_MODEL, ADAPTER_CONFIG].map(|name| folder.join(name));
            write_adapter(&adapters, settings, base.as_deref(), &alone, &description)?;
            self.config.export_adapters(&adapters, settings, &mut |name| Ok(folder.join(name)))?;
        }
        let merged: Vec<_> = tensors.into_iter().collect();
        flowmill_weights::write(&folder.join(MODEL_FILE), &merged, &Default::default())?;
        fs::write(folder.join(CONFIG_FILE), format!("{:#}\n", self.description))?;
        for (source, name) in self.extractors.iter() {
            flowmill_runner::copy_bytes(source, &folder.join(name))?;
        }
        Ok(())
    }
}

/// Returns an utterance's id as a file name: anything but letters, digits, `-`, `_` and `.` becomes `_`.
pub fn file_name(utt: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    utt.trim_start_matches('.').chars().map(safe).collect()
}
