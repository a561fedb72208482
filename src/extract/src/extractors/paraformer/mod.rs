//! Linguistic tokens: the encoder of an online Paraformer, chunk by chunk, and the nearest of a list of centres; 16.7 a second.
//!
//! Step-Audio's first codebook (vq02): `speech_paraformer-large_asr_nat-zh-cantonese-en-16k-vocab8501-online` of FunASR, whose
//! encoder outputs were clustered into 1024 centres (`linguistic_tokenizer.npy`).

mod checkpoint;
mod cmvn;
mod config;
mod encoder;
mod extractor;
mod frontend;
mod tokenizer;

pub use checkpoint::{Checkpoint, Dimensions};
pub use cmvn::Cmvn;
pub use config::ParaformerConfig;
pub(super) use config::{Keys, kept};
pub use encoder::{Chunking, Encoder};
pub use extractor::ParaformerUnits;
pub(super) use extractor::too_short;
pub use frontend::Stacking;
pub use tokenizer::{Encoded, LinguisticTokenizer};

/// The extractor's kind.
pub const KIND: &str = "paraformer-units";

/// Samples per second of what it hears.
pub const SAMPLE_RATE: u32 = 16_000;

/// Tokens per second: a stack of frames every 60 ms.
pub const TOKEN_RATE: f64 = SAMPLE_RATE as f64 / frontend::SAMPLES_PER_UNIT as f64;

/// Entries of the published list of centres.
pub const ENTRIES: usize = 1024;
