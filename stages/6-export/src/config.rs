//! The recipe's `export` section, which the stage and the family read.

use flowmill_family::Registry;
use flowmill_runner::{Recipe, RecipeError, joined_schema, keys_of};
use flowmill_stage_train::{TrainSection, scored_split};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The section's name.
pub const SECTION: &str = "export";

/// The section `export`: the model to export, its sampling and its scores.
#[derive(Debug, Clone)]
pub struct ExportSection {
    /// The keys that are the same for all families.
    pub settings: StageSettings,
    /// The family's own keys, all of them.
    pub options: Value,
    /// The training that is exported.
    pub train: TrainSection,
}

/// The keys of the section `export` that are the same for all families.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StageSettings {
    /// The split that is sampled and scored; by default the validation split, or else the training split.
    pub split: Option<String>,
    /// Number of utterances to sample, in the order of the split; 0 for all of them.
    pub max_utterances: usize,
    /// Also writes the weights as `flow.pt`, the state dict that public inference code loads, and next to it the
    /// configuration of its classes (`cosyvoice2.yaml`, `cosyvoice3.yaml`, `cosyvoice.yaml` of Step-Audio, `train_sfm_flow.yaml` of
    /// RWKVTTS). Code without support
    /// for `normalise_mel: true`, `gaussian_skip` or `direct_mel_kernel` needs a model trained without them, as the
    /// model card says.
    pub write_pt: bool,
    /// Also writes the estimator of a flow, the network that inference runs at every step of its solver, as the ONNX graph
    /// `flow.decoder.estimator.fp32.onnx`, with the inputs and the name that CosyVoice's runtime expects (which makes a TensorRT engine of
    /// it). The graph has a batch of two items, with and without conditions, and any number of frames; it has no chunk-causal masks. With
    /// `merge_adapters: false` it has the weights without adapters, like `flow.pt`. For the families of token-to-mel flows.
    ///
    /// Counterparts: CosyVoice's `cosyvoice/bin/export_onnx.py`.
    pub write_onnx: bool,
    /// Merges adapters (`train.lora`) into the exported weights. The adapters are written next to the weights in the
    /// format of PEFT in either case.
    ///
    /// Counterparts: PEFT's `merge_and_unload`.
    pub merge_adapters: bool,
}

/// Returns the schema of the section with these families.
pub(crate) fn schema(registry: &Registry, generator: &mut SchemaGenerator) -> Schema {
    let mut parts = vec![StageSettings::json_schema(generator)];
    parts.extend(registry.families().map(|family| family.export_schema(generator)));
    joined_schema("Settings of stage 6, `export`: how the model is written, sampled and scored.", parts)
}

impl Default for StageSettings {
    fn default() -> Self {
        Self { split: None, max_utterances: 0, write_pt: true, write_onnx: false, merge_adapters: true }
    }
}

impl ExportSection {
    /// Reads and checks the section, and determines its split.
    ///
    /// # Errors
    /// Returns the first invalid key.
    pub fn read(recipe: &Recipe, registry: &Registry) -> Result<Self, RecipeError> {
        let train = TrainSection::read(recipe, registry)?;
        let known = [keys_of::<StageSettings>(), train.model.export_keys()].concat();
        let mut settings: StageSettings = recipe.shared(SECTION, &known)?;
        settings.split = Some(scored_split(&train, recipe));
        let options = train.model.export_options(recipe, &known)?;
        Ok(Self { settings, options, train })
    }

    /// Returns the section with all keys.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut section = Map::new();
        for keys in [&json!(self.settings), &self.options] {
            section.extend(keys.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        }
        section
    }
}
