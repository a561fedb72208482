//! Settings of the `dac` codec, and the reading of its weights.

use std::path::Path;

use candle_core::Device;
use flowmill_weights::{Archive, Format, PickleFile, PickleValue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extractor::{Settings, to_state};
use super::{Checkpoint, DacDecoder, DacExtractor, Dimensions, KIND};
use crate::error::within;
use crate::weights::{self as taken, Pretrained};
use crate::{Codec, Column, ConfigError, Extractor, Fit, Fitted, Kind, State, StateError, UnusableWeights, Weights};

/// Strides of encoders with random weights, each of another number of samples per frame: those of the published models.
const RANDOM_RATES: [[usize; 4]; 2] = [[2, 4, 8, 8], [2, 4, 5, 8]];

/// Settings of the `dac` codec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DacConfig {
    /// Weights of descript-audio-codec, `weights_44khz_8kbps_0.0.1.pth`, relative to the folder of the recipe; or `random`,
    /// to try a run without any. Required.
    pub weights: Option<Weights>,
    /// Number of levels: codes per frame. The published 44.1 kHz model has 9.
    pub levels: usize,
    /// Number of different codes of each level: that of the weights.
    pub codebook_size: usize,
    /// Sample rate of the model, in Hz.
    pub sample_rate: u32,
    /// Samples from one frame to the next: the product of the encoder's strides. The models of 16 and 24 kHz have 320.
    pub hop_length: usize,
    /// Loudness that a recording is brought to before it is encoded, in LUFS; `null` leaves it as it is.
    ///
    /// Counterparts: `normalize_db` of descript-audio-codec's `compress`.
    pub loudness: Option<f64>,
}

impl Default for DacConfig {
    fn default() -> Self {
        Self {
            weights: None,
            levels: 9,
            codebook_size: 1024,
            sample_rate: 44_100,
            hop_length: 512,
            loudness: Some(-16.0),
        }
    }
}

impl DacConfig {
    fn required(&self) -> Result<&Weights, ConfigError> {
        let published = "the path of weights_44khz_8kbps_0.0.1.pth";
        taken::required("weights", self.weights.as_ref(), published)
    }

    fn state(&self, weights: &Weights, seed: u64, root: &Path) -> Result<State, StateError> {
        let path = weights.file().map_or_else(|| Path::new(KIND).to_owned(), |file| root.join(file));
        let checkpoint = if weights.file().is_some() { self.read(&path) } else { self.draw(seed) };
        let settings = Settings { sample_rate: self.sample_rate, loudness: self.loudness };
        checkpoint.and_then(|checkpoint| to_state(&checkpoint, settings)).map_err(|error| taken::unusable(&path, error))
    }

    fn draw(&self, seed: u64) -> Result<Checkpoint, UnusableWeights> {
        let rates = RANDOM_RATES.into_iter().find(|rates| rates.iter().product::<usize>() == self.hop_length);
        let rates = rates.ok_or_else(|| UnusableWeights("random weights need `hop_length: 512` or 320".to_owned()))?;
        Checkpoint::random(Dimensions::small(rates, self.levels, self.codebook_size), seed)
    }

    fn read(&self, path: &Path) -> Result<Checkpoint, UnusableWeights> {
        if let Some(found) = sample_rate(path)?.filter(|found| *found != i64::from(self.sample_rate)) {
            let wanted = self.sample_rate;
            return Err(UnusableWeights(format!(
                "it is a model of {found} Hz, the recipe says `sample_rate: {wanted}`"
            )));
        }
        let checkpoint = Checkpoint::of(flowmill_weights::read(path)?.tensors, self.levels)?;
        let (codes, hop_length) = (checkpoint.dimensions().codes, checkpoint.dimensions().hop_length());
        if codes != self.codebook_size {
            let wanted = self.codebook_size;
            return Err(UnusableWeights(format!(
                "it has {codes} codes per level, the recipe says `codebook_size: {wanted}`"
            )));
        }
        if hop_length != Some(self.hop_length) {
            let (found, wanted) = (hop_length.unwrap_or(0), self.hop_length);
            return Err(UnusableWeights(format!(
                "its frames have {found} samples, the recipe says `hop_length: {wanted}`"
            )));
        }
        Ok(checkpoint)
    }
}

