//! The `import-latents` kind: motion, speech features and emotions that another tool made, from the file of each row.
//!
//! Rows have such files if a manifest names them (`media: [codes]`). A file is a dictionary of tensors as `torch.save` writes it, or a
//! `.safetensors` file. Nothing in a file is executed.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use flowmill_corpus::{Array, ColumnSpec, DType, Role};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::within;
use crate::extractors::mel_windows::SPEECH_FEATURES;
use crate::renderer::{MOTION, REFERENCE};
use crate::{Column, ConfigError, ExtractError, Extracted, Extractor, Kind, Media, State, StateError};

/// The extractor's kind.
const KIND: &str = "import-latents";
/// The number of emotions.
const EMOTIONS: usize = 7;

/// Settings of the `import-latents` extractor. Each names a tensor in the file of a row; what is not named is not read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportLatentsConfig {
    /// The motion of each frame, `[frame, channel]`. It gives the columns `motion` and `reference`.
    pub motion: Option<String>,
    /// The motion of the reference, `[channel]`; without it the motion of the first frame.
    pub reference: Option<String>,
    /// The speech features of each frame, `[frame, feature]`. It gives the column `speech_features`.
    pub speech: Option<String>,
    /// The probability of each of seven emotions. It gives the column `emotion`.
    pub emotion: Option<String>,
    /// Channels of the motion: 512 in the public setting.
    pub channels: usize,
    /// Speech features per frame: 9216 in the public setting, or 768 of the last layer only.
    pub features: usize,
}

impl Kind for ImportLatentsConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Motion, speech features and emotions that another tool made, from the `.pt` file of each row (a manifest with `codes`). \
                                 Nothing in a file is executed.";
    const MEDIA: &'static [Role] = &[Role::Codes];

    fn columns(&self) -> Vec<Column> {
        let mut columns: Vec<Column> = Vec::new();
        if self.motion.is_some() {
            let channels = |column: ColumnSpec| column.fixed_axis("channel", self.channels);
            columns.push(channels(ColumnSpec::new(MOTION, DType::F32).axis("frame")).into());
            columns.push(channels(ColumnSpec::new(REFERENCE, DType::F32)).into());
        }
        if self.speech.is_some() {
            let speech = ColumnSpec::new(SPEECH_FEATURES, DType::F32).axis("frame");
            columns.push(speech.fixed_axis("feature", self.features).into());
        }
        if self.emotion.is_some() {
            columns.push(ColumnSpec::new("emotion", DType::F32).fixed_axis("class", EMOTIONS).into());
        }
        columns
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(ImportLatents { config: state.settings_as(KIND)? }))
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.motion.is_none() && self.speech.is_none() {
            return Err(ConfigError::new(
                "motion",
                "missing: name the tensor of the motion, or `speech` that of the speech features",
            ));
        }
        if self.motion.is_some() {
            within("channels", self.channels, 1, 1 << 20)?;
        }
        if self.speech.is_some() {
            within("features", self.features, 1, 1 << 20)?;
        }
        Ok(())
    }
}

/// Reads tensors from the files of rows.
struct ImportLatents {
    config: ImportLatentsConfig,
}

/// Returns a tensor of rows of this width; axes of length 1 before them are left out.
fn rows_of(tensors: &BTreeMap<String, Tensor>, name: &str, width: usize) -> Result<(usize, Vec<f32>), ExtractError> {
    let bad = |problem: String| ExtractError::Media(format!("bad file of latents: {problem}"));
    let tensor = tensors.get(name).ok_or_else(|| {
        let known: Vec<&str> = tensors.keys().map(String::as_str).take(10).collect();
        bad(format!("it has no tensor `{name}`; there are {}", known.join(", ")))
    })?;
    let (shape, found) = (tensor.dims(), tensor.dims().last().copied().unwrap_or(0));
    let outer: usize = shape.iter().rev().skip(2).product();
    if found != width || outer != 1 {
        return Err(bad(format!("`{name}` has the shape {shape:?}; expected [frame, {width}]")));
    }
    let values =
        tensor.flatten_all().and_then(|tensor| tensor.to_vec1::<f32>()).map_err(|error| bad(error.to_string()))?;
    Ok((values.len() / width.max(1), values))
}

