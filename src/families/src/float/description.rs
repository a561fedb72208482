//! The description of a model: everything that using it needs in addition to weights and extractors.

use serde::{Deserialize, Serialize};

use super::Sampling;
use super::emotions::EMOTIONS;
use super::options::TrainOptions;

/// Frames per second of all motion.
pub const FPS: u16 = 25;

/// The family's part of a model's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Frames per second.
    pub fps: u16,
    /// The emotions, in the order of their probabilities.
    pub emotions: Vec<String>,
    /// The direction of motion that opens the mouth; empty for the first channel.
    #[serde(default)]
    pub mouth: Vec<f32>,
    /// The settings of sampling; in trainings those of previews.
    #[serde(default)]
    pub sampling: Sampling,
}

impl Description {
    /// Describes a training with these options.
    pub fn new(options: &TrainOptions) -> Self {
        Self {
            fps: FPS,
            emotions: EMOTIONS.map(str::to_owned).to_vec(),
            mouth: options.mouth.clone(),
            sampling: options.sampling,
        }
    }
}
