//! The `pca-motion` extractor: the motion of a face as principal components of its frames, which needs no downloaded weights and can be seen.
//!
//! The mean of a clip's cropped frames is the face without motion, its portrait. The differences of the frames to it are the motion. Their
//! principal components over the training clips, each divided by its deviation, are the channels of the motion of a frame. With `region`
//! only a part of the frame moves, such as that of the mouth. Rendering adds the components to a portrait. That shows mouths that open and
//! heads that turn a little, at a low resolution, and blurs larger motion.
//!
//! The reference of a portrait is its difference to the mean of all portraits, along the same components.

mod components;
mod config;
mod fit;

use flowmill_corpus::Array;
use flowmill_video::Frame;

pub use self::config::{PcaMotionConfig, ReferenceKind};
pub use self::fit::PcaMotionFit;
use crate::renderer::{check, crop_portrait};
use crate::{Column, ExtractError, Extracted, Extractor, Kind, Media, RenderError, Renderer, State, StateError};

/// The extractor's kind.
pub const KIND: &str = "pca-motion";

/// The arrays of a fitted state: components `[component, value]`, their deviations, the mean portrait, the factor of references, and the
/// direction of the mouth.
const COMPONENTS: &str = "components";
const DEVIATIONS: &str = "deviations";
const MEAN: &str = "mean_portrait";
const REFERENCE_SCALE: &str = "reference_scale";
const MOUTH: &str = "mouth";

/// The fitted extractor and renderer.
pub struct PcaMotion {
    config: PcaMotionConfig,
    components: Vec<f32>,
    deviations: Vec<f32>,
    mean: Vec<f32>,
    reference_scale: f32,
    mouth: Vec<f32>,
    /// The share to which each value of a frame moves.
    weights: Vec<f32>,
}

/// Returns the values of a frame, from 0 to 1.
fn numbers(frame: &Frame) -> impl Iterator<Item = f32> + '_ {
    frame.rgb.iter().map(|value| f32::from(*value) / 255.0)
}

/// Returns the mean of frames of one size.
fn mean_of(frames: &[Frame]) -> Vec<f32> {
    let mut sums = vec![0u64; frames.first().map_or(0, |frame| frame.rgb.len())];
    for frame in frames {
        sums.iter_mut().zip(&frame.rgb).for_each(|(sum, value)| *sum += u64::from(*value));
    }
    let scale = 1.0 / (255.0 * frames.len().max(1) as f64);
    sums.into_iter().map(|sum| (sum as f64 * scale) as f32).collect()
}

/// Returns the picture of values from 0 to 1; others are clipped.
fn picture(values: &[f32], size: u32) -> Frame {
    let rgb = values.iter().map(|value| (value.clamp(0.0, 1.0) * 255.0).round() as u8).collect();
    Frame { width: size, height: size, rgb }
}

impl PcaMotion {
    /// The extractor that a fitted state describes.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State) -> Result<Self, StateError> {
        let config: PcaMotionConfig = state.settings_as(KIND)?;
        let foreign = |reason: String| StateError::Foreign { wanted: KIND.to_owned(), found: reason };
        config.check().map_err(|error| foreign(error.to_string()))?;
        let (channels, pixels) = (Some(config.components), Some(config.pixels()));
        let array = |name: &str, shape: &[Option<usize>]| state.f32(name, shape).map(<[f32]>::to_vec);
        Ok(Self {
            components: array(COMPONENTS, &[channels, pixels])?,
            deviations: array(DEVIATIONS, &[channels])?,
            mean: array(MEAN, &[pixels])?,
            reference_scale: state.f32(REFERENCE_SCALE, &[Some(1)])?.first().copied().unwrap_or(1.0),
            mouth: array(MOUTH, &[channels])?,
            weights: config.weights(),
            config,
        })
    }

    /// Returns the motion of a difference to a portrait, `[channel]`.
    fn project(&self, difference: &[f32]) -> Vec<f32> {
        let directions = self.components.chunks_exact(self.config.pixels().max(1)).zip(&self.deviations);
        let channel = |(direction, deviation): (&[f32], &f32)| {
            let products = direction.iter().zip(&self.weights).zip(difference);
            let product: f64 = products.map(|((a, weight), b)| f64::from(a * weight) * f64::from(*b)).sum();
            (product / f64::from(deviation.max(1e-9))) as f32
        };
        directions.map(channel).collect()
    }

    fn reference_of(&self, portrait: &[f32]) -> Vec<f32> {
        match self.config.reference {
            ReferenceKind::None => vec![0.0; self.config.components],
            ReferenceKind::Appearance => {
                let difference: Vec<f32> = portrait.iter().zip(&self.mean).map(|(value, mean)| value - mean).collect();
                self.project(&difference).into_iter().map(|value| value * self.reference_scale).collect()
            }
        }
    }
}

impl Extractor for PcaMotion {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        self.config.columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let clip = media.video(KIND, &self.config.frames)?;
        let frames = &clip.frames;
        let mean = mean_of(frames);
        let mut motion = Vec::with_capacity(frames.len() * self.config.components);
        for frame in frames {
            let difference: Vec<f32> = numbers(frame).zip(&mean).map(|(value, mean)| value - mean).collect();
            motion.extend(self.project(&difference));
        }
        // Portraits are stored as pictures; the reference is that of the picture, as for a portrait of a user.
        let size = self.config.frames.size;
        let portrait = picture(&mean, size);
        let reference = self.reference_of(&numbers(&portrait).collect::<Vec<f32>>());
        let array = |error: flowmill_corpus::ArrayError| ExtractError::Media(error.to_string());
        let motion = Array::new(vec![frames.len(), self.config.components], motion).map_err(array)?;
        let portrait = Array::new(vec![size as usize, size as usize, 3], portrait.rgb).map_err(array)?;
        Ok(Extracted::new(vec![motion, Array::vector(reference), portrait]))
    }
}

impl Renderer for PcaMotion {
    fn channels(&self) -> usize {
        self.config.components
    }

    fn size(&self) -> u32 {
        self.config.frames.size
    }

    fn portrait(&self, picture: &Frame) -> Result<Frame, RenderError> {
        crop_portrait(&self.config.frames, picture)
    }

    fn reference(&self, portrait: &Frame) -> Result<Vec<f32>, RenderError> {
        check(self, portrait, &[])?;
        Ok(self.reference_of(&numbers(portrait).collect::<Vec<f32>>()))
    }

    fn render(&self, portrait: &Frame, motion: &[f32]) -> Result<Vec<Frame>, RenderError> {
        check(self, portrait, motion)?;
        let still: Vec<f32> = numbers(portrait).collect();
        let frame = |motion: &[f32]| {
            let mut values = still.clone();
            let directions = self.components.chunks_exact(still.len().max(1)).zip(&self.deviations);
            for ((direction, deviation), channel) in directions.zip(motion) {
                let weight = channel * deviation;
                values.iter_mut().zip(direction).for_each(|(value, direction)| *value += weight * direction);
            }
            picture(&values, self.config.frames.size)
        };
        Ok(motion.chunks_exact(self.config.components).map(frame).collect())
    }

    fn mouth(&self) -> Option<&[f32]> {
        Some(&self.mouth)
    }
}
