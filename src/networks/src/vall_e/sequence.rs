//! The layout of sequences: the embeddings, positions and outputs of each row.

use super::config::LENGTH_TOKENS;
use super::{Codes, Sample, Task, VallEConfig};
use flowmill_nn::ops::{EntrySums, TableEntry};

/// Number of digits of the longest length.
pub(super) const LONGEST_LENGTH: usize = 10;
/// The token that ends a length.
pub(super) const LENGTH_END: u32 = LENGTH_TOKENS as u32 - 1;
/// The phonemes of no text: begin and end.
pub(super) const NO_PHONEMES: [u32; 2] = [1, 2];

/// Embedding tables, in the order of their numbers; those of the prompt and of the response follow, one per level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Separator,
    Phonemes,
    Languages,
    Tones,
    Tasks,
    Levels,
    Lengths,
    /// The codes of a level of the prompt.
    Prompt(usize),
    /// The codes of the response: 0 is level 0 as AR reads it, `1 + l` level `l` as the levels above read it, and the last is
    /// level 0 with masked frames.
    Response(usize),
}

impl Table {
    /// Number of tables before those of the prompt.
    pub(super) const FIRST: usize = 7;

    /// Returns the number of a table of a model with this many levels.
    fn number(self, levels: usize) -> u32 {
        (match self {
            Self::Separator => 0,
            Self::Phonemes => 1,
            Self::Languages => 2,
            Self::Tones => 3,
            Self::Tasks => 4,
            Self::Levels => 5,
            Self::Lengths => 6,
            Self::Prompt(level) => Self::FIRST + level,
            Self::Response(place) => Self::FIRST + levels + place,
        }) as u32
    }
}

/// The classifier that predicts the outputs of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Classifier {
    /// The codes of a level; level 0 is autoregressive and has one more class, the end.
    Level(usize),
    /// Masked codes of level 0.
    Masked,
    Phonemes,
    Length,
}

impl Classifier {
    /// Returns the number of the classifier of a model with this many levels.
    pub(super) fn number(self, levels: usize) -> usize {
        match self {
            Self::Level(level) => level,
            Self::Masked => levels,
            Self::Phonemes => levels + 1,
            Self::Length => levels + 2,
        }
    }
}

/// A row whose logits predict a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) row: usize,
    pub(super) target: u32,
}

/// A sequence of rows.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    /// The table entries whose sum is the embedding of each row.
    pub(super) entries: EntrySums,
    pub(super) positions: Vec<u32>,
    pub(super) classifier: Classifier,
    pub(super) outputs: Vec<Output>,
    /// Position of the next row.
    position: u32,
    levels: usize,
}

/// The inputs before the response.
pub(super) struct Conditions<'a> {
    pub(super) task: Task,
    pub(super) phonemes: &'a [u32],
    pub(super) language: u32,
    pub(super) tone: Option<u32>,
    pub(super) prompt: Option<&'a Codes>,
}

impl Sequence {
    fn new(levels: usize, classifier: Classifier) -> Self {
        Self {
            entries: EntrySums::default(),
            positions: Vec::new(),
            classifier,
            outputs: Vec::new(),
            position: 0,
            levels,
        }
    }

    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// Adds a row: the sum of the given entries of tables.
    fn push(&mut self, terms: impl IntoIterator<Item = (Table, u32)>) {
        let levels = self.levels;
        let entry = |(table, entry): (Table, u32)| TableEntry { table: table.number(levels), entry };
        self.entries.push(terms.into_iter().map(entry));
        self.positions.push(self.position);
        self.position += 1;
    }

    /// Ends a part.
    fn separate(&mut self) {
        self.push([(Table::Separator, 0)]);
        self.position = 0;
    }

    /// Adds a part of entries of one table.
    fn part(&mut self, table: Table, entries: &[u32]) {
        entries.iter().for_each(|entry| self.push([(table, *entry)]));
        self.separate();
    }

    /// Adds everything before the response, for the prediction of a level.
    fn push_conditions(&mut self, conditions: &Conditions, level: usize) {
        self.part(Table::Phonemes, conditions.phonemes);
        self.part(Table::Languages, &[conditions.language]);
        self.part(Table::Levels, &[level as u32]);
        if let Some(prompt) = conditions.prompt {
            let token = conditions.task.token();
            let first = token.filter(|_| conditions.task != Task::Continuation);
            first.iter().for_each(|token| self.push([(Table::Tasks, *token)]));
            for frame in 0..prompt.frames() {
                self.push((0..level.max(1)).map(|below| (Table::Prompt(below), prompt.level(below)[frame])));
            }
            let last = token.filter(|_| conditions.task == Task::Continuation);
            last.iter().for_each(|token| self.push([(Table::Tasks, *token)]));
            self.separate();
        }
        if let Some(tone) = conditions.tone {
            self.part(Table::Tones, &[tone]);
        }
    }

