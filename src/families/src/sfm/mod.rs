//! CosyVoice 2's flow with shallow flow matching: the flow starts from the prediction of a head on the encoder.

use std::borrow::Cow;

use flowmill_audio::features::MelConfig;
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{FlowConfig, FlowError, MelNormalization};
use flowmill_networks::sfm::{Sfm, SfmConfig};
use flowmill_nn::Parameters;

use crate::token_to_mel::public::{Lines, PublicConfig};
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

    /// The configuration of RWKVTTS's training scripts (`train_sfm_flow.yaml`), whose class also does inference.
    fn public_config(config: &SfmConfig, mel: &MelConfig, departures: &[String]) -> PublicConfig {
        let flow = &config.flow;
        let rest = "Its training scripts take this file as --config_file, and load flow.pt into the class of `flow`.";
        let mut yaml = Lines::about("yynil/RWKVTTS", rest, departures);
        yaml.constants(flow, mel);
        yaml.value(0, "sfm_strength", config.sfm_strength);
        yaml.value(0, "feat_extractor", "!name:matcha.utils.audio.mel_spectrogram");
        yaml.mel(1, mel);
        yaml.value(0, "flow", "!new:model.flow.flow.CausalMaskedDiffWithXvecSFM");
        yaml.sizes(1, flow);
        yaml.value(1, "pre_lookahead_len", flow.pre_lookahead_len);
        yaml.value(1, "sfm_strength", "!ref <sfm_strength>");
        yaml.value(1, "sfm_head", "!new:model.flow.sfm_head.SFMHead");
        yaml.value(2, "d_hidden", flow.input_size);
        yaml.value(2, "mel_channels", flow.output_size);
        yaml.value(2, "dropout_rate", config.head_dropout);
        let decoder = ["model.flow.flow_matching", "model.flow.decoder"];
        yaml.cosyvoice(flow, decoder, flow.estimator_channels(), flow.spk_embed_dim);
        yaml.finish("train_sfm_flow.yaml")
    }

    fn normalize(config: &mut SfmConfig, normalization: MelNormalization) {
        config.flow.mel_normalisation = Some(normalization);
    }

    fn build(config: &SfmConfig, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        let (sfm, parameters) = Sfm::new(config, seed)?;
        Ok((Box::new(sfm), parameters))
    }
}
