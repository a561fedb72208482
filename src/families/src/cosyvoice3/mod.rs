//! CosyVoice 3's token-to-mel flow: look-ahead convolutions, diffusion transformer with rotary positions.

use std::borrow::Cow;

use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{CosyVoice3Config, Flow, FlowConfig, FlowError, MelNormalization};
use flowmill_nn::Parameters;

use crate::token_to_mel::{Kind, TokenToMelFamily};

/// The family.
pub type CosyVoice3Flow = TokenToMelFamily<CosyVoice3>;

/// The kind of CosyVoice 3's flow.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CosyVoice3;

impl Kind for CosyVoice3 {
    const NAME: &'static str = "cosyvoice3-flow";
    const RECIPES: &'static [&'static str] = &[include_str!("../../../../recipes/cosyvoice3/recipe.yaml")];
    type Config = CosyVoice3Config;

    fn flow(config: &CosyVoice3Config) -> Cow<'_, FlowConfig> {
        Cow::Owned(FlowConfig::from(config))
    }

    fn normalize(config: &mut CosyVoice3Config, normalization: MelNormalization) {
        config.mel_normalisation = Some(normalization);
    }

    fn build(config: &CosyVoice3Config, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        let (flow, parameters) = Flow::new(&FlowConfig::from(config), seed)?;
        Ok((Box::new(flow), parameters))
    }
}
