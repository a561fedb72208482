//! The `import-codes` kind: codes of a neural codec that another tool made, from the file of each row.
//!
//! Rows have such files if stage 0 reads prepared data (`format: codes`), or a manifest that names them (`media: [codes]`). They are the `.enc` and
//! `.dac` files and the HDF5 file of the public VALL-E trainer; see [`flowmill_corpus::codes`].

use std::path::Path;

use candle_core::Device;
use flowmill_corpus::codes::{Artifact, Codes};
use flowmill_corpus::{Array, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::within;
use crate::{Column, ConfigError, ExtractError, Extracted, Extractor, Kind, Media, State, StateError};

/// The extractor's kind.
const KIND: &str = "import-codes";

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
}

impl Default for ImportCodesConfig {
    /// EnCodec at 24 kHz and 6 kbit/s.
    fn default() -> Self {
        Self { levels: 8, vocabulary: 1024, rate: 75.0 }
    }
}

impl Kind for ImportCodesConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Codes of a neural codec that another tool made, from the file of each row (`format: codes`). Nothing in a file is \
                                 executed. A row is rejected if its file is damaged, or if its codes have other levels or lie beyond the vocabulary.";
    const MEDIA: &'static [Role] = &[Role::Codes];

    fn columns(&self) -> Vec<Column> {
        vec![Column::codes(self.levels, self.vocabulary, self.rate)]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(ImportCodes { config: state.settings_as(KIND)? }))
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("levels", self.levels, 1, 64)?;
        within("vocabulary", self.vocabulary, 2, 1 << 20)?;
        if !(self.rate > 0.0 && self.rate <= 10_000.0) {
            return Err(ConfigError::new("rate", format!("{} is no number of frames per second", self.rate)));
        }
        Ok(())
    }
}

/// Reads codes from the files of rows.
pub struct ImportCodes {
    config: ImportCodesConfig,
}

impl Extractor for ImportCodes {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let files = media.files(KIND, Role::Codes)?;
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
        ] {
            let config: ImportCodesConfig = serde_json::from_value(bad).unwrap();
            assert_eq!(config.check().unwrap_err().field, field);
        }
    }

    #[test]
    fn a_recording_is_no_file_of_codes() {
        let extractor = ImportCodes { config: ImportCodesConfig::default() };
        let recording = Media::audio(|| Err::<flowmill_audio::Audio, _>("never read"));
        let wanted = Role::Codes;
        assert!(
            matches!(extractor.extract(&recording), Err(ExtractError::NoMedia { wanted: found, .. }) if found == wanted)
        );
        let text = Media::default().with_files(|_| Ok(vec![b"RIFF".to_vec()]));
        assert!(matches!(extractor.extract(&text), Err(ExtractError::Media(_))));
    }
}
