//! The options of VALL-E in the sections `train` and `export`.

use flowmill_family::KeyError;
use flowmill_networks::vall_e::{DrawConfig, SpeakOptions, Task, VallEConfig, VallEError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::adapters::NamedLora;
use super::prompts::PromptRule;

/// The longest prompt, in seconds.
const LONGEST_PROMPT: f64 = 60.0;
/// The largest number of utterances of a prompt.
const MOST_UTTERANCES: usize = 100;

/// The word for symbols that need no file: the bytes of the phonemes.
pub const BYTES: &str = "bytes";

/// Options in the section `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// The weight of each task. Every sample of a batch gets a task at random, by these weights.
    ///
    /// Counterparts: VALL-E's `tasks_list`.
    pub tasks: TaskWeights,
    /// Random choices of the training: levels, masks, and conditions that are left out.
    pub draws: DrawConfig,
    /// The shortest and the longest prompt, in seconds. The length of a prompt is drawn between them.
    ///
    /// Counterparts: VALL-E's `prompt_duration_range`.
    pub prompt_seconds: [f64; 2],
    /// Most utterances of the same speaker that a prompt is made of.
    ///
    /// Counterparts: VALL-E's `prompt_max_samples`.
    pub prompt_utterances: usize,
    /// The users' file of similar utterances: a JSON file, or the folder `metadata` of the public trainer. A similar
    /// utterance is then preferred in prompts.
    ///
    /// Counterparts: VALL-E's `vall_e.emb.similar`.
    pub similarities: Option<String>,
    /// The choice of similar utterances for prompts, where `similarities` has any.
    pub similar_prompts: SimilarPrompts,
    /// The symbols of phonemes: `bytes`, or the JSON file of a tokenizer (the public one has 256 symbols).
    ///
    /// Counterparts: VALL-E's `tokenizer_path`.
    pub tokenizer: String,
    /// The languages of the data, in the order of their embeddings. Other languages are refused.
    pub languages: Vec<String>,
    /// Adapters in the form of the public trainer, such as `[{name: mine, rank: 128, alpha: 128, training: true}]`: an
    /// alternative to `train.lora`. Needs `train.init_from`.
    ///
    /// Counterparts: VALL-E's `loras`.
    pub loras: Vec<NamedLora>,
}

impl Default for TrainOptions {
    fn default() -> Self {
        let PromptRule { seconds, utterances, .. } = PromptRule::default();
        Self {
            tasks: TaskWeights::default(),
            draws: DrawConfig::default(),
            prompt_seconds: seconds,
            prompt_utterances: utterances,
            similarities: None,
            similar_prompts: SimilarPrompts::default(),
            tokenizer: BYTES.to_owned(),
            languages: ["en", "ja", "de", "fr"].map(str::to_owned).to_vec(),
            loras: Vec::new(),
        }
    }
}

/// The choice of similar utterances for prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SimilarPrompts {
    /// Probability of a similar utterance instead of any other one of the speaker.
    ///
    /// Counterparts: VALL-E's `prompt_similar_p`.
    pub probability: f64,
    /// Number of the most similar utterances among which one is drawn.
    ///
    /// Counterparts: VALL-E's `prompt_similar_top_k`.
    pub among: usize,
    /// Number of the most similar utterances that are passed over.
    ///
    /// Counterparts: VALL-E's `prompt_similar_top_k_offset`.
    pub after: usize,
}

impl Default for SimilarPrompts {
    fn default() -> Self {
        let PromptRule { similar, similar_among, similar_after, .. } = PromptRule::default();
        Self { probability: similar, among: similar_among, after: similar_after }
    }
}

/// The weights of the tasks; 0 for a task that is not trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TaskWeights {
    /// Speech from phonemes, in the voice of a prompt.
    pub tts: f64,
    /// Speech that continues the prompt, which is the beginning of the utterance.
    #[serde(rename = "tts-c")]
    pub continuation: f64,
    /// Phonemes from speech.
    pub stt: f64,
    /// Clean speech from noisy speech. Needs `tokens.noise`.
    pub ns: f64,
    /// Noise from noisy speech. Needs `tokens.noise`.
    pub sr: f64,
    /// The number of frames from phonemes and prompt, which masked generation (NAR-len) needs.
    pub len: f64,
}

