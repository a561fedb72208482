//! S3: the supervised semantic speech tokenizers of CosyVoice, 25 tokens a second.

mod dimensions;
mod model;
pub mod pieces;
mod quantizer;
mod rotary;

pub use dimensions::{Dimensions, Version};
pub use model::{Frames, Hidden, S3Tokenizer};
