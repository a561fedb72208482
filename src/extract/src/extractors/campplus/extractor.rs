//! The `campplus` extractor: recordings in, embeddings out.

use std::cmp::Reverse;

use candle_core::Device;
use flowmill_audio::features::{KaldiConfig, KaldiFbank};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Campplus, CampplusError, Dimensions, KIND, network,
    stored::{Keeping, Stored},
    weights::{Source, Weights},
};
use crate::{Column, ExtractError, Extracted, Extractor, Media, State, StateError};

/// The rate at which the encoder hears, in Hz.
const SAMPLE_RATE: u32 = 16_000;

/// Recordings that are in memory at a time: enough to find them work of like length, and for the threads to end together.
const ROWS_PER_BATCH: usize = 64;

/// The length above which a recording is no single utterance, in seconds; it bounds the memory.
const LONGEST: f64 = 3600.0;

/// The encoder as an extractor.
pub struct CampplusExtractor {
    encoder: Campplus,
    fbank: KaldiFbank,
}

#[derive(Serialize, Deserialize)]
struct Settings {
    dimensions: Dimensions,
}

/// A source's weights as a state, and their sizes.
pub(super) fn to_state(source: &mut dyn Source) -> Result<(State, Dimensions), CampplusError> {
    let dimensions = source.dimensions()?;
    let mut state = State::new(KIND, serde_json::json!(Settings { dimensions }));
    Weights::read(&mut Keeping { source, state: &mut state })?;
    Ok((state, dimensions))
}

impl CampplusExtractor {
    /// An encoder that hears recordings.
    ///
    /// # Errors
    /// When there are no filter banks of as many bands as it reads.
    pub fn new(encoder: Campplus) -> Result<Self, ExtractError> {
        let config = KaldiConfig { n_mels: encoder.dimensions().feat_dim, ..KaldiConfig::campplus() };
        Ok(Self { fbank: KaldiFbank::new(config)?, encoder })
    }

    /// The extractor that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        let foreign = |reason: String| StateError::Foreign { wanted: KIND.to_owned(), found: reason };
        let settings: Settings = state.settings_as(KIND)?;
        let encoder = Campplus::from_source(&mut Stored { state, dimensions: settings.dimensions }, device);
        Self::new(encoder.map_err(|error| foreign(error.to_string()))?).map_err(|error| foreign(error.to_string()))
    }

    /// Mean-normalized filter banks of a recording.
    fn features(&self, media: &Media) -> Result<Vec<f32>, ExtractError> {
        let audio = media.as_audio(KIND)?;
        let seconds = audio.seconds()?;
        let shift = self.fbank.config().frame_shift_ms / 1000.0;
        let needed = self.fbank.config().frame_length_ms / 1000.0 + (network::FEWEST_FRAMES - 1) as f64 * shift;
        if seconds < needed {
            return Err(ExtractError::TooShort { extractor: KIND, seconds, needed });
        }
        if seconds > LONGEST {
            let reason =
                format!("too long for {KIND}: {seconds:.0} s of audio, at most {LONGEST:.0} s; cut it in segments");
            return Err(ExtractError::Media(reason));
        }
        Ok(self.fbank.compute(&audio.mono_at(SAMPLE_RATE)?)?.data)
    }

    /// The embeddings of what could be heard.
    fn embeddings(&self, heard: Vec<Result<Vec<f32>, ExtractError>>) -> Vec<Result<Extracted, ExtractError>> {
        // The longest first: the threads end together.
        let mut order: Vec<usize> = (0..heard.len()).filter(|row| heard[*row].is_ok()).collect();
        let length = |row: usize| heard[row].as_ref().map_or(0, Vec::len);
        order.sort_by_key(|row| (Reverse(length(*row)), *row));
        let features: Vec<&[f32]> = order.iter().filter_map(|row| heard[*row].as_deref().ok()).collect();
        let embedded = self.encoder.embed_all(&features).map_err(|error| error.to_string());
        let mut embeddings: Vec<Option<Vec<f32>>> = vec![None; heard.len()];
        if let Ok(embedded) = &embedded {
            order.iter().zip(embedded).for_each(|(row, embedding)| embeddings[*row].clone_from(embedding));
        }
        let rows = heard.into_iter().zip(embeddings);
        rows.map(|(heard, embedding)| {
            heard?;
            embedded.as_ref().map_err(|message| ExtractError::Media(message.clone()))?;
            Self::checked(embedding)
        })
        .collect()
    }

    fn checked(embedding: Option<Vec<f32>>) -> Result<Extracted, ExtractError> {
        let embedding = embedding.unwrap_or_default();
        if embedding.is_empty() || embedding.iter().any(|value| !value.is_finite()) {
            return Err(ExtractError::NotFinite { extractor: KIND });
        }
        Ok(Extracted::embedding(embedding))
    }
}

impl Extractor for CampplusExtractor {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        vec![Column::embedding("utt_embedding", self.encoder.dimensions().embedding_size)]
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        Self::checked(self.encoder.embed(&self.features(media)?)?)
    }

    fn rows_per_batch(&self) -> usize {
        ROWS_PER_BATCH
    }

    fn extract_batch(&self, rows: &[Media]) -> Vec<Result<Extracted, ExtractError>> {
        self.embeddings(rows.par_iter().map(|media| self.features(media)).collect())
    }
}
