//! CosyVoice 3's token-to-mel flow: look-ahead convolutions, a diffusion transformer with rotary positions, and
//! inference on tokens that are still arriving.

use super::{GoldenFile, Report, Result, flow};
use crate::flow::{CosyVoice3Config, FlowConfig, RotaryDitConfig};

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let config = config(file)?;
    refuse_lies(file, &config)?;
    flow::check(file, &FlowConfig::from(&config))
}

/// Returns the model's settings, without dropout: the reference was computed with dropout switched off.
fn config(file: &GoldenFile) -> Result<CosyVoice3Config> {
    let defaults = CosyVoice3Config::default();
    let estimator = |key| file.size(&["estimator", key]);
    Ok(CosyVoice3Config {
        vocab_size: file.size(&["vocab_size"])?,
        input_size: file.size(&["input_size"])?,
        output_size: file.size(&["output_size"])?,
        spk_embed_dim: file.size(&["spk_embed_dim"])?,
        token_mel_ratio: flow::optional(file, &["token_mel_ratio"], defaults.token_mel_ratio)?,
        pre_lookahead_len: file.size(&["pre_lookahead_len"])?,
        pre_lookahead_channels: file.size(&["pre_lookahead_channels"])?,
        estimator: RotaryDitConfig {
            dim: estimator("dim")?,
            depth: estimator("depth")?,
            heads: estimator("heads")?,
            dim_head: estimator("dim_head")?,
            ff_mult: estimator("ff_mult")?,
            static_chunk_size: flow::optional(
                file,
                &["estimator", "static_chunk_size"],
                defaults.estimator.static_chunk_size,
            )?,
            dropout: 0.0,
        },
        matching: flow::matching(file)?,
        mel_normalisation: None,
    })
}

/// Compares the settings that determine the size of the model with the weights in the file.
fn refuse_lies(file: &GoldenFile, config: &CosyVoice3Config) -> Result<()> {
    let CosyVoice3Config { input_size, output_size, pre_lookahead_channels: inner, .. } = *config;
    let estimator = &config.estimator;
    let channels = estimator.dim;
    file.expect_weight("input_embedding.weight", &[config.vocab_size, input_size])?;
    file.expect_weight("spk_embed_affine_layer.weight", &[output_size, config.spk_embed_dim])?;
    let lookahead = config.pre_lookahead_len.saturating_add(1);
    file.expect_weight("pre_lookahead_layer.conv1.weight", &[inner, input_size, lookahead])?;
    file.expect_modules("decoder.estimator.transformer_blocks", estimator.depth)?;
    file.expect_weight("decoder.estimator.proj_out.weight", &[output_size, channels])?;
    file.expect_weight("decoder.estimator.rotary_embed.inv_freq", &[estimator.dim_head / 2])?;
    if estimator.depth > 0 {
        let inner = estimator.heads.saturating_mul(estimator.dim_head);
        file.expect_weight("decoder.estimator.transformer_blocks.0.attn.to_q.weight", &[inner, channels])?;
        let inner = channels.saturating_mul(estimator.ff_mult);
        file.expect_weight("decoder.estimator.transformer_blocks.0.ff.ff.0.0.weight", &[inner, channels])?;
    }
    Ok(())
}
