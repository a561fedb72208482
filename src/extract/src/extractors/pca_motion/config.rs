//! Settings of the `pca-motion` extractor.

use std::path::Path;

use candle_core::Device;
use flowmill_corpus::{ColumnSpec, DType, Role};
use flowmill_video::crop::Frames;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{KIND, PcaMotion, PcaMotionFit};
use crate::error::within;
use crate::renderer::{MOTION, PORTRAIT, REFERENCE};
use crate::{Column, ConfigError, Extractor, Fit, Kind, Renderer, State, StateError};

/// Bytes of the sample of frames that the components are fitted on.
const MOST_SAMPLE_BYTES: usize = 1 << 31;
/// A whole frame.
const WHOLE: [f32; 4] = [0.0, 0.0, 1.0, 1.0];
/// The share of a frame over which movement fades out inside the border of the part that moves.
const FADE: f32 = 0.1;

fn is_whole(region: &[f32; 4]) -> bool {
    *region == WHOLE
}

/// Settings of the `pca-motion` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PcaMotionConfig {
    /// Number of components: channels of the motion.
    pub components: usize,
    /// Frames as they are cropped and scaled.
    pub frames: Frames,
    /// The reference of a face: `appearance`, its picture along the components, or `none`, zeros, for corpora of a few faces, which a
    /// model would learn by heart.
    pub reference: ReferenceKind,
    /// The part of a frame that moves, as shares of its width and height: left, top, right and bottom; by default the whole frame. The rest
    /// of a face stays as it is in its portrait, and motion has nothing of it. Movement fades out within the part, over a tenth of the frame.
    #[serde(skip_serializing_if = "is_whole")]
    pub region: [f32; 4],
    /// The part of a frame that the mouth is in, as shares of its width and height: left, top, right and bottom. The component of
    /// motion that changes this part most measures the opening of the mouth.
    pub mouth: [f32; 4],
    /// Most training frames that the components are fitted on; of more a sample is taken.
    pub max_frames: usize,
    /// Most frames that one part of the corpus contributes.
    pub max_frames_per_part: usize,
}

/// The reference of a face.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceKind {
    /// The picture of the face along the components.
    #[default]
    Appearance,
    /// Zeros.
    None,
}

impl Default for PcaMotionConfig {
    fn default() -> Self {
        Self {
            components: 32,
            frames: Frames { size: 64, ..Frames::default() },
            reference: ReferenceKind::default(),
            region: WHOLE,
            mouth: [0.3, 0.6, 0.7, 0.9],
            max_frames: 4000,
            max_frames_per_part: 1000,
        }
    }
}

impl PcaMotionConfig {
    /// Returns the number of values of a frame.
    pub(super) fn pixels(&self) -> usize {
        3 * (self.frames.size as usize).pow(2)
    }

    /// The settings that measuring and sampling in a part read.
    pub(super) fn measuring(&self) -> Value {
        let mut read = json!({"frames": self.frames, "max_frames_per_part": self.max_frames_per_part});
        if !is_whole(&self.region) {
            read["region"] = json!(self.region);
        }
        read
    }

    /// Returns the place of a value of a frame, to the right and down, as shares of the frame.
    fn place(&self, value: usize) -> [f32; 2] {
        let size = self.frames.size as usize;
        [value / 3 % size, value / 3 / size].map(|place| (place as f32 + 0.5) / size as f32)
    }

    /// Returns whether a value of a frame is in the part of the mouth.
    pub(super) fn is_mouth(&self, value: usize) -> bool {
        let ([across, down], [left, top, right, bottom]) = (self.place(value), self.mouth);
        (left..right).contains(&across) && (top..bottom).contains(&down)
    }

    /// Returns the share to which each value of a frame moves: 1 within the part that moves, 0 outside.
    pub(super) fn weights(&self) -> Vec<f32> {
        let [left, top, right, bottom] = self.region;
        // Nothing fades out at the border of the frame itself.
        let inside = |place: f32, from: f32, to: f32| {
            let first = if from > 0.0 { (place - from) / FADE } else { 1.0 };
            let last = if to < 1.0 { (to - place) / FADE } else { 1.0 };
            first.min(last).clamp(0.0, 1.0)
        };
        let weight = |[across, down]: [f32; 2]| inside(across, left, right) * inside(down, top, bottom);
        (0..self.pixels()).map(|value| weight(self.place(value))).collect()
    }
}

impl Kind for PcaMotionConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Motion of a face without any weights: the principal components of what changes in the cropped frames of a \
                                 clip, fitted on the corpus. It can be rendered on any portrait.";
    const MEDIA: &'static [Role] = &[Role::Video];

    fn columns(&self) -> Vec<Column> {
        let (channels, size) = (self.components, self.frames.size as usize);
        let portrait = ColumnSpec::new(PORTRAIT, DType::U8).fixed_axis("row", size).fixed_axis("column", size);
        vec![
            ColumnSpec::new(MOTION, DType::F32).axis("frame").fixed_axis("channel", channels).into(),
            ColumnSpec::new(REFERENCE, DType::F32).fixed_axis("channel", channels).into(),
            portrait.fixed_axis("color", 3).into(),
        ]
    }

    fn open(state: &State, _: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(PcaMotion::from_state(state)?))
    }

    fn renderer(state: &State, _: &Device) -> Result<Option<Box<dyn Renderer>>, StateError> {
        Ok(Some(Box::new(PcaMotion::from_state(state)?)))
    }

    fn check(&self) -> Result<(), ConfigError> {
        within("components", self.components, 1, 512)?;
        within("frames.size", self.frames.size as usize, 16, 256)?;
        within("max_frames", self.max_frames, self.components, MOST_SAMPLE_BYTES / (4 * self.pixels()))?;
        within("max_frames_per_part", self.max_frames_per_part, 1, self.max_frames)?;
        let are_shares = |part: [f32; 4]| part.iter().all(|share| (0.0..=1.0).contains(share));
        let weights = self.weights();
        let mut moving = (0..self.pixels()).filter(|value| weights[*value] > 0.0).peekable();
        let (region, mouth) = (self.region, self.mouth);
        if !are_shares(region) || moving.peek().is_none() {
            let reason = format!("{region:?} is no part of a frame: left, top, right, bottom between 0 and 1");
            return Err(ConfigError::new("region", reason));
        }
        if !are_shares(mouth) || !moving.any(|value| self.is_mouth(value)) {
            let reason = match is_whole(&region) {
                true => format!("{mouth:?} is no part of a frame: left, top, right, bottom between 0 and 1"),
                false => format!("{mouth:?} has nothing of the part that moves, region: {region:?}"),
            };
            return Err(ConfigError::new("mouth", reason));
        }
        Ok(self.frames.check()?)
    }

    fn learning(&self) -> Option<Value> {
        Some(self.measuring())
    }

    fn fit(&self, seed: u64, _: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        self.check()?;
        Ok(Box::new(PcaMotionFit::new(self.clone(), seed)))
    }

    fn reads_seed(&self) -> bool {
        true
    }
}
