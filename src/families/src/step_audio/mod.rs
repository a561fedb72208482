//! Step-Audio's token-to-mel flow: two codebooks, conformer encoder with upsampling, diffusion transformer.

use std::borrow::Cow;

use flowmill_audio::features::MelConfig;
use flowmill_networks::TokenToMel;
use flowmill_networks::flow::{Flow, FlowConfig, FlowError, MelNormalization, StepAudioConfig};
use flowmill_nn::Parameters;

use crate::token_to_mel::public::{Lines, PublicConfig};
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

    /// The part of `cosyvoice.yaml` (stepfun-ai/Step-Audio-EditX: stepvocoder) that belongs to the flow.
    fn public_config(config: &StepAudioConfig, mel: &MelConfig, departures: &[String]) -> PublicConfig {
        let flow = Self::flow(config);
        let rest =
            "Everything else (hift) is that of the public model: put these sections into its file of the same name.";
        let mut yaml = Lines::about("stepfun-ai/Step-Audio-EditX", rest, departures);
        yaml.constants(&flow, mel);
        yaml.value(0, "flow", "!new:stepvocoder.cosyvoice2.flow.flow.CausalMaskedDiffWithXvec");
        yaml.sizes(1, &flow);
        yaml.value(1, "output_type", "'mel'");
        yaml.value(1, "input_embedding", "!new:stepvocoder.cosyvoice2.embedding.dual_codebook.DualCodebookEmbedding");
        yaml.value(2, "vocab_size", config.vocab_size);
        yaml.value(2, "input_size", config.input_size);
        yaml.value(
            1,
            "encoder",
            "!new:stepvocoder.cosyvoice2.transformer.upsample_encoder_v2.UpsampleConformerEncoderV2",
        );
        yaml.encoder(2, &flow);
        yaml.value(2, "pre_lookahead_len", config.pre_lookahead_len);
        yaml.value(2, "num_up_blocks", config.encoder.num_up_blocks);
        yaml.value(2, "up_stride", config.token_mel_ratio);
        yaml.value(2, "up_scale_factor", config.token_mel_ratio);
        yaml.value(1, "decoder", "!new:stepvocoder.cosyvoice2.flow.flow_matching.CausalConditionalCFM");
        yaml.value(2, "inference_cfg_rate", config.matching.inference_cfg_rate);
        yaml.value(2, "estimator", "!new:stepvocoder.cosyvoice2.flow.decoder_dit.DiT");
        yaml.value(3, "in_channels", flow.estimator_channels());
        yaml.value(3, "out_channels", config.output_size);
        yaml.value(3, "mlp_ratio", config.estimator.mlp_ratio);
        yaml.value(3, "depth", config.estimator.depth);
        yaml.value(3, "num_heads", config.estimator.num_heads);
        yaml.value(3, "head_dim", config.estimator.head_dim);
        yaml.value(3, "hidden_size", config.estimator.hidden_size);
        yaml.line(0, format_args!("mel_conf:"));
        yaml.mel(1, mel);
        yaml.finish("cosyvoice.yaml")
    }

    fn normalize(config: &mut StepAudioConfig, normalization: MelNormalization) {
        config.mel_normalisation = Some(normalization);
    }

    fn build(config: &StepAudioConfig, seed: u64) -> Result<(Box<dyn TokenToMel>, Parameters), FlowError> {
        let (flow, parameters) = Flow::new(&FlowConfig::from(config), seed)?;
        Ok((Box::new(flow), parameters))
    }
}
