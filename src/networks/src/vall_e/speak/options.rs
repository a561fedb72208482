//! Requests and options of generation.

use super::OnProgress;
use crate::vall_e::{Codes, Result, Task, VallEConfig, VallEError};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A request to generate speech.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpeakRequest {
    /// The task: one whose output is speech.
    pub task: Task,
    /// Phoneme ids, begin (1) and end (2) included.
    pub phonemes: Vec<u32>,
    /// Number of the language.
    pub language: u32,
    /// Number of the tone, if the model was trained with tones.
    pub tone: Option<u32>,
    /// Codes of the prompt; it has the voice that is imitated.
    pub prompt: Option<Codes>,
    /// Number of frames, for [`FirstLevel::Masked`]; predicted if absent.
    pub frames: Option<usize>,
    /// Identifies the request in the random draws.
    pub sample: u64,
}

/// A request to transcribe speech.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TranscribeRequest {
    /// Codes of the speech.
    pub speech: Codes,
    /// Number of the language.
    pub language: u32,
    /// Identifies the request in the random draws.
    pub sample: u64,
}

/// Options of sampling from logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingOptions {
    /// Divisor of the logits; 0 for the most probable class.
    pub temperature: f32,
    /// Number of most probable classes that are sampled from; 0 for all.
    pub top_k: usize,
    /// Probability of the smallest set of most probable classes that is sampled from; 1 for all.
    pub top_p: f32,
    /// Share of the largest probability that a class needs; 0 for all classes.
    pub min_p: f32,
    /// Classes are sampled whose logits are at most this many standard deviations below the largest; 0 for all classes
    /// (top-n-sigma; arXiv 2411.07641).
    pub top_sigma: f32,
    /// Divisor of the positive logits, and factor on the negative ones, of codes that have been generated before, once per occurrence;
    /// 1 for no penalty (arXiv 1909.05858).
    pub repetition_penalty: f32,
    /// Decay of the repetition penalty with the distance d of an occurrence: its exponent is d to the power of minus this number.
    pub repetition_decay: f32,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            top_sigma: 0.0,
            repetition_penalty: 1.0,
            repetition_decay: 0.0,
        }
    }
}

impl SamplingOptions {
    /// Returns the options that take the most probable class.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks that the options are usable.
    ///
    /// # Errors
    /// [`VallEError::Config`] names the first wrong option.
    pub fn check(&self) -> Result<()> {
        let refuse = |field, number: f32, range| {
            Err(VallEError::Config { field, message: format!("{number} is not in {range}") })
        };
        let Self { temperature, top_p, min_p, top_sigma, repetition_penalty, repetition_decay, .. } = *self;
        if !(0.0..=100.0).contains(&temperature) {
            return refuse("temperature", temperature, "[0, 100]");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return refuse("top_p", top_p, "(0, 1]");
        }
        if !(0.0..=1.0).contains(&min_p) {
            return refuse("min_p", min_p, "[0, 1]");
        }
        if !(0.0..=1e6).contains(&top_sigma) {
            return refuse("top_sigma", top_sigma, "[0, 1000000]");
        }
        if !(1e-3..=1e3).contains(&repetition_penalty) {
            return refuse("repetition_penalty", repetition_penalty, "[0.001, 1000]");
        }
        if !(0.0..=100.0).contains(&repetition_decay) {
            return refuse("repetition_decay", repetition_decay, "[0, 100]");
        }
        Ok(())
    }
}

/// Conditions that are left out for guidance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LeftOut {
    /// Phonemes and prompt, as in the public implementation. The model needs `condition_dropout` in training.
    #[default]
    All,
    /// The prompt. A strength below 1 then weakens the prompt against the text. The model needs `prompt_dropout` in training.
    Prompt,
}

impl LeftOut {
    fn is_all(&self) -> bool {
        *self == Self::All
    }
}

/// Classifier-free guidance (arXiv 2207.12598) with rescaled logits (arXiv 2305.08891).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Guidance {
    /// Factor on the difference between the logits with and without conditions; 1 changes nothing.
    pub strength: f32,
    /// Share of the guided logits' deviation that is reset to that of the logits with conditions.
    pub rescale: f32,
    /// The conditions that the second logits lack.
    #[serde(skip_serializing_if = "LeftOut::is_all")]
    pub without: LeftOut,
}

impl Default for Guidance {
    fn default() -> Self {
        Self { strength: 2.5, rescale: 0.7, without: LeftOut::All }
    }
}

impl Guidance {
    fn check(&self) -> Result<()> {
        let refuse = |field, message| Err(VallEError::Config { field, message });
        if !(0.0..=100.0).contains(&self.strength) {
            return refuse("guidance.strength", format!("{} is not in [0, 100]", self.strength));
        }
        if !(0.0..=1.0).contains(&self.rescale) {
            return refuse("guidance.rescale", format!("{} is not in [0, 1]", self.rescale));
        }
        Ok(())
    }
}

