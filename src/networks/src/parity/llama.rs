//! A LLaMA with grouped-query attention: logits with and without a prefix, loss, gradients, and generation.

use candle_core::{Device, Tensor};
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Tape, Value, host};

use super::{GoldenFile, ParityError, Report, Result, settings};
use crate::llama::{LanguageModel, LlamaConfig, LlamaFileConfig, Prefix};

/// Compares everything that the file expects.
pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let settings: LlamaFileConfig = settings(file, &["llama"])?;
    let config = settings.network()?;
    refuse_lies(file, "model.", &config, settings.vocab_size)?;
    let mut parameters = Parameters::new();
    let builder = Builder::new(&mut parameters, RngKey::new(0));
    let model = LanguageModel::new(builder, &config, settings.vocab_size, settings.tie_word_embeddings)?;
    file.load(&mut parameters)?;
    let sequences = sequences(file)?;
    let mut report = Report::default();
    let prefix = prefix(file, &config)?;
    let context = Context::inference(&parameters);
    let borrowed: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    for (name, prefix) in [("out.logits", None), ("out.logits_prefix", Some(&prefix))] {
        let logits = model.logits(&context, prefix, &borrowed)?;
        report.output(name, &padded(&logits, &sequences, file.floats(name, 3)?)?, file.floats(name, 3)?)?;
    }
    let tape = Tape::new();
    let loss = model.loss(&Context::training(&parameters, &tape, RngKey::new(0)), None, &borrowed)?;
    report.output("out.loss", &host::fetch(loss.tensor())?.reshape(1)?, file.floats("out.loss", 1)?)?;
    report.gradients(file, &parameters, &tape.backward(&loss)?)?;
    check_generation(file, (&model, &parameters), &prefix, &sequences, &mut report)?;
    Ok(report)
}

/// Compares the sizes of the configuration with the weights, whose names begin with `prefix`.
pub(super) fn refuse_lies(file: &GoldenFile, prefix: &str, config: &LlamaConfig, vocabulary: usize) -> Result<()> {
    file.expect_weight(&format!("{prefix}embed_tokens.weight"), &[vocabulary, config.dim])?;
    file.expect_modules(&format!("{prefix}layers"), config.layers)?;
    file.expect_weight(&format!("{prefix}layers.0.mlp.up_proj.weight"), &[config.ffn, config.dim])
}

fn check_generation(
    file: &GoldenFile,
    (model, parameters): (&LanguageModel, &Parameters),
    prefix: &Prefix,
    sequences: &[Vec<u32>],
    report: &mut Report,
) -> Result<()> {
    let limit = file.size(&["max_new_tokens"])?;
    let end = u32::try_from(file.size(&["llama", "eos_token_id"])?).unwrap_or(u32::MAX);
    let generator = model.generator(parameters)?;
    for (item, text) in sequences.iter().enumerate() {
        for (name, prefix) in [("generated", None), ("generated_prefix", Some(prefix))] {
            let name = format!("out.{name}.{item}");
            let tokens = generator.greedy(prefix, text, &[end], limit)?;
            let found: Vec<i64> = tokens.into_iter().map(i64::from).collect();
            report.exact(&name, &found, &file.integers(&name)?);
        }
    }
    Ok(())
}

/// Returns the tokens of the file without padding.
pub(super) fn sequences(file: &GoldenFile) -> Result<Vec<Vec<u32>>> {
    let (ids, mask) = (file.integers("in.input_ids")?, file.integers("in.attention_mask")?);
    let dims = file.tensor("in.input_ids")?.dims();
    let &[_, length] = dims else {
        return Err(ParityError::tensor("in.input_ids", format!("{dims:?}"), "[item, token]"));
    };
    if length == 0 || mask.len() != ids.len() {
        return Err(ParityError::tensor("in.attention_mask", format!("{} elements", mask.len()), format!("{dims:?}")));
    }
    let token = |id: &i64| {
        u32::try_from(*id).map_err(|_| ParityError::tensor("in.input_ids", format!("holding {id}"), "tokens"))
    };
    let sequence = |(ids, mask): (&[i64], &[i64])| {
        let valid = mask.iter().take_while(|seen| **seen != 0).count();
        ids[..valid].iter().map(token).collect::<Result<Vec<u32>>>()
    };
    ids.chunks_exact(length).zip(mask.chunks_exact(length)).map(sequence).collect()
}

/// Returns the keys and values of the file, `[block, key or value, head, position, channel]`.
fn prefix(file: &GoldenFile, config: &LlamaConfig) -> Result<Prefix> {
    let (heads, width) = (config.key_value_heads, config.head_width());
    let given = file.floats("in.prefix", 5)?;
    let length = given.dims()[3];
    let given = file.shaped("in.prefix", &[config.layers, 2, heads, length, width])?;
    let part = |block: usize, part: usize| -> Result<Value> {
        let by_position = given.get(block)?.get(part)?.transpose(0, 1)?.contiguous()?;
        Ok(Value::plain(by_position.reshape((length, heads * width))?)?)
    };
    let blocks = (0..config.layers).map(|block| Ok([part(block, 0)?, part(block, 1)?]));
    Ok(Prefix::new(blocks.collect::<Result<_>>()?)?)
}

/// Moves rows of packed sequences to those of a padded batch, zeros elsewhere.
fn padded(rows: &Value, sequences: &[Vec<u32>], like: &Tensor) -> Result<Tensor> {
    let elements = host::read(rows.tensor())?;
    let (width, length) = (rows.width(), like.dims()[1]);
    let mut out = vec![0.0; sequences.len() * length * width];
    let mut start = 0;
    for (sequence, out) in sequences.iter().zip(out.chunks_exact_mut((length * width).max(1))) {
        let count = sequence.len() * width;
        out[..count].copy_from_slice(&elements[start..start + count]);
        start += count;
    }
    Ok(Tensor::from_vec(out, (sequences.len(), length, width), &Device::Cpu)?)
}
