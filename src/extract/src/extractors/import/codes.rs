//! The `import-codes` kind: codes of a neural codec that another tool made, from the file of each row.
//!
//! Rows have such files if stage 0 reads prepared data (`format: codes`), or a manifest that names them (`media: [codes]`). They are the `.enc` and
//! `.dac` files and the HDF5 file of the public VALL-E trainer; see [`flowmill_corpus::codes`].
//!
//! With the weights of the codec that made them, an exported model also hears prompts and turns its codes into sound. The stage itself never
//! opens the codec.

use std::path::Path;
use std::sync::OnceLock;

use candle_core::Device;
use flowmill_corpus::codes::{Artifact, Codes};
use flowmill_corpus::{Array, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::within;
use crate::extractors::{dac, encodec, registry};
use crate::weights::Pretrained;
use crate::{
    Chosen, Codec, Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Fitted, Kind, Media, State,
    StateError, Weights,
};

/// The extractor's kind.
const KIND: &str = "import-codes";

/// The part of the state that is the codec's, and the key of the codec's settings.
const CODEC: &str = "codec_state";

/// A codec whose codes are imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImportedCodec {
    /// EnCodec at 24 kHz.
    Encodec,
    /// The Descript codec; `rate` tells which of its models.
    Dac,
}

/// Settings of the `import-codes` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportCodesConfig {
    /// Number of levels: 8 of EnCodec at 6 kbit/s, 9 of the Descript codec at 44.1 kHz.
    pub levels: usize,
    /// Number of different codes of a level.
    pub vocabulary: usize,
    /// Frames per second: 75 of EnCodec, 86.1328125 of the Descript codec at 44.1 kHz.
    pub rate: f64,
    /// The codec that made the codes: `encodec` or `dac`. With it, an exported model hears prompts and turns its codes into sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec: Option<ImportedCodec>,
    /// Weights of `codec`, as its own extractor takes them. Required with `codec`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
}

impl Default for ImportCodesConfig {
    /// EnCodec at 24 kHz and 6 kbit/s.
    fn default() -> Self {
        Self { levels: 8, vocabulary: 1024, rate: 75.0, codec: None, weights: None }
    }
}

impl ImportCodesConfig {
    /// Returns the settings of the codec's own extractor; `None` without a codec.
    fn own(&self) -> Option<Chosen> {
        let &Self { levels, vocabulary: codebook_size, rate, codec, .. } = self;
        let weights = self.weights.clone();
        Some(match codec? {
            ImportedCodec::Encodec => Chosen::new(encodec::EncodecConfig { weights, levels, codebook_size }),
            ImportedCodec::Dac => {
                let published = dac::DacConfig { weights, levels, codebook_size, ..dac::DacConfig::default() };
                let is = |sample_rate: u32| (rate - f64::from(sample_rate) / 320.0).abs() < 1e-6;
                let slower = [16_000, 24_000].into_iter().find(|sample_rate| is(*sample_rate));
                Chosen::new(match slower {
                    Some(sample_rate) => dac::DacConfig { sample_rate, hop_length: 320, ..published },
                    None => published,
                })
            }
        })
    }
}

/// Splits a state into the settings of this kind and the state of the codec, if it has one.
fn parts(state: &State) -> Result<(ImportCodesConfig, Option<State>), StateError> {
    state.expect_kind(KIND)?;
    let mut settings = state.settings().clone();
    let of_codec = settings.as_object_mut().and_then(|settings| settings.remove(CODEC));
    let config: ImportCodesConfig = State::new(KIND, settings).settings_as(KIND)?;
    let codec = config.own().zip(of_codec).map(|(own, settings)| state.part(CODEC, own.kind(), settings));
    Ok((config, codec))
}

impl Kind for ImportCodesConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Codes of a neural codec that another tool made, from the file of each row (`format: codes`). Nothing in a file is \
                                 executed. A row is rejected if its file is damaged, or if its codes have other levels or lie beyond the vocabulary.";
    const PATHS: &'static [&'static str] = &["weights"];
    const WORDS: &'static [&'static str] = &["random"];
    const MEDIA: &'static [Role] = &[Role::Codes];

    fn columns(&self) -> Vec<Column> {
        vec![Column::codes(self.levels, self.vocabulary, self.rate)]
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        let (config, codec) = parts(state)?;
        Ok(Box::new(ImportCodes { config, codec, device: device.clone(), opened: OnceLock::new() }))
    }

    fn codec(state: &State, device: &Device) -> Result<Option<Box<dyn Codec>>, StateError> {
        match parts(state)?.1 {
            Some(state) => registry().codec(&state, device),
            None => Ok(None),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("levels", self.levels, 1, 64)?;
        within("vocabulary", self.vocabulary, 2, 1 << 20)?;
        if !(self.rate > 0.0 && self.rate <= 10_000.0) {
            return Err(ConfigError::new("rate", format!("{} is no number of frames per second", self.rate)));
        }
        match self.own() {
            Some(own) => {
                own.check()?;
                match own.columns() == self.columns() {
                    true => Ok(()),
                    false => Err(ConfigError::new("rate", format!("{} is not that of the codec", self.rate))),
                }
            }
            None if self.weights.is_some() => {
                Err(ConfigError::new("weights", "they need `codec`, the name of their codec".to_owned()))
            }
            None => Ok(()),
        }
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let own = self.own().map(|own| own.fit(seed, root)).transpose()?;
        let settings = json!(self);
        Ok(Box::new(Pretrained::new(KIND, move || {
            let Some(own) = &own else {
                return Ok(Fitted { state: State::new(KIND, settings.clone()), facts: Vec::new() });
            };
            let Fitted { state: of_codec, facts } = own.finish(&State::new(own.kind(), Value::Null))?;
            let mut settings = settings.clone();
            settings[CODEC] = of_codec.settings().clone();
            let mut state = State::new(KIND, settings);
            state.set_part(CODEC, of_codec);
            Ok(Fitted { state, facts })
        })))
    }

    fn weights(&self) -> Vec<&Weights> {
        self.weights.iter().collect()
    }
}

