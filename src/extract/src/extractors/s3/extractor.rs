//! The `s3-tokenizer` extractor: recordings in, tokens out, in batches.

use candle_core::Device;
use flowmill_audio::features::WhisperLogMel;
use rayon::prelude::*;
use serde::Deserialize;

use super::{
    Checkpoint, KIND, LayerNormEpsilon, S3Tokenizer, TOKEN_RATE, Version,
    pieces::{self, SAMPLE_RATE, SHORTEST},
};
use crate::{Column, ExtractError, Extracted, Extractor, Media, State, StateError, weights as taken};

/// Samples of a token.
const SAMPLES_PER_TOKEN: usize = (SAMPLE_RATE as f64 / TOKEN_RATE) as usize;

/// Rows that are in memory at a time.
const ROWS_PER_BATCH: usize = 32;

/// Tokens that go through the network at a time, unless one piece has more: enough for its matrix products to be efficient,
/// few enough for what lies between them to stay small.
const TOKENS_PER_PASS: usize = 1024;

/// The tokenizer as an extractor.
pub struct S3Extractor {
    tokenizer: S3Tokenizer,
    mel: WhisperLogMel,
}

/// The network's input for a recording: log-mel frames, piece by piece.
struct Heard {
    pieces: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Settings {
    version: Version,
    heads: usize,
    /// States of earlier versions have none.
    layer_norm_epsilon: Option<Vec<LayerNormEpsilon>>,
}

impl S3Extractor {
    /// A tokenizer that hears recordings.
    ///
    /// # Errors
    /// When there is no such log-mel.
    pub fn new(tokenizer: S3Tokenizer) -> Result<Self, ExtractError> {
        let mel = WhisperLogMel::new(tokenizer.dimensions().n_mels)?;
        Ok(Self { tokenizer, mel })
    }

    /// The extractor that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        let foreign = |reason: String| StateError::Foreign { wanted: KIND.to_owned(), found: reason };
        let settings: Settings = state.settings_as(KIND)?;
        let Settings { version, heads, layer_norm_epsilon } = settings;
        let epsilons = layer_norm_epsilon.unwrap_or_else(|| vec![LayerNormEpsilon::before_0_3(version)]);
        let tokenizer = taken::kept(state, "")
            .and_then(|tensors| Checkpoint::from_tensors(version, Some(heads), &epsilons, &tensors))
            .and_then(|checkpoint| S3Tokenizer::new(checkpoint.to_device(device)?));
        let tokenizer = tokenizer.map_err(|error| foreign(error.to_string()))?;
        Self::new(tokenizer).map_err(|error| foreign(error.to_string()))
    }

    /// The tokens of recordings at 16 kHz, in their order.
    ///
    /// # Errors
    /// Per recording: too short, or refused by the network.
    pub fn tokens(&self, recordings: &[Vec<f32>]) -> Vec<Result<Vec<u32>, ExtractError>> {
        let heard: Vec<Result<Heard, ExtractError>> = recordings.par_iter().map(|samples| self.hear(samples)).collect();
        self.tokens_of(heard)
    }

    /// The tokens of what was heard: all pieces of all recordings, sorted by length, go through the network together.
    fn tokens_of(&self, heard: Vec<Result<Heard, ExtractError>>) -> Vec<Result<Vec<u32>, ExtractError>> {
        let bands = self.tokenizer.dimensions().n_mels;
        let pieces: Vec<&[f32]> =
            heard.iter().flatten().flat_map(|heard| heard.pieces.iter().map(Vec::as_slice)).collect();
        let mut tokens = match self.in_passes(&pieces, bands) {
            Ok(tokens) => tokens.into_iter(),
            Err(error) => {
                let message = error.to_string();
                let refused = |heard: Result<Heard, ExtractError>| heard.and(Err(ExtractError::Media(message.clone())));
                return heard.into_iter().map(refused).collect();
            }
        };
        let merged = |heard: Heard| {
            let parts: Vec<Vec<u32>> = tokens.by_ref().take(heard.pieces.len()).collect();
            match self.tokenizer.version() {
                Version::V1 => parts.concat(),
                Version::V2 | Version::V3 => pieces::merge_windows(parts),
            }
        };
        let mut merged = merged;
        heard.into_iter().map(|heard| heard.map(&mut merged)).collect()
    }

