//! wav2vec 2.0: all hidden states, and the speech emotion classifier.

use candle_core::Tensor;
use flowmill_extract::extractors::wav2vec2::{Checkpoint, EmotionClassifier, Wav2Vec2, normalized};
use flowmill_nn::{Ragged, host};

use super::{GoldenFile, ParityError, Report, Result};

/// Compares the hidden states, with and without interpolation.
pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let checkpoint = Checkpoint::of_encoder(file.parameters())?;
    refuse_lies(file, &checkpoint)?;
    let encoder = Wav2Vec2::new(&checkpoint, Some(file.size(&["num_attention_heads"])?), file.device())?;
    let mut report = Report::default();
    for (name, frames) in [("hidden", None), ("resampled", Some(file.size(&["frames"])?))] {
        let items: Vec<Vec<f32>> = file.floats("in.wav", 2)?.to_vec2()?;
        let items = items.iter().map(|samples| Ok(encoder.hidden_states(samples, frames)?));
        let items = items.collect::<Result<Vec<_>>>()?;
        for state in 0..=checkpoint.dimensions().layers {
            let found =
                items.iter().map(|states| Ok(host::fetch(states[state].tensor())?)).collect::<Result<Vec<_>>>()?;
            let name = format!("out.{name}.{state}");
            report.output(&name, &Tensor::stack(&found, 0)?, file.floats(&name, 3)?)?;
        }
    }
    Ok(report)
}

/// Compares the classifier from raw samples on.
pub(super) fn check_emotion(file: &GoldenFile) -> Result<Report> {
    let checkpoint = Checkpoint::of_classifier(file.parameters())?;
    refuse_lies(file, &checkpoint)?;
    file.expect_sizes(&[("num_labels", checkpoint.dimensions().classes)])?;
    let heads = file.size(&["num_attention_heads"])?;
    let classifier = EmotionClassifier::new(&checkpoint, Some(heads), file.device())?;
    let wav = file.tensor("in.wav")?;
    let items: Vec<Vec<f32>> = match wav.rank() {
        1 => vec![wav.to_vec1()?],
        2 => wav.to_vec2()?,
        _ => return Err(ParityError::tensor("in.wav", format!("{:?}", wav.dims()), "[item, sample]")),
    };
    let (mut inputs, mut states, mut pooled) = (Vec::new(), Vec::new(), Vec::new());
    let (mut logits, mut scores) = (Vec::new(), Vec::new());
    for samples in &items {
        let samples = normalized(samples);
        let found = classifier.classify(&samples)?;
        let last = classifier.encoder().last_hidden_state(&samples)?;
        pooled.extend(host::read(last.mean_items(&Ragged::packed(&[last.rows()]))?.tensor())?);
        states.extend(host::read(last.tensor())?);
        inputs.extend(samples);
        logits.extend(found.logits);
        scores.extend(found.scores);
    }
    let mut report = Report::default();
    let outputs = [
        ("out.normalized", inputs),
        ("out.last_hidden", states),
        ("out.pooled", pooled),
        ("out.logits", logits),
        ("out.scores", scores),
    ];
    for (name, found) in outputs {
        let expected = file.tensor(name)?;
        if found.len() != expected.elem_count() {
            let found = format!("{} numbers", expected.elem_count());
            return Err(ParityError::tensor(name, found, format!("one for each of {} items", items.len())));
        }
        report.output(name, &host::tensor(found, expected.dims())?, expected)?;
    }
    Ok(report)
}

/// Compares the configuration with the weights.
fn refuse_lies(file: &GoldenFile, checkpoint: &Checkpoint) -> Result<()> {
    let found = checkpoint.dimensions();
    file.expect_sizes(&[
        ("hidden_size", found.hidden),
        ("num_hidden_layers", found.layers),
        ("intermediate_size", found.inner),
        ("num_conv_pos_embeddings", found.position_taps),
        ("num_conv_pos_embedding_groups", found.position_groups),
    ])
}
