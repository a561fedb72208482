//! VALL-E: logits, losses and gradients of every level, and generation.

mod generation;
mod training;

pub(super) use generation::check as check_generation;
pub(super) use training::check as check_training;

use super::{GoldenFile, ParityError, Result, flow};
use crate::vall_e::{Codes, VallEConfig};

/// Returns the model's settings. Tables whose sizes the configuration leaves out have those of the weights.
fn config(file: &GoldenFile) -> Result<VallEConfig> {
    let entries = |name: &str| -> Result<usize> {
        let name = format!("param.{name}.weight");
        Ok(file.floats(&name, 2)?.dims()[0])
    };
    let defaults = VallEConfig::default();
    let (dim, ffn) = (file.size(&["dim"])?, file.size(&["ffn"])?);
    if dim == 0 || !ffn.is_multiple_of(dim) {
        return Err(ParityError::config(&["ffn"], format!("is {ffn}, no multiple of {dim}")));
    }
    let config = VallEConfig {
        size: None,
        dim,
        heads: file.size(&["heads"])?,
        layers: file.size(&["layers"])?,
        ffn_multiple: ffn / dim,
        levels: file.size(&["levels"])?,
        audio_tokens: flow::optional(file, &["audio_tokens"], defaults.audio_tokens)?,
        phoneme_tokens: entries("text_emb")?,
        languages: entries("langs_emb")?,
        tones: entries("tones_emb")?,
        tasks: entries("tasks_emb")?,
        // The reference was computed without.
        attention_dropout: 0.0,
    };
    refuse_lies(file, &config)?;
    Ok(config)
}

/// Compares the settings that determine the size of the model with the weights in the file.
fn refuse_lies(file: &GoldenFile, config: &VallEConfig) -> Result<()> {
    let VallEConfig { dim, levels, audio_tokens, .. } = *config;
    file.expect_modules("model.layers", config.layers)?;
    let inner = config.ffn_multiple.saturating_mul(dim);
    file.expect_weight("model.layers.0.mlp.up_proj.weight", &[inner, dim])?;
    file.expect_weight("resps_emb.embeddings.0.weight", &[audio_tokens.saturating_add(1), dim])?;
    file.expect_modules("resps_emb.embeddings", levels.saturating_add(1))
}

/// Returns codes of the file, `[frame, level]`.
fn codes(file: &GoldenFile, name: &str, levels: usize) -> Result<Codes> {
    let values = tokens(file, name)?;
    let dims = file.tensor(name)?.dims();
    if dims.len() != 2 || dims[1] != levels {
        return Err(ParityError::tensor(name, format!("{dims:?}"), format!("[frame, {levels}]")));
    }
    let level = |level: usize| values.iter().skip(level).step_by(levels).copied().collect();
    Ok(Codes::from_levels(&(0..levels).map(level).collect::<Vec<_>>())?)
}

/// Returns codes in the layout of a file, `[frame][level]`.
fn frames_first(codes: &Codes) -> Vec<i64> {
    let frame = |frame: usize| (0..codes.levels()).map(move |level| i64::from(codes.level(level)[frame]));
    (0..codes.frames()).flat_map(frame).collect()
}

/// Returns the tokens of a tensor of integers.
fn tokens(file: &GoldenFile, name: &str) -> Result<Vec<u32>> {
    let token = |value: i64| {
        u32::try_from(value).map_err(|_| ParityError::tensor(name, format!("holding {value}"), "tokens of at least 0"))
    };
    file.integers(name)?.into_iter().map(token).collect()
}
