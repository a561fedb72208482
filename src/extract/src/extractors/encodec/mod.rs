//! The `encodec` codec (Défossez et al., "High fidelity neural audio compression", 2022): 75 frames a second of 24 kHz sound, up to 32 levels of
//! 1024 codes, of which language models of speech use 8.
//!
//! The encoder is a causal SEANet: a convolution, four stages of a residual block and a convolution with stride, two LSTM layers with
//! a skip connection, and a convolution. Each level of the quantizer takes the nearest entry to what the levels before it left. The
//! decoder mirrors the encoder. Causal convolutions reflect the signal before its start. Weights are those that Hugging Face publishes
//! (`facebook/encodec_24khz`) or Meta's `encodec_24khz-d7cc33bc.th`; all sizes follow from their shapes.
//!
//! The LSTM and the quantizer run on the CPU: they take 75 rows a second, one after the other.

mod config;
mod dimensions;
mod extractor;
mod lstm;
mod names;
mod network;

pub use config::EncodecConfig;
pub use dimensions::Dimensions;
pub use extractor::{EncodecDecoder, EncodecExtractor};
pub use network::{Decoder, Encoder};

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::UnusableWeights;
use crate::waveform::{self, Sizes, fold_weight_norms};

/// The extractor's kind.
pub const KIND: &str = "encodec";

/// The sample rate of the sound, in Hz.
pub const SAMPLE_RATE: u32 = 24_000;

/// Samples of a frame of the published model.
pub const HOP_LENGTH: usize = 320;

/// The sizes of a model and its weights, under the names of Hugging Face.
pub type Checkpoint = waveform::Checkpoint<Dimensions>;

impl Checkpoint {
    /// Takes the weights of a `state_dict`, with the names of Hugging Face or of Meta; of its levels, the first ones.
    ///
    /// # Errors
    /// When a weight is missing, of another shape, or of no part of the network; when it has fewer levels.
    pub fn of(tensors: BTreeMap<String, Tensor>, levels: usize) -> Result<Self, UnusableWeights> {
        let mut tensors = names::unified(tensors);
        fold_weight_norms(&mut tensors)?;
        let found = Dimensions::of(&tensors)?.levels;
        if found < levels {
            return Err(UnusableWeights(format!("it has {found} levels of codes, fewer than {levels}")));
        }
        names::drop_unused(&mut tensors, levels);
        Self::of_plain(tensors)
    }
}
