//! Step-Audio's token-to-mel flow: two codebooks, conformer encoder with upsampling, diffusion transformer.

use std::borrow::Cow;

use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{Flow, FlowConfig, FlowError, MelNormalization, StepAudioConfig};
use flowmill_nn::Parameters;

use crate::token_to_mel::{Kind, TokenToMelFamily};

/// The family.
pub type StepAudioFlow = TokenToMelFamily<StepAudio>;

/// The kind of Step-Audio's flow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepAudio;

impl Kind for StepAudio {
    const NAME: &'static str = "step-audio-flow";
    const RECIPES: &'static [&'static str] = &[include_str!("../../../../recipes/step-audio/recipe.yaml")];
    type Config = StepAudioConfig;

    fn flow(config: &StepAudioConfig) -> Cow<'_, FlowConfig> {
        Cow::Owned(FlowConfig::from(config))
    }

    fn normalize(config: &mut StepAudioConfig, normalization: MelNormalization) {
        config.mel_normalisation = Some(normalization);
    }

    fn build(config: &StepAudioConfig, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        let (flow, parameters) = Flow::new(&FlowConfig::from(config), seed)?;
        Ok((Box::new(flow), parameters))
    }
}
