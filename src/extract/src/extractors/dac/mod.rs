//! The `dac` codec (Kumar et al., "High-fidelity audio compression with improved RVQGAN", 2023): 86.13 frames a second of 44.1 kHz sound,
//! 9 levels of 1024 codes.
//!
//! The encoder is a convolution, blocks of three residual units with dilations 1, 3 and 9 and a convolution with stride, and a
//! convolution; the decoder mirrors it. Their activation is Snake, convolutions are padded with zeros. Each level of the quantizer
//! projects what the levels before it left to 8 numbers and takes the entry with the smallest angle to them. As in the public
//! implementation, a recording is brought to a loudness of -16 LUFS before it is encoded, so what is decoded has that loudness.
//! A recording is encoded as a whole, which the public implementation calls `win_duration=None`. Weights are the published
//! `weights_44khz_8kbps_0.0.1.pth`; the sizes of the network follow from their shapes.
//!
//! The quantizer runs on the CPU.

mod config;
mod dimensions;
mod extractor;
mod network;
mod quantizer;

use std::collections::BTreeMap;

use candle_core::Tensor;

pub use config::DacConfig;
pub use dimensions::Dimensions;
pub use extractor::{DacDecoder, DacExtractor};
pub use network::{Decoder, Encoder};
pub use quantizer::{Quantized, Quantizer};

use crate::UnusableWeights;
use crate::waveform::{self, Sizes, fold_weight_norms};

/// The extractor's kind.
pub const KIND: &str = "dac";

/// The sizes of a model and its weights.
pub type Checkpoint = waveform::Checkpoint<Dimensions>;

impl Checkpoint {
    /// Takes the weights of a `state_dict` of the public implementation; of its levels, the first ones.
    ///
    /// # Errors
    /// When a weight is missing, of another shape, or of no part of the network; when it has fewer levels.
    pub fn of(mut tensors: BTreeMap<String, Tensor>, levels: usize) -> Result<Self, UnusableWeights> {
        fold_weight_norms(&mut tensors)?;
        let found = Dimensions::of(&tensors)?.levels;
        if found < levels {
            return Err(UnusableWeights(format!("it has {found} levels of codes, fewer than {levels}")));
        }
        tensors.retain(|name, _| quantizer::level(name).is_none_or(|level| level < levels));
        Self::of_plain(tensors)
    }
}
