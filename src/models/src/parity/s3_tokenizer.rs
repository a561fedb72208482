//! The supervised semantic speech tokenizers: hidden states and tokens of a padded batch of log-mels.

use candle_core::{Device, Tensor};
use flowmill_nn::Value;

use super::{GoldenFile, ParityError, Report, Result};
use crate::extractors::s3::{Checkpoint, Dimensions, Frames, Hidden, S3Tokenizer, Version, pieces};

/// Log-mel frames that the public implementation takes at once; longer items go through windows.
const LONGEST: usize = 3000;

pub(super) fn check_v1(file: &GoldenFile) -> Result<Report> {
    check(file, Version::V1)
}

pub(super) fn check_v2(file: &GoldenFile) -> Result<Report> {
    check(file, Version::V2)
}

fn check(file: &GoldenFile, version: Version) -> Result<Report> {
    let heads = Some(file.size(&["n_audio_head"])?);
    let tokenizer = S3Tokenizer::new(Checkpoint::from_tensors(version, heads, &file.parameters())?)?;
    refuse_lies(file, tokenizer.dimensions())?;
    let mel = file.floats("in.mel", 3)?.transpose(1, 2)?.contiguous()?;
    let (items, frames, _) = mel.dims3()?;
    let lengths = file.lengths("in.mel_len")?;
    if lengths.len() != items || lengths.iter().any(|length| !(1..=frames).contains(length)) {
        let expected = format!("{items} lengths of 1 to {frames} frames");
        return Err(ParityError::tensor("in.mel_len", format!("{lengths:?}"), expected));
    }
    let mut report = Report::default();
    if lengths.iter().any(|length| *length > LONGEST) {
        check_windows(file, &tokenizer, &mel, &lengths, &mut report)?;
        return Ok(report);
    }
    let Hidden { hidden, valid } = tokenizer.encode(&Frames::padded(Value::plain(mel)?, &lengths)?)?;
    if let Some(expected) = file.find("out.hidden") {
        report.output("out.hidden", hidden.tensor(), expected)?;
    }
    if file.find("out.code").is_some() {
        let tokens: Vec<i64> = tokenizer.quantize(&hidden)?.into_iter().map(i64::from).collect();
        report.exact("out.code", &tokens, &file.integers("out.code")?);
    }
    check_lengths(file, &valid.lengths(), &mut report)?;
    Ok(report)
}

fn check_lengths(file: &GoldenFile, lengths: &[usize], report: &mut Report) -> Result<()> {
    if file.find("out.code_len").is_some() {
        let lengths: Vec<i64> = lengths.iter().map(|length| *length as i64).collect();
        report.exact("out.code_len", &lengths, &file.integers("out.code_len")?);
    }
    Ok(())
}

/// Items too long for one pass: the tokens of their windows, padded with zeros.
fn check_windows(
    file: &GoldenFile,
    tokenizer: &S3Tokenizer,
    mel: &Tensor,
    lengths: &[usize],
    report: &mut Report,
) -> Result<()> {
    let mut items = Vec::with_capacity(lengths.len());
    for (item, length) in lengths.iter().enumerate() {
        let frames: Vec<f32> = mel.get(item)?.narrow(0, 0, *length)?.flatten_all()?.to_vec1()?;
        items.push(windowed(tokenizer, &frames)?);
    }
    let longest = items.iter().map(Vec::len).max().unwrap_or(0);
    let padded = items.iter().flat_map(|tokens| {
        let padding = std::iter::repeat_n(0, longest - tokens.len());
        tokens.iter().map(|token| i64::from(*token)).chain(padding)
    });
    let padded = Tensor::from_vec(padded.collect::<Vec<i64>>(), (items.len(), longest), &Device::Cpu)?;
    if file.find("out.code").is_some() {
        report.exact("out.code", &padded.flatten_all()?.to_vec1()?, &file.integers("out.code")?);
    }
    check_lengths(file, &items.iter().map(Vec::len).collect::<Vec<_>>(), report)
}

fn windowed(tokenizer: &S3Tokenizer, frames: &[f32]) -> Result<Vec<u32>> {
    let bands = tokenizer.dimensions().n_mels;
    let windows = pieces::public_windows(frames.len() / bands).into_iter();
    let windows: Vec<&[f32]> = windows.map(|window| &frames[window.start * bands..window.end * bands]).collect();
    Ok(pieces::merge_windows(tokenizer.tokens(&windows)?))
}

/// Compares the configuration with the weights.
fn refuse_lies(file: &GoldenFile, found: &Dimensions) -> Result<()> {
    for (key, found) in [
        ("n_mels", found.n_mels),
        ("n_audio_state", found.state),
        ("n_audio_layer", found.layers),
        ("n_codebook_size", found.entries),
    ] {
        let wanted = file.size(&[key])?;
        if wanted != found {
            return Err(ParityError::config(&[key], format!("is {wanted}, the weights are those of {found}")));
        }
    }
    Ok(())
}
