//! The DAC codec.

use candle_core::{Device, Tensor};
use flowmill_extract::Matrix;
use flowmill_extract::extractors::dac::{Checkpoint, Decoder, Encoder, Quantized, Quantizer};
use flowmill_nn::{Value, host};

use super::{GoldenFile, ParityError, Report, Result};

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let levels = file.size(&["n_codebooks"])?;
    let checkpoint = Checkpoint::of(file.parameters(), levels)?;
    refuse_lies(file, &checkpoint)?;
    let encoder = Encoder::new(&checkpoint, file.device())?;
    let (quantizer, decoder) = (Quantizer::new(&checkpoint)?, Decoder::new(&checkpoint, file.device())?);
    let wav = file.floats("in.wav", 3)?;
    let (items, _, length) = wav.dims3()?;
    let mut found = Found::default();
    for item in 0..items {
        let samples: Vec<f32> = wav.get(item)?.flatten_all()?.to_vec1()?;
        let encoded = encoder.encode(&samples)?;
        let quantized = quantizer.quantize(&encoded, levels)?;
        let partial = quantizer.quantize(&encoded, file.size(&["n_quantizers"])?)?;
        let output = &quantized.output;
        let vectors = Value::from_vec(output.as_slice().to_vec(), &[output.rows(), output.columns()])?;
        found.audio.push(decoder.decode(&vectors)?);
        found.losses.push(loss(&quantizer, &quantized));
        found.codes.extend(quantized.codes.iter().flatten().map(|code| i64::from(*code)));
        found.encoder.push(transposed(&Matrix::new(host::read(encoded.tensor())?, encoded.width()))?);
        let latents = quantized.latents.iter().map(transposed).collect::<Result<Vec<_>>>()?;
        found.latents.push(Tensor::cat(&latents, 0)?);
        found.z.push(transposed(output)?);
        found.partial.push(transposed(&partial.output)?);
    }
    let mut report = Report::default();
    report.exact("out.codes", &found.codes, &file.integers("out.codes")?);
    for (name, items) in [
        ("out.encoder", &found.encoder),
        ("out.latents", &found.latents),
        ("out.z", &found.z),
        ("out.z_partial", &found.partial),
    ] {
        report.output(name, &Tensor::stack(items, 0)?, file.tensor(name)?)?;
    }
    report.output("out.audio_full", &audio(&found.audio, usize::MAX)?, file.tensor("out.audio_full")?)?;
    report.output("out.audio", &audio(&found.audio, length)?, file.tensor("out.audio")?)?;
    let mean = found.losses.iter().sum::<f64>() / items.max(1) as f64;
    let loss = Tensor::from_vec(vec![mean as f32], 1, &Device::Cpu)?;
    for name in ["out.commitment_loss", "out.codebook_loss"] {
        report.output(name, &loss, file.tensor(name)?)?;
    }
    let decoded = given_codes(file, levels)?.into_iter().map(|codes| Ok(decoder.decode(&quantizer.vectors(&codes)?)?));
    let decoded = decoded.collect::<Result<Vec<_>>>()?;
    report.output("out.decoded_codes", &audio(&decoded, usize::MAX)?, file.tensor("out.decoded_codes")?)?;
    Ok(report)
}

/// The results for all items, each in the layout of the file.
#[derive(Default)]
struct Found {
    encoder: Vec<Tensor>,
    codes: Vec<i64>,
    latents: Vec<Tensor>,
    z: Vec<Tensor>,
    partial: Vec<Tensor>,
    audio: Vec<Vec<f32>>,
    losses: Vec<f64>,
}

/// Returns rows of frames as `[channel, frame]`.
pub(super) fn transposed(frames: &Matrix) -> Result<Tensor> {
    let tensor = Tensor::from_vec(frames.as_slice().to_vec(), (frames.rows(), frames.columns()), &Device::Cpu)?;
    Ok(tensor.t()?.contiguous()?)
}

/// Returns the first samples of each item, `[item, 1, sample]`.
fn audio(items: &[Vec<f32>], length: usize) -> Result<Tensor> {
    let item = |samples: &Vec<f32>| {
        let count = samples.len().min(length);
        Tensor::from_vec(samples[..count].to_vec(), (1, count), &Device::Cpu)
    };
    Ok(Tensor::stack(&items.iter().map(item).collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

/// Returns the sum over levels of the mean squared distance between latents and their codes, of one item.
fn loss(quantizer: &Quantizer, quantized: &Quantized) -> f64 {
    let level = |(level, (codes, latents)): (usize, (&Vec<u32>, &Matrix))| {
        let rows = codes.iter().zip(latents.iter());
        let distances = rows.flat_map(|(code, latent)| {
            let entry = quantizer.entry(level, *code).unwrap_or_default();
            latent.iter().zip(entry).map(|(a, b)| f64::from(a - b).powi(2))
        });
        distances.sum::<f64>() / latents.as_slice().len().max(1) as f64
    };
    quantized.codes.iter().zip(&quantized.latents).enumerate().map(level).sum()
}

/// Returns the codes to decode, by item and level.
fn given_codes(file: &GoldenFile, levels: usize) -> Result<Vec<Vec<Vec<u32>>>> {
    let codes = file.tensor("in.codes")?;
    let &[_, given, frames] = codes.dims() else {
        return Err(ParityError::tensor("in.codes", format!("{:?}", codes.dims()), "[item, level, frame]"));
    };
    if given != levels || frames == 0 {
        return Err(ParityError::tensor("in.codes", format!("{:?}", codes.dims()), format!("[item, {levels}, frame]")));
    }
    let code = |code: i64| u32::try_from(code).unwrap_or(u32::MAX);
    let codes: Vec<u32> = file.integers("in.codes")?.into_iter().map(code).collect();
    let item = |item: &[u32]| item.chunks_exact(frames).map(<[u32]>::to_vec).collect();
    Ok(codes.chunks_exact(levels * frames).map(item).collect())
}

/// Compares the configuration with the weights.
fn refuse_lies(file: &GoldenFile, checkpoint: &Checkpoint) -> Result<()> {
    let found = checkpoint.dimensions();
    file.expect_sizes(&[
        ("encoder_dim", found.encoder_dim),
        ("decoder_dim", found.decoder_dim),
        ("codebook_size", found.codes),
        ("codebook_dim", found.code_dim),
    ])
}