/// The sample rate of the model in a file, if it states one.
fn sample_rate(path: &Path) -> Result<Option<i64>, UnusableWeights> {
    match Archive::open(path)?.format {
        Format::Torch => Ok(stated_rate(PickleFile::open(path)?.value)),
        _ => Ok(None),
    }
}

/// The value of `metadata.kwargs.sample_rate` in a published file.
fn stated_rate(value: PickleValue) -> Option<i64> {
    let entry = |value: PickleValue, name: &str| match value {
        PickleValue::Dict(items) => {
            items.into_iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value)
        }
        _ => None,
    };
    match ["metadata", "kwargs", "sample_rate"].into_iter().try_fold(value, entry)? {
        PickleValue::Int(rate) => Some(rate),
        _ => None,
    }
}

impl Kind for DacConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str =
        "The codes of the Descript Audio Codec: 86.13 frames a second of 44.1 kHz sound, 9 levels.";
    const PATHS: &'static [&'static str] = &["weights"];
    const WORDS: &'static [&'static str] = &["random"];
    const NETWORK: bool = true;

    fn columns(&self) -> Vec<Column> {
        let rate = f64::from(self.sample_rate) / self.hop_length.max(1) as f64;
        vec![Column::codes(self.levels, self.codebook_size, rate)]
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(DacExtractor::from_state(state, device)?))
    }

    fn codec(state: &State, device: &Device) -> Result<Option<Box<dyn Codec>>, StateError> {
        Ok(Some(Box::new(DacDecoder::from_state(state, device)?)))
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("levels", self.levels, 1, 32)?;
        within("codebook_size", self.codebook_size, 2, 65_536)?;
        within("sample_rate", self.sample_rate as usize, 4000, 192_000)?;
        within("hop_length", self.hop_length, 1, 65_536)?;
        if let Some(loudness) = self.loudness.filter(|loudness| !(-70.0..=0.0).contains(loudness)) {
            return Err(ConfigError::new("loudness", format!("{loudness} is not within -70 to 0")));
        }
        self.required().map(drop)
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let (weights, config, root) = (self.required()?.clone(), self.clone(), root.to_owned());
        Ok(Box::new(Pretrained::new(KIND, move || {
            Ok(Fitted { state: config.state(&weights, seed, &root)?, facts: weights.facts() })
        })))
    }

    fn weights(&self) -> Vec<&Weights> {
        self.weights.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_file_states_its_rate() {
        let dict = |name: &str, value: PickleValue| PickleValue::Dict(vec![(PickleValue::Text(name.into()), value)]);
        let published = dict("metadata", dict("kwargs", dict("sample_rate", PickleValue::Int(44_100))));
        assert_eq!(stated_rate(published), Some(44_100));
        assert_eq!(stated_rate(dict("metadata", dict("kwargs", PickleValue::None))), None);
        assert_eq!(stated_rate(dict("state_dict", PickleValue::None)), None);
    }

    #[test]
    fn settings_that_cannot_be_used_are_named() {
        let with = |change: &dyn Fn(&mut DacConfig)| {
            let mut config = DacConfig { weights: Some(Weights::Random), ..DacConfig::default() };
            change(&mut config);
            config.check().map_err(|error| error.field)
        };
        assert_eq!(with(&|_| ()), Ok(()));
        assert_eq!(with(&|config| config.weights = None), Err("weights"));
        assert_eq!(with(&|config| config.levels = 33), Err("levels"));
        assert_eq!(with(&|config| config.loudness = Some(3.0)), Err("loudness"));
        assert_eq!(with(&|config| config.loudness = Some(f64::NAN)), Err("loudness"));
        let published = DacConfig::default().columns().remove(0);
        assert_eq!(published, Column::codes(9, 1024, 44_100.0 / 512.0));
    }
}