/// Reads codes from the files of rows, and with the codec those of recordings.
pub struct ImportCodes {
    config: ImportCodesConfig,
    codec: Option<State>,
    device: Device,
    /// The codec's own extractor, once a recording asked for it.
    opened: OnceLock<Result<Box<dyn Extractor>, String>>,
}

impl ImportCodes {
    /// Returns the codec's own extractor; `None` without a codec.
    fn own(&self) -> Option<Result<&dyn Extractor, ExtractError>> {
        let state = self.codec.as_ref()?;
        let open = || registry().open(state, &self.device).map_err(|error| error.to_string());
        let opened = self.opened.get_or_init(open);
        Some(opened.as_ref().map(AsRef::as_ref).map_err(|error| ExtractError::Machine(error.clone())))
    }
}

impl Extractor for ImportCodes {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let files = match (media.files(KIND, Role::Codes), media.as_audio(KIND)) {
            (Err(missing @ ExtractError::NoMedia { .. }), Ok(_)) => match self.own() {
                Some(own) => return own?.extract(media),
                None => return Err(missing),
            },
            (files, _) => files?,
        };
        let [file] = files.as_slice() else {
            return Err(ExtractError::Media(format!("{} files of codes instead of one", files.len())));
        };
        let bad = |problem: String| ExtractError::Media(format!("bad file of codes: {problem}"));
        let artifact = Artifact::of(file, Path::new("codes")).map_err(bad)?;
        let Codes { values, levels, frames } =
            artifact.codes(self.config.levels, self.config.vocabulary).map_err(bad)?;
        let array = Array::new(vec![levels, frames], values).map_err(|error| bad(error.to_string()))?;
        Ok(array.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn impossible_settings_are_named() {
        assert!(ImportCodesConfig::default().check().is_ok());
        for (bad, field) in [
            (json!({"levels": 0}), "levels"),
            (json!({"levels": 65}), "levels"),
            (json!({"vocabulary": 1}), "vocabulary"),
            (json!({"rate": 0.0}), "rate"),
            (json!({"codec": "encodec"}), "weights"),
            (json!({"weights": "encodec.th"}), "weights"),
            (json!({"codec": "encodec", "weights": "encodec.th", "rate": 50.0}), "rate"),
        ] {
            let config: ImportCodesConfig = serde_json::from_value(bad).unwrap();
            assert_eq!(config.check().unwrap_err().field, field);
        }
    }

    #[test]
    fn with_the_codec_recordings_have_codes_and_codes_sound() {
        for (settings, frames) in [
            (json!({"codec": "encodec", "weights": "random", "levels": 2, "vocabulary": 16}), 75),
            (json!({"codec": "dac", "weights": "random", "levels": 2, "vocabulary": 16, "rate": 50.0}), 50),
        ] {
            let config: ImportCodesConfig = serde_json::from_value(settings).unwrap();
            config.check().unwrap();
            let fit = config.fit(3, Path::new("")).unwrap();
            let state = fit.finish(&State::new(KIND, Value::Null)).unwrap().state;
            let extractor = ImportCodesConfig::open(&state, &Device::Cpu).unwrap();
            let tone: Vec<f32> = (0..24_000).map(|at| (at as f32 * 0.05).sin() * 0.3).collect();
            let audio = flowmill_audio::Audio { samples: vec![tone], sample_rate: 24_000, warnings: Vec::new() };
            let media = Media::audio(move || Ok::<_, flowmill_audio::AudioError>(audio.clone()));
            let extracted = extractor.extract(&media).unwrap();
            let codes = &extracted.arrays()[0];
            assert_eq!(codes.shape(), [2, frames]);
            let codec = ImportCodesConfig::codec(&state, &Device::Cpu).unwrap().unwrap();
            let seconds = codec.decode(codes).unwrap().len() as f64 / f64::from(codec.sample_rate());
            assert!((seconds - 1.0).abs() < 0.05, "{seconds}");
        }
    }

    #[test]
    fn a_recording_is_no_file_of_codes() {
        let state = State::new(KIND, json!(ImportCodesConfig::default()));
        let extractor = ImportCodesConfig::open(&state, &Device::Cpu).unwrap();
        let recording = Media::audio(|| Err::<flowmill_audio::Audio, _>("never read"));
        let wanted = Role::Codes;
        assert!(
            matches!(extractor.extract(&recording), Err(ExtractError::NoMedia { wanted: found, .. }) if found == wanted)
        );
        let text = Media::default().with_files(|_| Ok(vec![b"RIFF".to_vec()]));
        assert!(matches!(extractor.extract(&text), Err(ExtractError::Media(_))));
    }
}
