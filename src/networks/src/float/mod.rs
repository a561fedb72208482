//! FLOAT's flow matching transformer (FMT): from speech features, an emotion and a reference to the motion of a face (arXiv 2412.01064).
//!
//! A window has some previous frames, which are given, and the current ones, which the flow turns from noise into motion. Each frame has
//! a condition: the reference motion, the speech features of the frame, and the emotion. The conditions and the time of the flow
//! modulate the blocks frame by frame; attention reaches two frames in both directions. Longer clips are sampled window by window.
//!
//! The network is the same function as the public one (deepbrainai-research/float: models/float/FMT.py), with the same parameter names.
//! The projection of speech features to the transformer's conditions, which the public code keeps in its audio encoder, is trained
//! together with it as `audio_projection`.

mod batch;
mod config;
mod draws;
mod loss;
mod model;
mod sample;
mod transformer;

pub use batch::{Batch, Window};
pub use config::FloatConfig;
pub use draws::{Draws, DropoutConfig, Kept};
pub use loss::TrainLoss;
pub use model::Float;
pub use sample::{GuidanceOptions, MotionRequest};

/// An error of the flow matching transformer.
#[derive(Debug, thiserror::Error)]
pub enum FloatError {
    /// A layer refused its input.
    #[error(transparent)]
    Nn(#[from] flowmill_nn::NnError),
    /// A setting that cannot be used, or contradicts others.
    #[error("FLOAT configuration, `{field}`: {message}")]
    Config {
        /// The setting, as a dotted path.
        field: &'static str,
        /// The problem.
        message: String,
    },
    /// A window or request that does not match the model.
    #[error("FLOAT, item {item}: {message}")]
    Item {
        /// Position of the item in the batch.
        item: usize,
        /// The problem.
        message: String,
    },
}

impl From<candle_core::Error> for FloatError {
    fn from(error: candle_core::Error) -> Self {
        Self::Nn(error.into())
    }
}

/// The result of every fallible function of the network.
pub type Result<T> = std::result::Result<T, FloatError>;
