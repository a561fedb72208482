//! Settings of the `lia-motion` extractor, and the reading of its weights.

use std::path::Path;

use candle_core::Device;
use flowmill_corpus::{ColumnSpec, DType, Role};
use flowmill_video::crop::Frames;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dimensions::SMALLEST;
use super::face::LiaFace;
use super::{Checkpoint, Dimensions, KIND, LiaExtractor};
use crate::error::within;
use crate::renderer::{MOTION, PORTRAIT, REFERENCE};
use crate::weights::{self as taken, Pretrained};
use crate::{Column, ConfigError, Extractor, Fit, Fitted, Kind, Renderer, State, StateError, UnusableWeights, Weights};

/// Settings of the `lia-motion` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LiaConfig {
    /// Weights, FLOAT's `float.pth` or a file of its motion autoencoder, relative to the folder of the recipe; or `random`, to try a run
    /// without any. Required.
    pub weights: Option<Weights>,
    /// Channels of a motion: those of the weights.
    pub channels: usize,
    /// Frames as they are cropped and scaled; their size is that of the weights.
    pub frames: Frames,
}

impl Default for LiaConfig {
    fn default() -> Self {
        let published = Dimensions::default();
        let size = published.size() as u32;
        Self { weights: None, channels: published.style, frames: Frames { size, ..Frames::default() } }
    }
}

/// The columns for motions of this many channels and frames of this size.
pub(super) fn columns(channels: usize, size: usize) -> Vec<Column> {
    let motion = ColumnSpec::new(MOTION, DType::F32).axis("frame").fixed_axis("channel", channels);
    let reference = ColumnSpec::new(REFERENCE, DType::F32).fixed_axis("channel", channels);
    let portrait = ColumnSpec::new(PORTRAIT, DType::U8).fixed_axis("row", size).fixed_axis("column", size);
    vec![motion.into(), reference.into(), portrait.fixed_axis("color", 3).into()]
}

impl LiaConfig {
    fn required(&self) -> Result<&Weights, ConfigError> {
        taken::required("weights", self.weights.as_ref(), "the path of FLOAT's float.pth")
    }

    /// The weights, read or drawn.
    fn load(&self, weights: &Weights, seed: u64, root: &Path) -> Result<Checkpoint, StateError> {
        let wanted = (self.channels, self.frames.size as usize);
        let Some(file) = weights.file() else {
            let directions = Dimensions::default().directions.min(self.channels);
            let sizes = Dimensions::small(wanted.1, self.channels, directions);
            return Checkpoint::random(sizes, seed).map_err(|error| taken::unusable(Path::new(KIND), error));
        };
        let path = root.join(file);
        let read = || -> Result<Checkpoint, UnusableWeights> {
            let checkpoint = Checkpoint::of_state_dict(flowmill_weights::read(&path)?.tensors)?;
            let (channels, size) = (checkpoint.dimensions().style, checkpoint.dimensions().size());
            if (channels, size) != wanted {
                return Err(UnusableWeights(format!(
                    "its motions have {channels} channels and its pictures {size} pixels; write `channels: {channels}` and \
                     `frames: {{size: {size}}}`"
                )));
            }
            Ok(checkpoint)
        };
        read().map_err(|error| taken::unusable(&path, error))
    }
}

impl Kind for LiaConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "The motion of a face in every video frame, by the encoder of LIA as FLOAT uses it, and that of the first frame as \
                                 reference.";
    const PATHS: &'static [&'static str] = &["weights"];
    const WORDS: &'static [&'static str] = &["random"];
    const MEDIA: &'static [Role] = &[Role::Video];

    fn columns(&self) -> Vec<Column> {
        columns(self.channels, self.frames.size as usize)
    }

    fn open(state: &State, _device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(LiaExtractor::from_state(state)?))
    }

    fn renderer(state: &State, _device: &Device) -> Result<Option<Box<dyn Renderer>>, StateError> {
        // Weights without a decoder give motion that cannot be rendered.
        Ok(LiaFace::from_state(state)?.map(|face| Box::new(face) as Box<dyn Renderer>))
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("channels", self.channels, 1, 8192)?;
        let size = self.frames.size as usize;
        if !size.is_power_of_two() || size <= SMALLEST {
            return Err(ConfigError::new("frames.size", format!("{size} is no power of 2 above {SMALLEST}")));
        }
        self.frames.check()?;
        self.required().map(drop)
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let (weights, config, root) = (self.required()?.clone(), self.clone(), root.to_owned());
        Ok(Box::new(Pretrained::new(KIND, move || {
            let checkpoint = config.load(&weights, seed, &root)?;
            let mut state = State::new(KIND, serde_json::json!({ "frames": config.frames }));
            checkpoint.keep(&mut state).map_err(|error| taken::unusable(Path::new(KIND), error))?;
            Ok(Fitted { state, facts: weights.facts() })
        })))
    }

    fn weights(&self) -> Vec<&Weights> {
        self.weights.iter().collect()
    }
}
