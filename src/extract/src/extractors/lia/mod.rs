//! The `lia-motion` extractor, and the networks of LIA (Wang et al., "Latent image animator", ICLR 2022) as FLOAT (arXiv 2412.01064) uses
//! them: an encoder from a picture of a face to its appearance and motion, and a decoder back to a picture.
//!
//! The encoder halves the picture by residual blocks down to one vector, the appearance. Five linear layers turn it into the
//! coefficients of 20 directions of motion, which are orthogonal: the motion is `Q lambda`, where Q is the QR factor of a
//! learned matrix. The decoder is StyleGAN2's (Karras et al., arXiv 1912.04958), controlled by the sum of the appearance and a motion. At each
//! size it also computes a flow, by which it warps the encoder's features of that size, and a mask that blends them in.
//!
//! Names are those of the public implementation behind any prefix, such as `motion_autoencoder.` in FLOAT's `float.pth`. Pictures are square,
//! RGB, and from -1 to 1. The networks run on the CPU, one picture per thread.

mod blur;
mod config;
mod decoder;
mod dimensions;
mod direction;
mod encoder;
mod extractor;
mod face;
mod modulated;
mod names;
mod pixels;
mod renderer;
mod warp;

pub use config::LiaConfig;
pub use decoder::{Decoded, LiaDecoder};
pub use dimensions::Dimensions;
pub use direction::Directions;
pub use encoder::{Encoded, Features, LiaEncoder};
pub use extractor::LiaExtractor;
pub use pixels::{planes_of_rgb, rgb_of_planes};
pub use renderer::LiaRenderer;

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::UnusableWeights;
use crate::waveform;

/// The extractor's kind.
pub const KIND: &str = "lia-motion";

/// The sizes of a model and its weights.
pub type Checkpoint = waveform::Checkpoint<Dimensions>;

impl Checkpoint {
    /// Takes the weights of the encoder, the directions and, if it is there, the decoder out of a `state_dict`, behind any prefix.
    ///
    /// # Errors
    /// When there is no encoder, or a weight is missing or of another shape.
    pub fn of_state_dict(tensors: BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights> {
        Self::of_plain(names::taken(tensors)?)
    }
}
