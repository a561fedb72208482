//! The network, for training and previews.

use flowmill_audio::AudioError;
use flowmill_audio::features::mel_stft_distance;
use flowmill_family::{BoxError, ExtractorFiles, Loss, Made, Model, Output};
use flowmill_networks::vall_e::{Codes, SpeakOptions, Speaker, VallE as VallENetwork};
use flowmill_nn::Context;
use flowmill_nn::random::RngKey;

use super::example::{Example, ExampleBatch};
use super::rows::Symbols;
use super::voice::{Decoder, Line, speak};
use super::{CODEC, Description, VallE, parts};

/// A preview ends when it is this many times as long as the longest recording, because a model that has learned
/// little may not end at all.
const LONGEST_PREVIEW: usize = 2;

/// The network of the family.
pub struct Network(pub VallENetwork);

impl Model<VallE> for Network {
    fn loss(&self, context: &Context<'_>, batch: &ExampleBatch, _: RngKey) -> Result<Loss, BoxError> {
        // The random choices of a batch are made when it is collated.
        let loss = self.0.loss(context, &batch.batch)?;
        let parts = parts::of(&loss, self.0.config().levels);
        Ok(Loss { total: loss.total, parts, weight: batch.frames as f64 })
    }

    fn is_optional(&self, parameter: &str) -> bool {
        self.0.is_optional(parameter)
    }

    fn preview(
        &self,
        context: &Context<'_>,
        examples: &[(String, Example)],
        description: &Description,
        extractors: &ExtractorFiles,
        rng_key: RngKey,
    ) -> Result<Vec<Made>, BoxError> {
        let speaker = Speaker::new(&self.0, context.parameters())?;
        let decoder = Decoder::open(extractors.path(CODEC)?, &candle_core::Device::Cpu)?;
        let longest = examples.iter().map(|(_, example)| example.sample.response.frames()).max().unwrap_or(0);
        let options = description.sampling.unwrap_or_default();
        let max_frames = options.max_frames.min(LONGEST_PREVIEW * longest.max(1));
        let line = |(sample, (_, example)): (u64, &(String, Example))| {
            let sample_of = &example.sample;
            let symbols = Symbols { phonemes: sample_of.phonemes.clone(), language: sample_of.language };
            Line { symbols, prompt: sample_of.prompt.clone(), sample }
        };
        let lines = (0..).zip(examples).map(line).collect();
        let spoken = speak(&speaker, lines, &SpeakOptions { max_frames, ..options }, &rng_key)?;
        let mut made = Vec::new();
        for ((id, example), output) in examples.iter().zip(&spoken) {
            let parts = [
                ("prompt", example.sample.prompt.as_ref()),
                ("output", Some(output)),
                ("target", Some(&example.sample.response)),
            ];
            for (part, codes) in parts {
                made.extend(heard(&decoder, id, part, codes)?);
            }
        }
        Ok(made)
    }

    fn distances(&self, made: &[Made]) -> Result<Vec<(String, f64)>, BoxError> {
        let part = |name: &str| made.iter().find(|made| made.name == name).map(|made| &made.output);
        let mut distances = Vec::new();
        for id in made.iter().filter_map(|made| made.name.strip_suffix(".output")) {
            let parts = [".output", ".target"].map(|ending| part(&format!("{id}{ending}")));
            if let [Some(Output::Audio(output)), Some(Output::Audio(target))] = parts {
                let distance = mel_stft_distance(&output.samples, &target.samples, target.sample_rate);
                match distance {
                    Ok(distance) => distances.push((id.to_owned(), distance)),
                    // Speech that ended at once.
                    Err(AudioError::TooShort { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(distances)
    }
}

/// Returns the sound of one of the three parts of a preview; none without a frame.
fn heard(decoder: &Decoder, id: &str, part: &str, codes: Option<&Codes>) -> Result<Option<Made>, BoxError> {
    let Some(codes) = codes.filter(|codes| codes.frames() > 0) else { return Ok(None) };
    let name = format!("{id}.{part}");
    let output = Output::Audio(decoder.sound(codes)?);
    Ok(Some(Made { title: name.clone(), name, output, real: None }))
}
