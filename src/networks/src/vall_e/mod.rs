//! VALL-E: one transformer that turns phonemes and a few seconds of a voice into the codes of an audio codec (arXiv 2301.02111), and
//! performs related tasks on the same sequences.
//!
//! | task | sequence | output |
//! |---|---|---|
//! | `tts`, level 0 | phonemes, language, level, prompt, response | the next code (autoregressive, AR), or masked codes (NAR-len) |
//! | `tts`, level q > 0 | the same, with the sums of the levels below q | all codes of level q at once (NAR) |
//! | `tts-c` | the same; the prompt is earlier speech, followed by the task's token | the codes that continue it |
//! | `ns`, `sr` | the same; the prompt is noisy speech, preceded by the task's token | the clean speech, or the noise |
//! | `len` | phonemes, language, level, prompt, length | the number of frames, digit by digit |
//! | `stt` | response, language, level, phonemes | the phonemes |
//!
//! A learned separator follows each part but the last, and positions restart in each part. Names of parameters and the function are those
//! of the public implementation, version 5 (e-c-k-e-r/vall-e: vall_e/models, with sums of audio embeddings, split classifiers with biases,
//! positions per part and causal masks).

mod codes;
mod config;
mod draws;
mod loss;
mod model;
mod sample;
mod sequence;
mod speak;

pub use codes::Codes;
pub use config::VallEConfig;
pub use draws::DrawConfig;
pub use loss::{Accuracy, TrainLoss};
pub use model::VallE;
pub use sample::{Batch, Sample, Task};
pub use speak::{
    FirstLevel, Guidance, LeftOut, MaskedOptions, Progress, SamplingOptions, SpeakOptions, SpeakRequest, Speaker,
    Stage, TranscribeRequest,
};

/// An error of the VALL-E network.
#[derive(Debug, thiserror::Error)]
pub enum VallEError {
    /// A layer refused its input.
    #[error(transparent)]
    Nn(#[from] flowmill_nn::NnError),
    /// A setting that cannot be used, or contradicts others.
    #[error("VALL-E configuration, `{field}`: {message}")]
    Config {
        /// The setting, as a dotted path.
        field: &'static str,
        /// The problem.
        message: String,
    },
    /// A sample or request that does not match the model.
    #[error("VALL-E, item {item}: {message}")]
    Sample {
        /// Position of the item in the batch.
        item: usize,
        /// The problem.
        message: String,
    },
    /// The caller stopped the generation.
    #[error("generation was stopped")]
    Stopped,
}

impl From<candle_core::Error> for VallEError {
    fn from(error: candle_core::Error) -> Self {
        Self::Nn(error.into())
    }
}

/// The result of every fallible function of the network.
pub type Result<T> = std::result::Result<T, VallEError>;
