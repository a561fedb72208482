//! CosyVoice 2's token-to-mel flow: conformer encoder with upsampling, causal estimator, conditional flow matching.

use std::borrow::Cow;

use flowmill_audio::features::MelConfig;
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{Flow, FlowConfig, FlowError, MelNormalization};
use flowmill_nn::Parameters;

use crate::token_to_mel::public::{Lines, PublicConfig};
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

    /// The part of `cosyvoice2.yaml` (FunAudioLLM/CosyVoice) that belongs to the flow.
    fn public_config(config: &FlowConfig, mel: &MelConfig, departures: &[String]) -> PublicConfig {
        let rest = "Everything else (llm, hift, tokenizers) is that of the public model: put these sections into its file of the same name.";
        let mut yaml = Lines::about("FunAudioLLM/CosyVoice", rest, departures);
        yaml.constants(config, mel);
        yaml.value(0, "flow", "!new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec");
        yaml.sizes(1, config);
        yaml.value(1, "output_type", "'mel'");
        yaml.value(1, "input_frame_rate", "!ref <token_frame_rate>");
        yaml.value(1, "only_mask_loss", "True");
        yaml.value(1, "token_mel_ratio", "!ref <token_mel_ratio>");
        yaml.value(1, "pre_lookahead_len", config.pre_lookahead_len);
        let (decoder, bins) = (["cosyvoice.flow.flow_matching", "cosyvoice.flow.decoder"], config.output_size);
        yaml.cosyvoice(config, decoder, 3 * bins, bins);
        yaml.value(0, "feat_extractor", "!name:matcha.utils.audio.mel_spectrogram");
        yaml.mel(1, mel);
        yaml.finish("cosyvoice2.yaml")
    }

    fn normalize(config: &mut FlowConfig, normalization: MelNormalization) {
        config.mel_normalisation = Some(normalization);
    }

    fn build(config: &FlowConfig, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        let (flow, parameters) = Flow::new(config, seed)?;
        Ok((Box::new(flow), parameters))
    }
}
