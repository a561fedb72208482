//! Latent diffusion (Rombach et al., arXiv 2112.10752) in the form of Stable Diffusion 1 and 2: a variational autoencoder of images, a
//! U-Net that predicts the noise in its latents under conditions, and the schedules that remove it step by step. Names of parameters and
//! settings are those of the package diffusers.
//!
//! Images and latents are `[item, height, width, channel]` inside; [`channels_last`] and [`channels_first`] convert from and to PyTorch's
//! order of axes.

mod autoencoder;
mod config;
mod resnet;
pub mod sampling;
mod transformer;
mod unet;

pub use autoencoder::{Autoencoder, Posterior};
pub use config::{AutoencoderConfig, BlockType, PerLevel, UNetConfig};
pub use unet::UNet;

use candle_core::Tensor;
use flowmill_nn::Value;

/// An error of a latent diffusion model.
#[derive(Debug, thiserror::Error)]
pub enum DiffusionError {
    /// A layer refused its input.
    #[error(transparent)]
    Nn(#[from] flowmill_nn::NnError),
    /// A setting of a `config.json` that is out of range, or that this network does not have.
    #[error("{what}'s config.json, `{field}`: {message}")]
    Config {
        /// The network.
        what: &'static str,
        /// The setting.
        field: &'static str,
        /// The problem.
        message: String,
    },
    /// Settings of a schedule that cannot be used.
    #[error("the diffusion schedule, `{field}`: {message}")]
    Schedule {
        /// The setting or argument.
        field: &'static str,
        /// The problem.
        message: String,
    },
}

impl From<candle_core::Error> for DiffusionError {
    fn from(error: candle_core::Error) -> Self {
        Self::Nn(error.into())
    }
}

/// The result of every fallible function of the model.
pub type Result<T> = std::result::Result<T, DiffusionError>;

/// Reorders images `[item, channel, height, width]` to `[item, height, width, channel]`.
///
/// # Errors
/// When it does not have four axes.
pub fn channels_last(images: &Tensor) -> Result<Value> {
    Ok(Value::plain(images.permute((0, 2, 3, 1))?.contiguous()?)?)
}

/// Reorders images `[item, height, width, channel]` to `[item, channel, height, width]`.
///
/// # Errors
/// When it does not have four axes.
pub fn channels_first(images: &Value) -> Result<Tensor> {
    Ok(images.tensor().permute((0, 3, 1, 2))?.contiguous()?)
}