    /// The tokens of each piece, in order.
    fn in_passes(&self, pieces: &[&[f32]], bands: usize) -> Result<Vec<Vec<u32>>, ExtractError> {
        let mut order: Vec<usize> = (0..pieces.len()).collect();
        order.sort_by_key(|index| (std::cmp::Reverse(pieces[*index].len()), *index));
        let mut tokens = vec![Vec::new(); pieces.len()];
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let mut sum = 0;
            let fits = |index: &&usize| {
                sum += S3Tokenizer::tokens_of(pieces[**index].len() / bands);
                sum <= TOKENS_PER_PASS
            };
            let (pass, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            let items: Vec<&[f32]> = pass.iter().map(|index| pieces[*index]).collect();
            for (index, found) in pass.iter().zip(self.tokenizer.tokens(&items)?) {
                tokens[*index] = found;
            }
            rest = later;
        }
        Ok(tokens)
    }

    /// The log-mel of a recording whose last token is filled up with silence, as CosyVoice's training data are: so there is a token
    /// for every 40 ms that the recording begins.
    fn hear_to_the_end(&self, media: &Media) -> Result<Heard, ExtractError> {
        let mut samples = media.as_audio(KIND)?.mono_at(SAMPLE_RATE)?;
        if samples.len() >= SHORTEST {
            samples.resize(samples.len().next_multiple_of(SAMPLES_PER_TOKEN), 0.0);
        }
        self.hear(&samples)
    }

    /// The log-mel of each piece of a recording.
    fn hear(&self, samples: &[f32]) -> Result<Heard, ExtractError> {
        if samples.len() < SHORTEST {
            let seconds = |samples: usize| samples as f64 / f64::from(SAMPLE_RATE);
            let (seconds, needed) = (seconds(samples.len()), seconds(SHORTEST));
            return Err(ExtractError::TooShort { extractor: KIND, seconds, needed });
        }
        let pieces = match self.tokenizer.version() {
            Version::V1 => {
                let pieces = pieces::pieces(samples.len());
                pieces.map(|piece| Ok(self.mel.compute(&samples[piece])?.data)).collect::<Result<_, ExtractError>>()?
            }
            Version::V2 | Version::V3 => {
                let mel = self.mel.compute(samples)?;
                let frames =
                    |window: std::ops::Range<usize>| mel.data[window.start * mel.bins..window.end * mel.bins].to_vec();
                pieces::windows(mel.frames).into_iter().map(frames).collect()
            }
        };
        Ok(Heard { pieces })
    }
}

impl Extractor for S3Extractor {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        vec![Column::tokens("speech_token", self.tokenizer.dimensions().entries, TOKEN_RATE)]
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let heard = self.hear_to_the_end(media);
        let tokens = self.tokens_of(vec![heard]).pop().unwrap_or_else(|| Ok(Vec::new()))?;
        Ok(extracted(tokens))
    }

    fn rows_per_batch(&self) -> usize {
        ROWS_PER_BATCH
    }

    fn extract_batch(&self, rows: &[Media]) -> Vec<Result<Extracted, ExtractError>> {
        let heard = rows.par_iter().map(|media| self.hear_to_the_end(media)).collect();
        self.tokens_of(heard).into_iter().map(|tokens| tokens.map(extracted)).collect()
    }
}

fn extracted(tokens: Vec<u32>) -> Extracted {
    Extracted::tokens(tokens.into_iter().map(i64::from).collect())
}
