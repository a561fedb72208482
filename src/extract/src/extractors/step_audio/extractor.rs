//! The `step-audio-dual` extractor.

use candle_core::Device;
use rayon::prelude::*;
use serde::Deserialize;

use super::{KIND, config::columns, prepare::Preparation};
use crate::{
    Column, ExtractError, Extracted, Extractor, Media, State, StateError,
    dual_codebook::DualCodebook,
    extractors::{
        paraformer::{self, LinguisticTokenizer},
        s3::{Checkpoint, LayerNormEpsilon, S3Extractor, S3Tokenizer, Version},
    },
    weights as taken,
};

/// Shorter recordings have no group of two linguistic tokens: 115 ms.
const SHORTEST: usize = 1840;

/// Both tokenizers as one extractor.
pub struct StepAudioDual {
    linguistic: LinguisticTokenizer,
    semantic: S3Extractor,
    prepare: Preparation,
}

#[derive(Deserialize)]
struct Settings {
    linguistic_heads: usize,
    semantic_heads: usize,
    /// States of earlier versions have none.
    semantic_layer_norm_epsilon: Option<Vec<LayerNormEpsilon>>,
    prepare: Preparation,
}

impl StepAudioDual {
    /// The extractor that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        let foreign = |reason: String| StateError::Foreign { wanted: KIND.to_owned(), found: reason };
        let settings: Settings = state.settings_as(KIND)?;
        let linguistic = paraformer::kept(state, "linguistic.", settings.linguistic_heads, device)
            .map_err(|error| foreign(error.to_string()))?;
        let (heads, epsilons) = (settings.semantic_heads, settings.semantic_layer_norm_epsilon);
        let epsilons = epsilons.unwrap_or_else(|| vec![LayerNormEpsilon::before_0_3(Version::V1)]);
        let semantic = taken::kept(state, "semantic.")
            .and_then(|tensors| Checkpoint::from_tensors(Version::V1, Some(heads), &epsilons, &tensors))
            .and_then(|checkpoint| S3Tokenizer::new(checkpoint.to_device(device)?))
            .map_err(|error| foreign(error.to_string()))?;
        let semantic = S3Extractor::new(semantic).map_err(|error| foreign(error.to_string()))?;
        Ok(Self { linguistic, semantic, prepare: settings.prepare })
    }

    /// The recording as both tokenizers hear it.
    fn prepared(&self, media: &Media) -> Result<Vec<f32>, ExtractError> {
        let samples = media.as_audio(KIND)?.mono_at(paraformer::SAMPLE_RATE)?;
        Ok(self.prepare.apply(samples)?)
    }

    /// The mixed sequence of a recording whose semantic tokens are known.
    fn mixed(&self, samples: &[f32], semantic: &[u32]) -> Result<Extracted, ExtractError> {
        let linguistic = self.linguistic.tokens(samples)?;
        let mixed = DualCodebook::default().mix(&linguistic, semantic);
        let mixed = mixed.map_err(|error| ExtractError::Media(error.to_string()))?;
        if mixed.is_empty() {
            return Err(paraformer::too_short(KIND, samples.len(), SHORTEST));
        }
        Ok(Extracted::tokens(mixed))
    }
}

impl Extractor for StepAudioDual {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let rows = std::slice::from_ref(media);
        self.extract_batch(rows).pop().unwrap_or_else(|| Err(paraformer::too_short(KIND, 0, SHORTEST)))
    }

    fn rows_per_batch(&self) -> usize {
        self.semantic.rows_per_batch()
    }

    fn extract_batch(&self, rows: &[Media]) -> Vec<Result<Extracted, ExtractError>> {
        let prepared: Vec<_> = rows.par_iter().map(|media| self.prepared(media)).collect();
        let samples: Vec<Vec<f32>> =
            prepared.iter().map(|samples| samples.as_ref().map_or_else(|_| Vec::new(), Vec::clone)).collect();
        let semantic = self.semantic.tokens(&samples);
        let mixed = prepared.into_par_iter().zip(semantic).map(|(samples, semantic)| {
            let samples = samples?;
            self.mixed(&samples, &semantic?)
        });
        mixed.collect()
    }
}
