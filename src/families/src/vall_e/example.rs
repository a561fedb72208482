//! Examples: a row with a prompt, as a sample of a task.

use flowmill_corpus::Row;
use flowmill_family::BoxError;
use flowmill_networks::vall_e::{Batch, Codes, DrawConfig, Sample, Task, VallEConfig};
use flowmill_nn::random::RngKey;

use super::options::TrainOptions;
use super::rows::{self, RowFault, Symbols};
use super::tokenizer::PhonemeTokenizer;
use super::voices::Voices;

/// The symbols of no text: begin and end.
const NO_TEXT: [u32; 2] = [1, 2];

/// Everything that turns the rows of a split into examples.
pub struct Reader {
    /// The speakers of the split.
    pub voices: Voices,
    /// The symbols of phonemes.
    pub tokenizer: PhonemeTokenizer,
}

/// A row with its prompt, before the random choices of its level and mask.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The sample, of level 0.
    pub sample: Sample,
    /// The random numbers of the choices.
    pub rng_key: RngKey,
}

/// A batch with the number of its frames.
#[derive(Debug, Clone)]
pub struct ExampleBatch {
    /// The sequences.
    pub batch: Batch,
    /// Frames of the responses.
    pub frames: usize,
}

impl Reader {
    /// Makes the example of a row.
    ///
    /// # Errors
    /// Returns a problem with the row or with one of its speaker's, with the id.
    pub fn example(
        &self,
        options: &TrainOptions,
        levels: usize,
        row: &Row,
        rng_key: RngKey,
    ) -> Result<Example, BoxError> {
        let about = |fault: RowFault| format!("utterance {}: {fault}", row.id);
        let (codes, symbols) =
            (rows::codes(row).map_err(about)?, Symbols::of(row, &self.tokenizer, &options.languages).map_err(about)?);
        if codes.levels() != levels {
            return Err(about(RowFault::Levels { found: codes.levels(), levels }).into());
        }
        if codes.frames() == 0 {
            return Err(about(RowFault::Empty).into());
        }
        let task = options.tasks.task_at(rng_key.purpose("task").uniform_at(0));
        let mut symbols = symbols;
        let (prompt, response) = match task {
            Task::NoiseSuppression | Task::SpeechRemoval => {
                // As in the public trainer, half of the samples have no text to be guided by.
                if rng_key.purpose("text of noisy speech").uniform_at(0) < 0.5 {
                    symbols.phonemes = NO_TEXT.to_vec();
                }
                let [noisy, noise] = rows::noise(row).map_err(about)?;
                (Some(noisy), if task == Task::SpeechRemoval { noise } else { codes })
            }
            Task::Continuation => continued(&codes, options.prompt_seconds, self.voices.rate(), &rng_key),
            Task::Transcription => (None, codes),
            _ => (self.voices.prompt(row, rng_key)?, codes),
        };
        let Symbols { phonemes, language } = symbols;
        let sample = Sample { task, phonemes, language, prompt, response, ..Sample::default() };
        Ok(Example { sample, rng_key })
    }
}

/// Splits an utterance into its beginning, which is the prompt, and the rest. The prompt is at most half of it.
fn continued(codes: &Codes, [least, most]: [f64; 2], rate: f64, rng_key: &RngKey) -> (Option<Codes>, Codes) {
    let seconds = least + (most - least) * f64::from(rng_key.purpose("continued").uniform_at(0));
    match ((seconds * rate) as usize).min(codes.frames() / 2) {
        0 => (None, codes.clone()),
        first => (Some(codes.cut(0..first)), codes.cut(first..codes.frames())),
    }
}

/// Makes a batch: the choices of levels, masks and conditions that are left out, then the sequences.
///
/// # Errors
/// Returns an error for a sample that does not match the model.
pub fn collate(draws: &DrawConfig, config: &VallEConfig, examples: Vec<Example>) -> Result<ExampleBatch, BoxError> {
    let samples: Vec<Sample> = examples
        .into_iter()
        .map(|Example { mut sample, rng_key }| {
            draws.apply(&mut sample, &rng_key);
            sample
        })
        .collect();
    let frames = samples.iter().map(|sample| sample.response.frames()).sum();
    Ok(ExampleBatch { batch: Batch::collate(&samples, config)?, frames })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continued_utterance_is_split_where_its_prompt_ends() {
        let codes = Codes::from_levels(&[(0..20).collect(), (20..40).collect()]).unwrap();
        for sample in 0..20 {
            let (prompt, rest) = continued(&codes, [0.4, 3.0], 10.0, &RngKey::new(0).sample(sample));
            let prompt = prompt.unwrap();
            assert!((4..=10).contains(&prompt.frames()));
            assert_eq!(prompt.append(&rest).unwrap(), codes);
        }
        let single = codes.cut(0..1);
        assert_eq!(continued(&single, [0.4, 3.0], 10.0, &RngKey::new(0)), (None, single));
    }
}