impl Default for TaskWeights {
    fn default() -> Self {
        Self { tts: 1.0, continuation: 0.0, stt: 0.0, ns: 0.0, sr: 0.0, len: 0.05 }
    }
}

impl TaskWeights {
    /// Returns weights without any task.
    pub fn none() -> Self {
        Self { tts: 0.0, continuation: 0.0, stt: 0.0, ns: 0.0, sr: 0.0, len: 0.0 }
    }

    /// Returns whether a task is trained that needs noisy recordings.
    pub fn needs_noise(&self) -> bool {
        self.ns > 0.0 || self.sr > 0.0
    }

    /// Returns whether a task is trained whose outputs are codes.
    pub fn has_audio(&self) -> bool {
        self.weights().iter().any(|(task, weight)| task.is_audio() && *weight > 0.0)
    }

    /// Returns every task with its weight.
    fn weights(&self) -> [(Task, f64); 6] {
        [
            (Task::Speech, self.tts),
            (Task::Continuation, self.continuation),
            (Task::Transcription, self.stt),
            (Task::NoiseSuppression, self.ns),
            (Task::SpeechRemoval, self.sr),
            (Task::Length, self.len),
        ]
    }

    /// Returns the task at a share (0 to 1) of the sum of the weights.
    pub fn task_at(&self, share: f32) -> Task {
        let weights = self.weights();
        let mut rest = f64::from(share) * weights.iter().map(|(_, weight)| weight).sum::<f64>();
        for (task, weight) in weights {
            if rest < weight {
                return task;
            }
            rest -= weight;
        }
        // Rounding: the last task that has a weight.
        weights.into_iter().rev().find(|(_, weight)| *weight > 0.0).map_or(Task::Speech, |(task, _)| task)
    }

    /// Returns whether a task is trained.
    pub fn has(&self, task: Task) -> bool {
        self.weights().iter().any(|(own, weight)| *own == task && *weight > 0.0)
    }
}

impl TrainOptions {
    /// Returns the rule by which prompts are drawn.
    pub fn prompt_rule(&self) -> PromptRule {
        let SimilarPrompts { probability, among, after } = self.similar_prompts.clone();
        PromptRule {
            seconds: self.prompt_seconds,
            utterances: self.prompt_utterances,
            similar: probability,
            similar_among: among,
            similar_after: after,
        }
    }

    /// Checks the options for a model of `levels` levels and `languages` languages.
    ///
    /// # Errors
    /// Returns the first invalid key.
    pub fn check(&self, levels: usize, languages: usize) -> Result<(), KeyError> {
        let wrong = |key: &str, reason: String| Err(KeyError::new(format!("train.{key}"), reason));
        for (task, weight) in self.tasks.weights() {
            if !(weight.is_finite() && weight >= 0.0) {
                return wrong(&format!("tasks.{task}"), format!("{weight} is not a weight: 0 or more"));
            }
        }
        if self.tasks.weights().iter().all(|(_, weight)| *weight == 0.0) {
            return wrong("tasks", "every weight is 0; the public models are trained with tts: 1".to_owned());
        }
        self.check_draws(levels)?;
        let [least, most] = self.prompt_seconds;
        if !(least > 0.0 && least <= most && most <= LONGEST_PROMPT) {
            let reason = format!("[{least}, {most}] is not a range of seconds above 0 and up to {LONGEST_PROMPT}");
            return wrong("prompt_seconds", reason);
        }
        if !(1..=MOST_UTTERANCES).contains(&self.prompt_utterances) {
            return wrong("prompt_utterances", format!("{} is not in 1..={MOST_UTTERANCES}", self.prompt_utterances));
        }
        let SimilarPrompts { probability, among, .. } = self.similar_prompts.clone();
        if !(0.0..=1.0).contains(&probability) {
            let reason = format!("{probability} is not a probability from 0 to 1");
            return wrong("similar_prompts.probability", reason);
        }
        if among == 0 {
            return wrong("similar_prompts.among", "must be at least 1".to_owned());
        }
        if self.tokenizer.is_empty() {
            return wrong("tokenizer", format!("name a file, or `{BYTES}`"));
        }
        let mut known: Vec<&String> = self.languages.iter().collect();
        known.sort();
        if known.is_empty() || known.windows(2).any(|pair| pair[0] == pair[1]) {
            return wrong("languages", "needs at least one language, each once".to_owned());
        }
        if known.len() > languages {
            let reason = format!("{} languages, but the model has {languages} (train.model.languages)", known.len());
            return wrong("languages", reason);
        }
        Ok(())
    }

