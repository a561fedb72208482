//! S3: the supervised semantic speech tokenizers of CosyVoice, 25 tokens a second.
//!
//! Whisper's log-mel (128 bands) goes through two convolutions that halve the rate each and a transformer encoder; the first
//! version takes the nearest of 4096 entries, the second rounds eight numbers to three levels each (6561 tokens) and has rotary
//! positions and an FSMN memory next to each attention. The third is the second with twice as many blocks. Published as
//! `speech_tokenizer_v1.onnx` (CosyVoice-300M-25Hz, Step-Audio), `speech_tokenizer_v2.onnx` (CosyVoice 2) and
//! `speech_tokenizer_v3.onnx` (CosyVoice 3).

mod checkpoint;
mod config;
mod dimensions;
mod extractor;
mod graph;
mod layer_norm;
mod model;
mod onnx;
pub mod pieces;
mod quantizer;
mod rotary;

pub use checkpoint::Checkpoint;
pub(super) use config::{Given, load};
pub use config::{S3Config, open_graph};
pub use dimensions::{Dimensions, Version};
pub use extractor::S3Extractor;
pub use layer_norm::LayerNormEpsilon;
pub use model::{Frames, Hidden, S3Tokenizer};

/// The extractor's kind.
pub const KIND: &str = "s3-tokenizer";

/// Tokens per second.
pub const TOKEN_RATE: f64 = 25.0;
