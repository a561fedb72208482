//! CosyVoice 2's token-to-mel flow: conformer encoder with upsampling, causal estimator, conditional flow matching.

use std::borrow::Cow;

use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{Flow, FlowConfig, FlowError, MelNormalization};
use flowmill_nn::Parameters;

use crate::token_to_mel::{Kind, TokenToMelFamily};

/// The family.
pub type CosyVoice2Flow = TokenToMelFamily<CosyVoice2>;

/// The kind of CosyVoice 2's flow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CosyVoice2;

impl Kind for CosyVoice2 {
    const NAME: &'static str = "cosyvoice2-flow";
    const RECIPES: &'static [&'static str] = &[include_str!("../../../../recipes/cosyvoice2/recipe.yaml")];
    type Config = FlowConfig;

    fn flow(config: &FlowConfig) -> Cow<'_, FlowConfig> {
        Cow::Borrowed(config)
    }

    fn normalize(config: &mut FlowConfig, normalization: MelNormalization) {
        config.mel_normalisation = Some(normalization);
    }

    fn build(config: &FlowConfig, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        let (flow, parameters) = Flow::new(config, seed)?;
        Ok((Box::new(flow), parameters))
    }
}
