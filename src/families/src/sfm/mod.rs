//! CosyVoice 2's flow with shallow flow matching: the flow starts from the prediction of a head on the encoder.

use std::borrow::Cow;

use flowmill_models::TokenToMel;
use flowmill_models::flow::{FlowConfig, FlowError, MelNormalisation};
use flowmill_models::sfm::{Sfm, SfmConfig};
use flowmill_nn::Parameters;

use crate::token_to_mel::{Kind, TokenToMelFamily};

/// The family.
pub type ShallowFlow = TokenToMelFamily<Shallow>;

/// The kind of shallow flows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shallow;

impl Kind for Shallow {
    const NAME: &'static str = "sfm-flow";
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

    fn normalize(config: &mut SfmConfig, normalization: MelNormalisation) {
        config.flow.mel_normalisation = Some(normalization);
    }

    fn build(config: &SfmConfig, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        let (sfm, parameters) = Sfm::new(config, seed)?;
        Ok((Box::new(sfm), parameters))
    }
}
