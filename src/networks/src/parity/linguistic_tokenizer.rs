//! The linguistic tokenizer: an online Paraformer's encoder over a waveform, and the nearest centers.

use candle_core::{Device, Tensor};

use super::{GoldenFile, ParityError, Report, Result};
use flowmill_extract::Matrix;
use flowmill_extract::extractors::paraformer::{Checkpoint, Chunking, Encoder, LinguisticTokenizer, Stacking};

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let tokenizer = tokenizer(file)?;
    let samples: Vec<f32> = file.floats("in.wav", 1)?.to_vec1()?;
    let encoded = tokenizer.encode(&samples)?;
    let mut report = Report::default();
    if let Some(expected) = file.find("out.enc_out") {
        let hidden = &encoded.hidden;
        let mut shape = vec![1; expected.rank().saturating_sub(2)];
        shape.extend([hidden.rows(), hidden.columns()]);
        let found = Tensor::from_slice(hidden.as_slice(), shape, &Device::Cpu)?;
        report.output("out.enc_out", &found, expected)?;
    }
    if file.find("out.tokens").is_some() {
        let tokens: Vec<i64> = tokenizer.quantize(&encoded)?.into_iter().map(i64::from).collect();
        report.exact("out.tokens", &tokens, &file.integers("out.tokens")?);
    }
    Ok(report)
}

fn tokenizer(file: &GoldenFile) -> Result<LinguisticTokenizer> {
    let stacking = Stacking { frames: file.size(&["lfr_m"])?, shift: file.size(&["lfr_n"])? };
    let checkpoint = Checkpoint::from_tensors(file.size(&["attention_heads"])?, &file.parameters())?;
    let checkpoint = checkpoint.to_device(file.device())?;
    let encoder = Encoder::new(checkpoint, chunking(file)?)?;
    let found = encoder.dimensions();
    file.expect_sizes(&[
        ("output_size", found.outputs),
        ("linear_units", found.units),
        ("num_blocks", found.blocks),
        ("kernel_size", found.taps),
    ])?;
    let centres = file.floats("in.kmeans", 2)?;
    expect_notes(file, centres.dim(0)?)?;
    let centres = Matrix::new(centres.flatten_all()?.to_vec1()?, centres.dim(1)?);
    Ok(LinguisticTokenizer::new(encoder, stacking, None, centres)?)
}

fn chunking(file: &GoldenFile) -> Result<Chunking> {
    let wrong = || ParityError::config(&["chunk_size"], "is not three sizes, the second of them 1 to 10000");
    let sizes = file.value(&["chunk_size"]).and_then(|sizes| serde_json::from_value::<[usize; 3]>(sizes.clone()).ok());
    let sizes = sizes.filter(|sizes| (1..=10_000).contains(&sizes[1]) && sizes[0].max(sizes[2]) <= 10_000);
    let sizes = sizes.ok_or_else(wrong)?;
    if sizes[0] + sizes[2] == 0 {
        // The public implementation interprets the last 0 frames as all frames.
        let problem = format!("is {sizes:?}: without frames that are read again, every chunk would read all before it");
        return Err(ParityError::config(&["chunk_size"], problem));
    }
    Ok(Chunking::new(sizes, look_back(file)?))
}

/// Returns the number of chunks that a chunk looks back; -1 means all.
fn look_back(file: &GoldenFile) -> Result<usize> {
    let path = ["encoder_chunk_look_back"];
    match file.value(&path).and_then(serde_json::Value::as_i64) {
        Some(-1) => Ok(usize::MAX),
        _ => file.size(&path),
    }
}

/// Checks the statements of the configuration about the inputs, if there are any.
fn expect_notes(file: &GoldenFile, centres: usize) -> Result<()> {
    let samples = file.floats("in.wav", 1)?.dim(0)?;
    for (key, found) in [("clusters", centres), ("samples", samples)] {
        if file.value(&[key]).is_some() && file.size(&[key])? != found {
            return Err(ParityError::config(&[key], format!("is {}, but the file has {found}", file.size(&[key])?)));
        }
    }
    match file.value(&["window"]) {
        Some(window) if window != "hamming" => {
            Err(ParityError::config(&["window"], format!("is {window}; the tokenizer's is \"hamming\"")))
        }
        _ => Ok(()),
    }
}
