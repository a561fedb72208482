//! The training data of VALL-E.

use super::sequence::Sequence;
use super::{Codes, Result, VallEConfig, VallEError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A task, under its public name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum Task {
    /// Speech from phonemes in the voice of the prompt.
    #[default]
    #[serde(rename = "tts")]
    Speech,
    /// Speech that continues the prompt; the phonemes are those of both.
    #[serde(rename = "tts-c")]
    Continuation,
    /// Clean speech from the noisy speech of the prompt.
    #[serde(rename = "ns")]
    NoiseSuppression,
    /// The noise of the noisy speech of the prompt.
    #[serde(rename = "sr")]
    SpeechRemoval,
    /// The phonemes of the response.
    #[serde(rename = "stt")]
    Transcription,
    /// The number of frames of the response.
    #[serde(rename = "len")]
    Length,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 6] = [
        Self::Speech,
        Self::Continuation,
        Self::NoiseSuppression,
        Self::SpeechRemoval,
        Self::Transcription,
        Self::Length,
    ];

    /// Returns the public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Speech => "tts",
            Self::Continuation => "tts-c",
            Self::NoiseSuppression => "ns",
            Self::SpeechRemoval => "sr",
            Self::Transcription => "stt",
            Self::Length => "len",
        }
    }

    /// Returns whether the output are codes of the response.
    pub fn is_audio(self) -> bool {
        !matches!(self, Self::Transcription | Self::Length)
    }

    /// Returns the token in the prompt, if the task has one (its number in the public list of tasks).
    pub(super) fn token(self) -> Option<u32> {
        match self {
            Self::Continuation => Some(1),
            Self::NoiseSuppression => Some(2),
            Self::SpeechRemoval => Some(3),
            Self::Speech | Self::Transcription | Self::Length => None,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// One sample of a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sample {
    /// The task.
    pub task: Task,
    /// Phoneme ids, begin (1) and end (2) included.
    pub phonemes: Vec<u32>,
    /// Number of the language.
    pub language: u32,
    /// Number of the tone, if the model was trained with tones.
    pub tone: Option<u32>,
    /// Codes of the prompt. Without any, the sequence has no prompt. Ignored by `stt`.
    pub prompt: Option<Codes>,
    /// Codes of the response, without the code that ends it.
    pub response: Codes,
    /// Level whose codes are predicted. `stt` and `len` have level 0.
    pub level: usize,
    /// For level 0: the frames that are masked and predicted (NAR-len). Without a mask, level 0 is autoregressive.
    pub mask: Option<Vec<bool>>,
}

impl Sample {
    /// Returns the name of its task and level in logs: `tts.0`, `tts.nar-len`, `len`, …
    pub fn label(&self) -> String {
        match (self.task.is_audio(), &self.mask) {
            (false, _) => self.task.name().to_owned(),
            (true, Some(_)) if self.level == 0 => format!("{}.nar-len", self.task),
            (true, _) => format!("{}.{}", self.task, self.level),
        }
    }
}

/// A batch of samples, laid out as sequences without padding.
#[derive(Debug, Clone)]
pub struct Batch {
    pub(super) sequences: Vec<Sequence>,
    labels: Vec<String>,
}

impl Batch {
    /// Lays out samples.
    ///
    /// # Errors
    /// [`VallEError::Sample`] names the sample that does not match the model.
    pub fn collate(samples: &[Sample], config: &VallEConfig) -> Result<Self> {
        if samples.is_empty() {
            return Err(VallEError::Sample { item: 0, message: "a batch without samples".to_owned() });
        }
        let sequence = |(item, sample)| {
            Sequence::of_sample(sample, config).map_err(|message| VallEError::Sample { item, message })
        };
        let sequences = samples.iter().enumerate().map(sequence).collect::<Result<_>>()?;
        Ok(Self { sequences, labels: samples.iter().map(Sample::label).collect() })
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Returns whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Returns the number of rows of all sequences.
    pub fn rows(&self) -> usize {
        self.sequences.iter().map(Sequence::len).sum()
    }

    /// Returns the number of outputs, over which the losses are means.
    pub fn outputs(&self) -> usize {
        self.sequences.iter().map(|sequence| sequence.outputs.len()).sum()
    }

    /// Returns the label of each sample; see [`Sample::label`].
    pub fn labels(&self) -> &[String] {
        &self.labels
    }
}
