//! The recipe's section `embed`.

use flowmill_models::extractors::{ExtractorConfig, ValueType, statistics::StatisticsConfig};
use flowmill_nn::device::DeviceName;
use flowmill_runner::{Recipe, RecipeError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The section's name.
pub const SECTION: &str = "embed";

/// Settings of stage 1, `embed`: the speaker embeddings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbedConfig {
    /// The extractor of the embeddings: `statistics`, `campplus` or `import`, with its settings.
    pub extractor: ExtractorConfig,
    /// The split that the extractor is fitted on; without it `train.train_split`. Unused by extractors with weights.
    pub fit_on: String,
    /// The device that networks run on; without it `train.device`. Another device recomputes nothing.
    pub device: DeviceName,
}

impl Default for EmbedConfig {
    fn default() -> Self {
        Self {
            extractor: ExtractorConfig::Statistics(StatisticsConfig::default()),
            fit_on: flowmill_stage_prep::TRAIN_SPLIT.to_owned(),
            device: DeviceName::Auto,
        }
    }
}

impl EmbedConfig {
    /// The section of a recipe, checked.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn of(recipe: &Recipe) -> Result<Self, RecipeError> {
        let mut config: Self = recipe.section(SECTION)?;
        if !recipe.sets(&format!("{SECTION}.fit_on")) {
            config.fit_on = flowmill_stage_prep::train_split(recipe)?;
        }
        if !config.extractor.is_network() {
            config.device = DeviceName::Cpu;
        } else if !recipe.sets(&format!("{SECTION}.device")) {
            config.device = flowmill_stage_prep::train_device(recipe)?;
        }
        let wrong = |key: &str, message: String| recipe.error(&format!("{SECTION}.extractor.{key}"), message);
        config.extractor.check().map_err(|error| wrong(error.field, error.reason))?;
        let column = config.extractor.column();
        if !matches!(column.values, ValueType::Embedding { .. }) {
            let (kind, gives) = (config.extractor.kind(), column.values.name());
            return Err(wrong(
                "kind",
                format!("{kind} gives {gives}, this stage needs an embedding, such as of statistics"),
            ));
        }
        Ok(config)
    }

    /// Refuses a split to fit on that stage 0 does not make.
    ///
    /// # Errors
    /// The key, with the splits that there are.
    pub(crate) fn check_split(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        if !self.extractor.learns() {
            return Ok(());
        }
        let own = format!("{SECTION}.fit_on");
        let key = if recipe.sets(&own) { own.as_str() } else { "train.train_split" };
        flowmill_stage_prep::check_split(recipe, key, &self.fit_on)
    }

    /// Refuses a device that is not there.
    ///
    /// # Errors
    /// The key that names the device.
    pub(crate) fn check_device(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        flowmill_stage_prep::check_device(recipe, &format!("{SECTION}.device"), self.device)
    }

    /// Refuses an import whose files are not there.
    ///
    /// # Errors
    /// The key that names the missing file.
    pub(crate) fn check_files(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        match &self.extractor {
            ExtractorConfig::Import(import) => flowmill_stage_prep::import::check_files(import, recipe, SECTION),
            _ => Ok(()),
        }
    }
}
