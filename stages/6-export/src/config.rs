//! The recipe's `export` section, whose keys the stage and the family read.

use flowmill_family::Registry;
use flowmill_runner::{Recipe, RecipeError, keys_of};
use flowmill_stage_train::{TrainSection, scored_split};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The section's name.
pub const SECTION: &str = "export";

/// What is exported, and how it is sampled and scored.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StageSettings {
    /// The held-out split that samples and scores come from; null: the one that is validated on, or without any the one that is trained
    /// on.
    pub split: Option<String>,
    /// Utterances to sample, in the split's order; 0 for all.
    pub max_utterances: usize,
    /// Whether the weights are written in the format of public inference code too, as `flow.pt` of a flow.
    pub write_pt: bool,
    /// Whether adapters (`train.lora`) are merged into the exported weights; otherwise these are what the adapters were trained on.
    /// In both cases the adapters lie next to them as PEFT reads them.
    pub merge_adapters: bool,
}

impl Default for StageSettings {
    fn default() -> Self {
        Self { split: None, max_utterances: 0, write_pt: true, merge_adapters: true }
    }
}

impl ExportSection {
    /// The section, checked and with its split.
    ///
    /// # Errors
    /// The first key that cannot be used.
    pub fn read(recipe: &Recipe, registry: &Registry) -> Result<Self, RecipeError> {
        let train = TrainSection::read(recipe, registry)?;
        let known = [keys_of::<StageSettings>(), train.model.export_keys()].concat();
        let mut settings: StageSettings = recipe.shared(SECTION, &known)?;
        settings.split = Some(scored_split(&train, recipe));
        let options = train.model.export_options(recipe, &known)?;
        Ok(Self { settings, options, train })
    }

    /// The section with all keys.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut section = Map::new();
        for keys in [&json!(self.settings), &self.options] {
            section.extend(keys.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        }
        section
    }
}