/// Options of the generation of masked codes (NAR-len).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MaskedOptions {
    /// Number of steps.
    pub steps: usize,
    /// Sampling of the masked frames. The temperature falls linearly to 0.
    pub sampling: SamplingOptions,
    /// Guidance; it does not change over the steps.
    pub guidance: Option<Guidance>,
    /// Classes whose logits are at most this many standard deviations below the largest have a share in the score of a frame; 0 for all.
    pub score_sigma: f32,
}

impl Default for MaskedOptions {
    fn default() -> Self {
        Self {
            steps: 25,
            sampling: SamplingOptions::greedy(),
            guidance: Some(Guidance { rescale: 0.75, ..Guidance::default() }),
            score_sigma: 1.0,
        }
    }
}

/// The way in which level 0 is generated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(transform = describe_keys)]
pub enum FirstLevel {
    /// Code by code, until the model predicts the end.
    Autoregressive {
        /// Sampling.
        sampling: SamplingOptions,
        /// Guidance.
        guidance: Option<Guidance>,
    },
    /// All frames at once, in a few steps that unmask the most certain ones.
    Masked(MaskedOptions),
}

/// Gives the key of each variant the variant's description, so that editors show it.
fn describe_keys(schema: &mut Schema) {
    let variants = schema.get_mut("oneOf").and_then(Value::as_array_mut);
    for variant in variants.into_iter().flatten() {
        let Some(description) = variant.get("description").cloned() else { continue };
        let keys = variant.get_mut("properties").and_then(Value::as_object_mut);
        for key in keys.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
            key.entry("description").or_insert_with(|| description.clone());
        }
    }
}

impl Default for FirstLevel {
    fn default() -> Self {
        Self::Autoregressive { sampling: SamplingOptions::default(), guidance: None }
    }
}

/// Options of the generation of speech.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SpeakOptions {
    /// The way in which level 0 is generated.
    pub first_level: FirstLevel,
    /// Largest number of frames.
    pub max_frames: usize,
    /// Number of levels to generate; 0 for all of the model's.
    pub levels: usize,
    /// Sampling of the levels above 0.
    pub level_sampling: SamplingOptions,
    /// Guidance of the levels above 0.
    pub level_guidance: Option<Guidance>,
}

impl Default for SpeakOptions {
    fn default() -> Self {
        Self {
            first_level: FirstLevel::default(),
            max_frames: 900,
            levels: 0,
            level_sampling: SamplingOptions::greedy(),
            level_guidance: None,
        }
    }
}

impl SpeakOptions {
    /// Largest number of frames and of steps, which bounds the memory of a request.
    const MOST: usize = 1 << 16;

    /// Checks that the options are usable.
    ///
    /// # Errors
    /// [`VallEError::Config`] names the first wrong option.
    pub fn check(&self, config: &VallEConfig) -> Result<()> {
        let refuse = |field, message| Err(VallEError::Config { field, message });
        let (sampling, guidance) = match &self.first_level {
            FirstLevel::Autoregressive { sampling, guidance } => (sampling, guidance),
            FirstLevel::Masked(masked) => {
                if !(1..=Self::MOST).contains(&masked.steps) {
                    return refuse("steps", format!("{} is not between 1 and {}", masked.steps, Self::MOST));
                }
                if !(0.0..=1e6).contains(&masked.score_sigma) {
                    return refuse("score_sigma", format!("{} is not in [0, 1000000]", masked.score_sigma));
                }
                (&masked.sampling, &masked.guidance)
            }
        };
        if !(1..=Self::MOST).contains(&self.max_frames) {
            return refuse("max_frames", format!("{} is not between 1 and {}", self.max_frames, Self::MOST));
        }
        if self.levels > config.levels {
            return refuse("levels", format!("{} of a model of {}", self.levels, config.levels));
        }
        [sampling, &self.level_sampling].into_iter().try_for_each(SamplingOptions::check)?;
        [guidance, &self.level_guidance].into_iter().flatten().try_for_each(Guidance::check)
    }

    /// Returns the number of levels to generate.
    pub(super) fn levels(&self, config: &VallEConfig) -> usize {
        if self.levels == 0 { config.levels } else { self.levels }
    }
}

/// A stage of generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Level 0: code by code, or step by step.
    FirstLevel,
    /// The levels above.
    Levels,
    /// The number of frames.
    Length,
    /// Phonemes.
    Transcript,
}

/// The state of a generation.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The stage.
    pub stage: Stage,
    /// Number of codes, steps or levels done.
    pub done: usize,
    /// Number of codes, steps or levels at most.
    pub limit: usize,
    /// The request whose codes are shown, by its position.
    pub request: usize,
    /// Codes of the request's latest level so far; masked frames have the stop token.
    pub codes: &'a [u32],
}

impl Progress<'_> {
    /// Passes the state to the caller.
    ///
    /// # Errors
    /// [`VallEError::Stopped`] if the caller stops the generation.
    pub(super) fn report(&self, on_progress: &mut OnProgress) -> Result<()> {
        if on_progress(self).is_break() {
            return Err(VallEError::Stopped);
        }
        Ok(())
    }
}
