//! CosyVoice 2's flow with shallow flow matching: the flow starts from the prediction of a head on the encoder.

use std::borrow::Cow;

use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{FlowConfig, FlowError, MelNormalization};
use flowmill_networks::sfm::{Sfm, SfmConfig};
use flowmill_nn::Parameters;

use crate::token_to_mel::{Kind, TokenToMelFamily};

/// The family.
pub type ShallowFlow = TokenToMelFamily<Shallow>;

/// The kind of shallow flows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shallow;

impl Kind for Shallow {
    const NAME: &'static str = "sfm-flow";
    const RECIPES: &'static [&'static str] =
        &[include_str!("../../../../recipes/sfm/model.yaml"), include_str!("../../../../recipes/sfm/recipe.yaml")];
    const HAS_STRENGTH: bool = true;
    type Config = SfmConfig;

    fn flow(config: &SfmConfig) -> Cow<'_, FlowConfig> {
        Cow::Borrowed(&config.flow)
    }

    fn flow_key(field: &str) -> String {
        format!("flow.{field}")
    }

    fn check_own(config: &SfmConfig) -> Result<(), FlowError> {
        config.check()
    }

    fn normalize(config: &mut SfmConfig, normalization: MelNormalization) {
        config.flow.mel_normalisation = Some(normalization);
    }

    fn build(config: &SfmConfig, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        let (sfm, parameters) = Sfm::new(config, seed)?;
        Ok((Box::new(sfm), parameters))
    }
}
