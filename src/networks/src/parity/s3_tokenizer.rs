//! The supervised semantic speech tokenizers: hidden states and tokens of a padded batch of log-mels.

use candle_core::{Device, Tensor};
use flowmill_nn::{Value, host};

use super::{GoldenFile, ParityError, Report, Result};
use flowmill_extract::extractors::s3::{
    Checkpoint, Dimensions, Frames, Hidden, LayerNormEpsilon, S3Tokenizer, Version, open_graph, pieces,
};

/// The number of log-mel frames that the public implementation processes in one pass; longer items are split into
/// windows.
const LONGEST: usize = 3000;

pub(super) fn check_v1(file: &GoldenFile) -> Result<Report> {
    check(file, Version::V1, LayerNormEpsilon::default())
}

pub(super) fn check_v2(file: &GoldenFile) -> Result<Report> {
    check(file, Version::V2, LayerNormEpsilon::before_0_3(Version::V2))
}

/// Checks version 3, and the merged tokens of the windows of a long recording.
pub(super) fn check_v3(file: &GoldenFile) -> Result<Report> {
    let mut report = check(file, Version::V3, LayerNormEpsilon::default())?;
    if file.find("out.merged").is_some() {
        let segments = (0..file.size(&["segments"])?).map(|segment| file.integers(&format!("in.segment.{segment}")));
        let segments = segments.map(|segment| Ok(segment?.into_iter().map(|token| token as u32).collect()));
        let merged = pieces::merge_windows(segments.collect::<Result<_>>()?);
        let merged: Vec<i64> = merged.into_iter().map(i64::from).collect();
        report.exact("out.merged", &merged, &file.integers("out.merged")?);
    }
    Ok(report)
}

/// Returns the tokenizer with the file's own weights, or with the graph that the file names next to it. Files without
/// epsilons have those of `unsaid`.
fn tokenizer(file: &GoldenFile, version: Version, unsaid: LayerNormEpsilon) -> Result<S3Tokenizer> {
    let heads = file.size(&["n_audio_head"])?;
    let given = file.value(&["layer_norm_epsilon"]).is_some();
    let given = given.then(|| {
        let number = |name: &str| file.number(&["layer_norm_epsilon", name]);
        Ok::<_, ParityError>(LayerNormEpsilon { attn_ln: number("attn_ln")?, mlp_ln: number("mlp_ln")? })
    });
    let given = given.transpose()?;
    let checkpoint = match file.value(&["onnx"]).and_then(|name| name.as_str()) {
        Some(graph) => open_graph(&file.beside(graph), version)?,
        None => {
            let epsilon = given.unwrap_or(unsaid);
            Checkpoint::from_tensors(version, Some(heads), &[epsilon], &file.parameters())?
        }
    };
    if checkpoint.dimensions().heads != heads {
        let found = checkpoint.dimensions().heads;
        return Err(ParityError::config(&["n_audio_head"], format!("is {heads}, but the graph has {found}")));
    }
    if let Some(found) = checkpoint.epsilons().iter().find(|found| given.is_some_and(|given| given != **found)) {
        let (attn_ln, mlp_ln) = (found.attn_ln, found.mlp_ln);
        return Err(ParityError::config(&["layer_norm_epsilon"], format!("the graph has {attn_ln} and {mlp_ln}")));
    }
    Ok(S3Tokenizer::new(checkpoint.to_device(file.device())?)?)
}

fn check(file: &GoldenFile, version: Version, unsaid: LayerNormEpsilon) -> Result<Report> {
    let tokenizer = tokenizer(file, version, unsaid)?;
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
    if file.value(&["onnx"]).is_some() {
        check_alone(file, &tokenizer, &mel, &lengths, &mut report)?;
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

/// Checks items that went through a graph one by one: their rows are padded with zeros.
fn check_alone(
    file: &GoldenFile,
    tokenizer: &S3Tokenizer,
    mel: &Tensor,
    lengths: &[usize],
    report: &mut Report,
) -> Result<()> {
    let longest = lengths.iter().map(|length| S3Tokenizer::tokens_of(*length)).max().unwrap_or(0);
    let state = tokenizer.dimensions().state;
    let (mut rows, mut tokens, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for (item, length) in lengths.iter().enumerate() {
        let frames: Vec<f32> = mel.get(item)?.narrow(0, 0, *length)?.flatten_all()?.to_vec1()?;
        let Hidden { hidden, .. } = tokenizer.encode(&Frames::packed(&[&frames], tokenizer.dimensions().n_mels)?)?;
        let found = tokenizer.quantize(&hidden)?;
        counts.push(found.len());
        rows.extend(host::read(hidden.tensor())?);
        rows.resize((item + 1) * longest * state, 0.0);
        tokens.extend(found.into_iter().map(i64::from));
        tokens.resize((item + 1) * longest, 0);
    }
    if let Some(expected) = file.find("out.hidden") {
        let rows = Tensor::from_vec(rows, (lengths.len(), longest, state), &Device::Cpu)?;
        report.output("out.hidden", &rows, expected)?;
    }
    if file.find("out.code").is_some() {
        report.exact("out.code", &tokens, &file.integers("out.code")?);
    }
    check_lengths(file, &counts, report)
}

/// Checks items that are too long for one pass: the tokens of their windows are padded with zeros.
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
    file.expect_sizes(&[
        ("n_mels", found.n_mels),
        ("n_audio_state", found.state),
        ("n_audio_layer", found.layers),
        ("n_codebook_size", found.entries),
    ])
}
