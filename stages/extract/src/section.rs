//! A stage's section of the recipe.

use std::path::PathBuf;

use flowmill_extract::extractors::packed::KIND as PACKED;
use flowmill_extract::{Chosen, Column, Registry};
use flowmill_nn::device::DeviceName;
use flowmill_runner::{Recipe, RecipeError, joined_schema, keys_of};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::noise::{self, NoiseConfig, NoiseSettings};
use crate::{Extraction, import, packed};

/// The key of the extractor in the section.
pub(crate) const EXTRACTOR: &str = "extractor";
/// The key of the noise in the section.
const NOISE: &str = "noise";

/// The section of a stage that runs an extractor over rows.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// The extractor with its settings.
    pub extractor: Chosen,
    /// Noise that is added to recordings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<NoiseConfig>,
    /// The other keys.
    #[serde(flatten)]
    pub(crate) own: Settings,
}

/// The keys of the section other than the extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Settings {
    /// The split that the extractor is fitted on; without it `train.train_split`. Unused by extractors with weights.
    pub fit_on: String,
    /// The device that networks run on; without it `train.device`. Another device recomputes nothing.
    pub device: DeviceName,
}

impl Default for Settings {
    fn default() -> Self {
        Self { fit_on: flowmill_stage_prep::TRAIN_SPLIT.to_owned(), device: DeviceName::Auto }
    }
}

/// The schema of the section with these extractors.
pub(crate) fn schema<S: Extraction>(extractors: &Registry, generator: &mut SchemaGenerator) -> Schema {
    let extractor = json_schema!({
        "properties": {
            EXTRACTOR: {
                "description": S::ABOUT_EXTRACTOR,
                "default": extractors.first(S::takes),
                "allOf": [extractors.schema(generator)],
            },
        },
    });
    let noise = S::NOISE.then(|| NoiseSettings::json_schema(generator));
    joined_schema(S::ABOUT, [extractor, Settings::json_schema(generator)].into_iter().chain(noise))
}

impl Section {
    /// The section of a recipe, checked.
    pub(crate) fn of<S: Extraction>(extractors: &Registry, recipe: &Recipe) -> Result<Self, RecipeError> {
        let key = format!("{}.{EXTRACTOR}", S::NAME);
        let with_noise: &[&str] = if S::NOISE { &[EXTRACTOR, NOISE] } else { &[EXTRACTOR] };
        let mut own: Settings = recipe.shared(S::NAME, with_noise)?;
        let NoiseSettings { noise } = match S::NOISE {
            true => recipe.shared(S::NAME, &[&[EXTRACTOR], keys_of::<Settings>()].concat())?,
            false => NoiseSettings::default(),
        };
        let default = extractors.first(S::takes);
        let chosen = extractors.read(recipe, &key)?.or_else(|| default.clone());
        let mut extractor = chosen.ok_or_else(|| recipe.error(&key, format!("no extractor gives {}", S::NEEDS)))?;
        if !recipe.sets(&format!("{}.fit_on", S::NAME)) {
            own.fit_on = flowmill_stage_prep::train_split(recipe)?;
        }
        if !extractor.is_network() {
            own.device = DeviceName::Cpu;
        } else if !recipe.sets(&format!("{}.device", S::NAME)) {
            own.device = flowmill_stage_prep::train_device(recipe)?;
        }
        extractor.check().map_err(|error| recipe.error(&format!("{key}.{}", error.field), error.reason))?;
        let columns = extractor.columns();
        if !S::takes(&columns) {
            let gives: Vec<&str> = columns.iter().map(|column| column.values.name()).collect();
            let example = default.map(|default| format!(", such as of {}", default.kind())).unwrap_or_default();
            let (kind, gives, needs) = (extractor.kind(), gives.join(" and "), S::NEEDS);
            let problem = format!("{kind} gives {gives}, this stage needs {needs}{example}");
            return Err(recipe.error(&format!("{key}.kind"), problem));
        }
        // Files that the recipe names come before the columns of shards.
        if noise.is_none()
            && extractor.import().is_none()
            && let Some(packed) = packed::columns(recipe, &extractor)?
        {
            extractor = Chosen::new(packed);
            own.device = DeviceName::Cpu;
        } else if extractor.kind() == PACKED {
            let reason = "is chosen by itself if all of prep.data are shards with the columns (`format: shards`), and they are not";
            return Err(recipe.error(&format!("{key}.kind"), reason));
        }
        let section = Self { extractor, noise, own };
        section.check_noise::<S>(recipe)?;
        Ok(section)
    }

    /// Returns whether the columns are those of packed shards, so that there is nothing to extract.
    pub fn is_packed(&self) -> bool {
        self.extractor.kind() == PACKED
    }

    /// Returns the columns of the tables.
    pub fn columns(&self) -> Vec<Column> {
        let own = self.extractor.columns();
        let noisy = self.noise.iter().flat_map(|_| noise::columns(&own)).collect();
        [own, noisy].concat()
    }

    fn check_noise<S: Extraction>(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        let Some(config) = &self.noise else { return Ok(()) };
        let refuse = |key: &str, reason: String| Err(recipe.error(&format!("{}.{NOISE}{key}", S::NAME), reason));
        let kind = self.extractor.kind();
        if self.extractor.import().is_some() || noise::columns(&self.extractor.columns()).is_empty() {
            return refuse("", format!("is added to the recordings of a codec, and `{kind}` is none that hears them"));
        }
        config.check().or_else(|(key, reason)| refuse(&format!(".{key}"), reason))
    }

    /// Returns the recordings of noise; none without noise.
    pub(crate) fn noise_files<S: Extraction>(&self, recipe: &Recipe) -> Result<Vec<PathBuf>, RecipeError> {
        let Some(config) = &self.noise else { return Ok(Vec::new()) };
        config.files(recipe.dir()).map_err(|reason| recipe.error(&format!("{}.{NOISE}.dir", S::NAME), reason))
    }

    /// Refuses a split to fit on that stage 0 does not make.
    pub(crate) fn check_split<S: Extraction>(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        if self.extractor.learning().is_none() {
            return Ok(());
        }
        let own = format!("{}.fit_on", S::NAME);
        let key = if recipe.sets(&own) { own.as_str() } else { "train.train_split" };
        flowmill_stage_prep::check_split(recipe, key, &self.own.fit_on)
    }

    /// Refuses a device that is not there.
    pub(crate) fn check_device<S: Extraction>(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        flowmill_stage_prep::check_device(recipe, &format!("{}.device", S::NAME), self.own.device)
    }

    /// Refuses an import whose files are not there.
    pub(crate) fn check_files<S: Extraction>(&self, recipe: &Recipe) -> Result<(), RecipeError> {
        self.noise_files::<S>(recipe)?;
        self.extractor.import().map_or(Ok(()), |import| import::check_files(import, recipe, S::NAME))
    }
}