impl Extractor for ImportLatents {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let files = media.files(KIND, Role::Codes)?;
        let [file] = files.as_slice() else {
            return Err(ExtractError::Media(format!("{} files of latents instead of one", files.len())));
        };
        let bad = |problem: String| ExtractError::Media(format!("bad file of latents: {problem}"));
        let read = flowmill_weights::from_bytes(file, Path::new("latents")).map_err(|error| bad(error.to_string()))?;
        let config = &self.config;
        let rows = |name: &str, width: usize| rows_of(&read.tensors, name, width);
        let matrix = |frames: usize, width: usize, values: Vec<f32>| {
            Array::new(vec![frames, width], values).map_err(|error| bad(error.to_string()))
        };
        let mut arrays = Vec::new();
        if let Some(name) = &config.motion {
            let (frames, motion) = rows(name, config.channels)?;
            let reference = match &config.reference {
                Some(name) => rows(name, config.channels)?.1,
                None => motion.clone(),
            };
            if reference.len() < config.channels {
                return Err(bad("it has no frame of motion".to_owned()));
            }
            arrays.push(matrix(frames, config.channels, motion)?);
            arrays.push(Array::vector(reference[..config.channels].to_vec()));
        }
        if let Some(name) = &config.speech {
            let (frames, speech) = rows(name, config.features)?;
            arrays.push(matrix(frames, config.features, speech)?);
        }
        if let Some(name) = &config.emotion {
            let (count, emotion) = rows(name, EMOTIONS)?;
            if count != 1 {
                return Err(bad(format!("`{name}` has {count} rows instead of one")));
            }
            arrays.push(Array::vector(emotion));
        }
        Ok(Extracted::new(arrays))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(tensors: &[(&str, &[usize])]) -> Vec<u8> {
        let tensor = |(name, shape): &(&str, &[usize])| {
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|value| value as f32).collect();
            ((*name).to_owned(), Tensor::from_vec(values, *shape, &Device::Cpu).unwrap())
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pt");
        flowmill_weights::write(&path, &tensors.iter().map(tensor).collect::<Vec<_>>(), &BTreeMap::new()).unwrap();
        std::fs::read(path).unwrap()
    }

    fn extract(config: &ImportLatentsConfig, file: Vec<u8>) -> Result<Vec<Array>, ExtractError> {
        let media = Media::default().with_files(move |_| Ok(vec![file.clone()]));
        let extracted = ImportLatents { config: config.clone() }.extract(&media)?;
        extracted.check(KIND, &config.columns())?;
        Ok(extracted.into_arrays())
    }

    fn config() -> ImportLatentsConfig {
        let name = |name: &str| Some(name.to_owned());
        ImportLatentsConfig {
            motion: name("motion"),
            speech: name("audio"),
            emotion: name("emotion"),
            channels: 3,
            features: 2,
            ..ImportLatentsConfig::default()
        }
    }

    #[test]
    fn tensors_become_columns() {
        let arrays =
            extract(&config(), file(&[("motion", &[1, 4, 3]), ("audio", &[4, 2]), ("emotion", &[1, 7])])).unwrap();
        let shapes: Vec<&[usize]> = arrays.iter().map(Array::shape).collect();
        assert_eq!(shapes, [&[4, 3][..], &[3], &[4, 2], &[7]]);
        assert_eq!(arrays[1].values::<f32>().unwrap(), [0.0, 1.0, 2.0]);
    }

    #[test]
    fn files_that_do_not_fit_are_refused() {
        let good: [(&str, &[usize]); 3] = [("motion", &[4, 3]), ("audio", &[4, 2]), ("emotion", &[7])];
        assert!(extract(&config(), file(&good)).is_ok());
        for (at, shape) in [(0, &[4, 2][..]), (0, &[2, 4, 3]), (1, &[4]), (2, &[2, 7])] {
            let mut bad = good;
            bad[at].1 = shape;
            assert!(matches!(extract(&config(), file(&bad)), Err(ExtractError::Media(_))), "{bad:?}");
        }
        assert!(extract(&config(), file(&good[..2])).is_err());
        assert!(extract(&config(), b"no file of tensors".to_vec()).is_err());
        assert_eq!(ImportLatentsConfig::default().check().unwrap_err().field, "motion");
    }
}