    /// Adds a code of level 0 as the autoregressive prediction reads it.
    pub(super) fn push_code(&mut self, code: u32) {
        self.push([(Table::Response(0), code)]);
    }

    /// Adds a digit of a length.
    pub(super) fn push_digit(&mut self, digit: u32) {
        self.push([(Table::Lengths, digit)]);
    }

    /// Adds a phoneme.
    pub(super) fn push_phoneme(&mut self, phoneme: u32) {
        self.push([(Table::Phonemes, phoneme)]);
    }

    /// Adds the response as the prediction of a level above 0 reads it: the sums of the levels below.
    pub(super) fn push_levels_below(&mut self, response: &Codes, level: usize) {
        for frame in 0..response.frames() {
            self.push((0..level).map(|below| (Table::Response(1 + below), response.level(below)[frame])));
        }
    }

    /// Adds codes of level 0, of which masked ones are the stop token.
    pub(super) fn push_masked(&mut self, codes: impl IntoIterator<Item = u32>) {
        let table = Table::Response(self.levels);
        codes.into_iter().for_each(|code| self.push([(table, code)]));
    }

    /// Adds speech to be transcribed. Like the published implementation, it leaves out the last level.
    fn push_speech(&mut self, response: &Codes, language: u32) {
        let levels = (response.levels().min(self.levels) - 1).max(1);
        for frame in 0..response.frames() {
            let table = |level: usize| Table::Response(if level == 0 { 0 } else { 1 + level });
            self.push((0..levels).map(|level| (table(level), response.level(level)[frame])));
        }
        self.separate();
        self.part(Table::Languages, &[language]);
        self.part(Table::Levels, &[0]);
    }

    /// Adds a causal part whose tokens are predicted, each by the row before it.
    fn predict(&mut self, tokens: &[u32], push: impl Fn(&mut Self, u32)) {
        for token in tokens {
            self.outputs.push(Output { row: self.len() - 1, target: *token });
            push(self, *token);
        }
    }

    /// Lays out a sample; the error says what does not match the model.
    pub(super) fn of_sample(sample: &Sample, config: &VallEConfig) -> Result<Self, String> {
        check(sample, config)?;
        let levels = config.levels;
        let Sample { response, mask, level, .. } = sample;
        let conditions = Conditions {
            task: sample.task,
            phonemes: &sample.phonemes,
            language: sample.language,
            tone: sample.tone,
            prompt: sample.prompt.as_ref(),
        };
        let mut sequence = match sample.task {
            Task::Transcription => {
                let mut sequence = Self::before_transcript(response, sample.language, levels);
                sequence.predict(&sample.phonemes, Self::push_phoneme);
                sequence
            }
            Task::Length => {
                let mut sequence = Self::before_length(&conditions, levels);
                sequence.predict(&digits(response.frames()), Self::push_digit);
                sequence
            }
            _ => Self::before_response(&conditions, classifier(*level, mask.is_some()), levels),
        };
        if !sample.task.is_audio() {
            return Ok(sequence);
        }
        match mask {
            None if *level == 0 => {
                let codes = [response.level(0), &[config.stop_token()]].concat();
                sequence.predict(&codes, Self::push_code);
            }
            None => {
                let first = sequence.len();
                sequence.push_levels_below(response, *level);
                let rows = (first..).zip(response.level(*level));
                sequence.outputs = rows.map(|(row, target)| Output { row, target: *target }).collect();
            }
            Some(mask) => {
                let first = sequence.len();
                let codes = response.level(0).iter().zip(mask);
                let masked = |(code, masked): (&u32, &bool)| if *masked { config.stop_token() } else { *code };
                sequence.push_masked(codes.clone().map(masked));
                let rows = (first..).zip(codes).filter(|(_, (_, masked))| **masked);
                sequence.outputs = rows.map(|(row, (target, _))| Output { row, target: *target }).collect();
            }
        }
        Ok(sequence)
    }

