//! CosyVoice 3's token-to-mel flow: look-ahead convolutions, diffusion transformer with rotary positions.

use std::borrow::Cow;

use flowmill_audio::features::MelConfig;
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{CosyVoice3Config, Flow, FlowConfig, FlowError, MelNormalization};
use flowmill_nn::Parameters;

use crate::token_to_mel::public::{Lines, PublicConfig};
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

    /// The part of `cosyvoice3.yaml` (FunAudioLLM/CosyVoice) that belongs to the flow.
    fn public_config(config: &CosyVoice3Config, mel: &MelConfig, departures: &[String]) -> PublicConfig {
        let rest = "Everything else (llm, hift, tokenizers) is that of the public model: put these sections into its file of the same name.";
        let (flow, bins) = (FlowConfig::from(config), config.output_size);
        let mut yaml = Lines::about("FunAudioLLM/CosyVoice", rest, departures);
        yaml.constants(&flow, mel);
        yaml.value(0, "flow", "!new:cosyvoice.flow.flow.CausalMaskedDiffWithDiT");
        yaml.sizes(1, &flow);
        yaml.value(1, "output_type", "'mel'");
        yaml.value(1, "input_frame_rate", "!ref <token_frame_rate>");
        yaml.value(1, "only_mask_loss", "True");
        yaml.value(1, "token_mel_ratio", "!ref <token_mel_ratio>");
        yaml.value(1, "pre_lookahead_len", config.pre_lookahead_len);
        yaml.value(1, "pre_lookahead_layer", "!new:cosyvoice.transformer.upsample_encoder.PreLookaheadLayer");
        yaml.value(2, "in_channels", config.input_size);
        yaml.value(2, "channels", config.pre_lookahead_channels);
        yaml.value(2, "pre_lookahead_len", config.pre_lookahead_len);
        yaml.decoder(&flow, "cosyvoice.flow.flow_matching", 3 * bins, bins);
        yaml.value(2, "estimator", "!new:cosyvoice.flow.DiT.dit.DiT");
        let network = &config.estimator;
        let sizes = [
            ("dim", network.dim),
            ("depth", network.depth),
            ("heads", network.heads),
            ("dim_head", network.dim_head),
            ("ff_mult", network.ff_mult),
            ("mel_dim", bins),
            ("mu_dim", bins),
            ("spk_dim", bins),
            ("out_channels", bins),
            ("static_chunk_size", network.static_chunk_size),
        ];
        sizes.iter().for_each(|(key, size)| yaml.value(3, key, size));
        yaml.value(3, "dropout", network.dropout);
        yaml.value(3, "num_decoding_left_chunks", -1);
        yaml.value(0, "feat_extractor", "!name:matcha.utils.audio.mel_spectrogram");
        yaml.mel(1, mel);
        yaml.finish("cosyvoice3.yaml")
    }

    fn normalize(config: &mut CosyVoice3Config, normalization: MelNormalization) {
        config.mel_normalisation = Some(normalization);
    }

    fn build(config: &CosyVoice3Config, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        let (flow, parameters) = Flow::new(&FlowConfig::from(config), seed)?;
        Ok((Box::new(flow), parameters))
    }
}
