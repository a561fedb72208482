//! The network of a token-to-mel flow, for training and previews.

use flowmill_audio::features::Features;
use flowmill_family::{BoxError, ExtractorFiles, Loss, Made, Model, Output};
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{FlowBatch, FlowDraws, FlowItem, GenerationRequest};
use flowmill_nn::Context;
use flowmill_nn::random::RngKey;
use rayon::prelude::*;

use super::exported::features;
use super::options::VOCODER_ITERATIONS;
use super::{Description, Kind, TokenToMelFamily, waveform};

/// The network of one of the flows.
pub struct Network(pub(super) Box<dyn TokenToMel>);

impl<K: Kind> Model<TokenToMelFamily<K>> for Network {
    fn loss(&self, context: &Context<'_>, batch: &FlowBatch, rng_key: RngKey) -> Result<Loss, BoxError> {
        let draws = FlowDraws::from_rng_key(&rng_key, batch, TokenToMel::config(self.0.as_ref()))?;
        let loss = self.0.loss(context, batch, &draws)?;
        Ok(Loss { total: loss.total, parts: loss.parts, weight: loss.weight })
    }

    fn preview(
        &self,
        context: &Context<'_>,
        examples: &[(String, FlowItem)],
        description: &Description,
        _: &ExtractorFiles,
        rng_key: RngKey,
    ) -> Result<Vec<Made>, BoxError> {
        let request = |(_, item): &(String, FlowItem)| GenerationRequest {
            tokens: item.tokens.clone(),
            speaker_embedding: item.speaker_embedding.clone(),
            prompt: None,
        };
        let requests: Vec<GenerationRequest> = examples.iter().map(request).collect();
        let numbers: Vec<u64> = (0..requests.len() as u64).collect();
        let generated = self.0.generate(context, &requests, &self.0.default_options(), &rng_key, &numbers)?;
        let config = &description.mel.config;
        let made = |((id, item), mel): (&(String, FlowItem), &candle_core::Tensor)| {
            let mel = features(mel).map_err(|reason| format!("{id}: {reason}"))?;
            let real = Features::new(item.mel.clone(), item.mel.len() / mel.bins.max(1), mel.bins)?;
            let output = Output::Mel(waveform::output(mel, config, VOCODER_ITERATIONS)?);
            Ok(Made { name: id.clone(), title: id.clone(), output, real: Some(real) })
        };
        let pairs: Vec<_> = examples.iter().zip(&generated.mels).collect();
        pairs.into_par_iter().map(made).collect()
    }
}
