//! The tokens of Step-Audio: linguistic tokens (an online Paraformer and centres) and semantic ones (S3 tokenizer v1) of the same
//! prepared recording, as one [mixed sequence](crate::dual_codebook).

mod config;
mod extractor;
mod prepare;

pub use config::{SemanticConfig, StepAudioConfig};
pub use extractor::StepAudioDual;
pub use prepare::{Preparation, normalise_energy, trim_ends};

/// The extractor's kind.
pub const KIND: &str = "step-audio-dual";