    fn check_draws(&self, levels: usize) -> Result<(), KeyError> {
        let wrong = |key: &str, reason: String| Err(KeyError::new(format!("train.draws.{key}"), reason));
        let draws = &self.draws;
        let shares = [
            ("masked_rate", draws.masked_rate),
            ("mask_ratio", draws.mask_ratio),
            ("prompt_dropout", draws.prompt_dropout),
            ("condition_dropout", draws.condition_dropout),
        ];
        if let Some((key, share)) = shares.into_iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return wrong(key, format!("{share} is not a share from 0 to 1"));
        }
        let weights = &draws.level_weights;
        let valid = |weight: &f32| weight.is_finite() && *weight >= 0.0;
        if !weights.is_empty()
            && (weights.len() != levels || !weights.iter().all(valid) || weights.iter().sum::<f32>() == 0.0)
        {
            let reason = format!("needs one weight for each of the {levels} levels, not all 0, or none for 8, 7, …, 1");
            return wrong("level_weights", reason);
        }
        Ok(())
    }
}

/// Options in the section `export`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportOptions {
    /// Settings of the generated speech that is scored. They are also the defaults of `speak` and `synth`.
    pub speech: SpeakOptions,
}

impl ExportOptions {
    /// Checks the options for a model.
    ///
    /// # Errors
    /// Returns the first invalid key.
    pub fn check(&self, config: &VallEConfig) -> Result<(), KeyError> {
        self.speech.check(config).map_err(|error| key_error("export.speech", error))
    }
}

/// Returns the error of a setting of the network as that of a key below `section`.
pub fn key_error(section: &str, error: VallEError) -> KeyError {
    match error {
        VallEError::Config { field, message } => KeyError::new(format!("{section}.{field}"), message),
        other => KeyError::new(section, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_follow_their_weights() {
        let weights = TaskWeights { tts: 2.0, stt: 1.0, len: 1.0, ..TaskWeights::default() };
        let tasks: Vec<Task> = [0.0, 0.49, 0.5, 0.74, 0.75, 1.0].map(|share| weights.task_at(share)).to_vec();
        let (speech, text, length) = (Task::Speech, Task::Transcription, Task::Length);
        assert_eq!(tasks, [speech, speech, text, text, length, length]);
        assert!(weights.has(Task::Length) && !weights.has(Task::Continuation));
    }

    #[test]
    fn invalid_options_are_named() {
        let key = |change: fn(&mut TrainOptions)| {
            let mut options = TrainOptions::default();
            change(&mut options);
            options.check(8, 4).unwrap_err().key
        };
        TrainOptions::default().check(8, 4).unwrap();
        assert_eq!(key(|options| options.tasks.stt = -1.0), "train.tasks.stt");
        assert_eq!(
            key(|options| options.tasks = TaskWeights { tts: 0.0, len: 0.0, ..TaskWeights::default() }),
            "train.tasks"
        );
        assert_eq!(key(|options| options.draws.condition_dropout = 1.5), "train.draws.condition_dropout");
        assert_eq!(key(|options| options.draws.level_weights = vec![1.0; 7]), "train.draws.level_weights");
        assert_eq!(key(|options| options.prompt_seconds = [6.0, 3.0]), "train.prompt_seconds");
        assert_eq!(key(|options| options.prompt_utterances = 0), "train.prompt_utterances");
        assert_eq!(key(|options| options.languages.push("en".to_owned())), "train.languages");
        assert_eq!(key(|options| options.languages.push("zh".to_owned())), "train.languages");
    }
}
