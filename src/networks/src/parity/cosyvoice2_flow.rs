//! CosyVoice 2's token-to-mel flow: encoder, loss, every gradient, and inference from a prompt.

use super::{GoldenFile, ParityError, Report, Result, flow};
use crate::flow::{EstimatorConfig, FlowConfig, UNetConfig};

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let config = config(file)?;
    refuse_lies(file, &config)?;
    flow::check(file, &config)
}

/// Returns the model's settings, without dropout: the reference was computed with dropout switched off.
pub(super) fn config(file: &GoldenFile) -> Result<FlowConfig> {
    let defaults = FlowConfig::default();
    let estimator = |key| file.size(&["estimator", key]);
    Ok(FlowConfig {
        vocab_size: file.size(&["vocab_size"])?,
        input_size: file.size(&["input_size"])?,
        output_size: file.size(&["output_size"])?,
        spk_embed_dim: file.size(&["spk_embed_dim"])?,
        token_mel_ratio: flow::optional(file, &["token_mel_ratio"], defaults.token_mel_ratio)?,
        pre_lookahead_len: file.size(&["pre_lookahead_len"])?,
        encoder: flow::encoder(file)?,
        estimator: EstimatorConfig::UNet(UNetConfig {
            channels: flow::optional(file, &["estimator", "channels"], Vec::new())?,
            attention_head_dim: estimator("attention_head_dim")?,
            n_blocks: estimator("n_blocks")?,
            num_mid_blocks: estimator("num_mid_blocks")?,
            num_heads: estimator("num_heads")?,
            static_chunk_size: flow::optional(
                file,
                &["estimator", "static_chunk_size"],
                UNetConfig::default().static_chunk_size,
            )?,
            dropout: 0.0,
        }),
        conditions: flow::optional(file, &["conditions"], defaults.conditions)?,
        matching: flow::matching(file)?,
        ..defaults
    })
}

/// Compares the settings that determine the size of the model with the weights in the file.
pub(super) fn refuse_lies(file: &GoldenFile, config: &FlowConfig) -> Result<()> {
    let FlowConfig { input_size, output_size, .. } = config;
    file.expect_weight("input_embedding.weight", &[config.vocab_size, *input_size])?;
    flow::refuse_lies(file, config)?;
    let EstimatorConfig::UNet(estimator) = &config.estimator else { return Ok(()) };
    let (channels, levels) = (&estimator.channels, estimator.channels.len());
    let Some(first) = channels.first() else {
        return Err(ParityError::config(&["estimator", "channels"], "is missing"));
    };
    let inputs = config.estimator_channels();
    file.expect_weight("decoder.estimator.down_blocks.0.0.res_conv.weight", &[*first, inputs, 1])?;
    file.expect_weight("decoder.estimator.final_proj.weight", &[*output_size, *first, 1])?;
    file.expect_modules("decoder.estimator.mid_blocks", estimator.num_mid_blocks)?;
    file.expect_modules("decoder.estimator.down_blocks", levels)?;
    for (level, channels) in channels.iter().enumerate() {
        let block = format!("decoder.estimator.down_blocks.{level}");
        file.expect_weight(&format!("{block}.0.block2.block.0.weight"), &[*channels, *channels, 3])?;
        file.expect_modules(&format!("{block}.1"), estimator.n_blocks)?;
        if estimator.n_blocks > 0 {
            let inner = estimator.num_heads.saturating_mul(estimator.attention_head_dim);
            file.expect_weight(&format!("{block}.1.0.attn1.to_q.weight"), &[inner, *channels])?;
        }
    }
    Ok(())
}
