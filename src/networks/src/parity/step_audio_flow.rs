//! Step-Audio's token-to-mel flow: two codebooks, a conformer encoder, a diffusion transformer.

use super::{GoldenFile, Report, Result, flow};
use crate::flow::{DitConfig, FlowConfig, StepAudioConfig};

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let config = config(file)?;
    refuse_lies(file, &config)?;
    flow::check(file, &FlowConfig::from(&config))
}

fn config(file: &GoldenFile) -> Result<StepAudioConfig> {
    let defaults = StepAudioConfig::default();
    let estimator = |key| file.size(&["estimator", key]);
    Ok(StepAudioConfig {
        vq02_size: file.size(&["vq02_size"])?,
        vq06_size: file.size(&["vq06_size"])?,
        vocab_size: file.size(&["vocab_size"])?,
        input_size: file.size(&["input_size"])?,
        output_size: file.size(&["output_size"])?,
        spk_embed_dim: file.size(&["spk_embed_dim"])?,
        token_mel_ratio: flow::optional(file, &["token_mel_ratio"], defaults.token_mel_ratio)?,
        pre_lookahead_len: file.size(&["pre_lookahead_len"])?,
        encoder: flow::encoder(file)?,
        estimator: DitConfig {
            hidden_size: estimator("hidden_size")?,
            depth: estimator("depth")?,
            num_heads: estimator("num_heads")?,
            head_dim: estimator("head_dim")?,
            mlp_ratio: file.number(&["estimator", "mlp_ratio"])?,
            static_chunk_size: flow::optional(
                file,
                &["estimator", "static_chunk_size"],
                defaults.estimator.static_chunk_size,
            )?,
        },
        matching: flow::matching(file)?,
        ..defaults
    })
}

/// Compares the settings that determine the size of the model with the weights in the file.
fn refuse_lies(file: &GoldenFile, config: &StepAudioConfig) -> Result<()> {
    let estimator = &config.estimator;
    file.expect_weight("input_embedding.embedding.weight", &[config.vocab_size, config.input_size / 2])?;
    flow::refuse_lies(file, &FlowConfig::from(config))?;
    file.expect_modules("decoder.estimator.blocks", estimator.depth)?;
    file.expect_weight("decoder.estimator.final_layer.linear.weight", &[config.output_size, estimator.hidden_size])?;
    if estimator.depth > 0 {
        let inner = estimator.num_heads.saturating_mul(estimator.head_dim);
        file.expect_weight("decoder.estimator.blocks.0.attn.to_q.weight", &[inner, estimator.hidden_size])?;
        let shape = [estimator.mlp_size(), estimator.hidden_size];
        file.expect_weight("decoder.estimator.blocks.0.mlp.fc1.weight", &shape)?;
    }
    Ok(())
}