    /// Lays out everything before the response.
    pub(super) fn before_response(conditions: &Conditions, classifier: Classifier, levels: usize) -> Self {
        let mut sequence = Self::new(levels, classifier);
        let level = if let Classifier::Level(level) = classifier { level } else { 0 };
        sequence.push_conditions(conditions, level);
        sequence
    }

    /// Lays out everything before the digits of a length.
    pub(super) fn before_length(conditions: &Conditions, levels: usize) -> Self {
        Self::before_response(conditions, Classifier::Length, levels)
    }

    /// Lays out everything before the phonemes of a transcript.
    pub(super) fn before_transcript(response: &Codes, language: u32, levels: usize) -> Self {
        let mut sequence = Self::new(levels, Classifier::Phonemes);
        sequence.push_speech(response, language);
        sequence
    }
}

fn classifier(level: usize, masked: bool) -> Classifier {
    if masked { Classifier::Masked } else { Classifier::Level(level) }
}

/// Returns a length as tokens: 0, its decimal digits, the end.
fn digits(length: usize) -> Vec<u32> {
    let digits = length.to_string().into_bytes().into_iter().map(|digit| u32::from(digit - b'0'));
    std::iter::once(0).chain(digits).chain([LENGTH_END]).collect()
}

/// Checks a sample.
fn check(sample: &Sample, config: &VallEConfig) -> Result<(), String> {
    let Sample { task, response, level, mask, .. } = sample;
    check_conditions(&sample.phonemes, sample.language, sample.tone, config)?;
    if response.frames() == 0 {
        return Err("the response has no frames".to_owned());
    }
    if !task.is_audio() && (*level != 0 || mask.is_some()) {
        return Err(format!("task {task} has level 0 and no mask"));
    }
    if *level >= config.levels || *level >= response.levels() {
        return Err(format!(
            "level {level} of a response of {} levels ({} in the model)",
            response.levels(),
            config.levels
        ));
    }
    check_codes("response", response, config)?;
    if let Some(prompt) = sample.prompt.as_ref().filter(|_| *task != Task::Transcription) {
        check_prompt(prompt, *task, *level, config)?;
    }
    if let Some(mask) = mask {
        if *level != 0 {
            return Err(format!("a mask for level {level}: only level 0 is masked"));
        }
        if mask.len() != response.frames() || !mask.contains(&true) {
            return Err(format!(
                "a mask of {} frames for {} frames, or without a masked frame",
                mask.len(),
                response.frames()
            ));
        }
    }
    Ok(())
}

/// Checks the inputs that all tasks have.
pub(super) fn check_conditions(
    phonemes: &[u32],
    language: u32,
    tone: Option<u32>,
    config: &VallEConfig,
) -> Result<(), String> {
    if phonemes.is_empty() {
        return Err("no phonemes".to_owned());
    }
    if let Some(phoneme) = phonemes.iter().find(|phoneme| **phoneme as usize >= config.phoneme_tokens) {
        return Err(format!("phoneme {phoneme} is not among the model's {}", config.phoneme_tokens));
    }
    if language as usize >= config.languages {
        return Err(format!("language {language} is not among the model's {}", config.languages));
    }
    if let Some(tone) = tone.filter(|tone| *tone as usize >= config.tones) {
        return Err(format!("tone {tone} is not among the model's {}", config.tones));
    }
    Ok(())
}

/// Checks a prompt of a task for the prediction of a level.
pub(super) fn check_prompt(prompt: &Codes, task: Task, level: usize, config: &VallEConfig) -> Result<(), String> {
    if prompt.frames() == 0 {
        return Err("the prompt has no frames; leave it out instead".to_owned());
    }
    if prompt.levels() < level.max(1) {
        return Err(format!("level {level} needs as many levels of the prompt, which has {}", prompt.levels()));
    }
    if let Some(token) = task.token().filter(|token| *token as usize >= config.tasks) {
        return Err(format!("task {task} is number {token}, but the model has {} tasks", config.tasks));
    }
    check_codes("prompt", prompt, config)
}

/// Checks that codes are in the vocabulary.
pub(super) fn check_codes(name: &str, codes: &Codes, config: &VallEConfig) -> Result<(), String> {
    match codes.values().iter().find(|code| **code as usize >= config.audio_tokens) {
        Some(code) => Err(format!("code {code} of the {name} is not among the model's {}", config.audio_tokens)),
        None => Ok(()),
    }
}
