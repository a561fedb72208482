//! Logits, losses and gradients.

use super::{codes, config, tokens};
use crate::parity::report::gradient_of;
use crate::parity::{GoldenFile, ParityError, Report, Result};
use crate::vall_e::{Batch, Sample, Task, VallE, VallEConfig};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Tape, host};

/// Compares everything that the file expects.
pub(in crate::parity) fn check(file: &GoldenFile) -> Result<Report> {
    let config = config(file)?;
    let (model, mut parameters) = VallE::new(&config, 0)?;
    file.load(&mut parameters)?;
    let mut report = Report::default();
    for (name, sample) in samples(file, &config)? {
        check_sample(file, (&model, &parameters), &name, &sample, &mut report)?;
    }
    Ok(report)
}

/// Returns the samples of the file, by the names of their outputs.
fn samples(file: &GoldenFile, config: &VallEConfig) -> Result<Vec<(String, Sample)>> {
    let response = codes(file, "in.codes", config.levels)?;
    let mask: Vec<bool> = tokens(file, "in.narlen_mask")?.into_iter().map(|masked| masked != 0).collect();
    let sample = Sample {
        phonemes: tokens(file, "in.phonemes")?,
        prompt: Some(codes(file, "in.prompt_codes", config.levels)?),
        response,
        ..Sample::default()
    };
    let levels = (0..config.levels).map(|level| (level.to_string(), Sample { level, ..sample.clone() }));
    let mut samples: Vec<_> = levels.collect();
    samples.push(("narlen".to_owned(), Sample { mask: Some(mask), ..sample.clone() }));
    // The tokens of the length follow from the number of frames.
    let digits: String = sample.response.frames().to_string();
    let digits = digits.bytes().map(|digit| i64::from(digit - b'0'));
    let expected: Vec<i64> = std::iter::once(0).chain(digits).chain([10]).collect();
    if file.integers("in.len_tokens")? != expected {
        let found = format!("{:?}", file.integers("in.len_tokens")?);
        return Err(ParityError::tensor("in.len_tokens", found, format!("{expected:?}")));
    }
    samples.push(("len".to_owned(), Sample { task: Task::Length, ..sample }));
    Ok(samples)
}

/// Compares the logits, the loss and the gradients of one sample.
fn check_sample(
    file: &GoldenFile,
    (model, parameters): (&VallE, &Parameters),
    name: &str,
    sample: &Sample,
    report: &mut Report,
) -> Result<()> {
    let batch = Batch::collate(std::slice::from_ref(sample), model.config())?;
    let logits = format!("out.logits.{name}");
    if let Some(expected) = file.find(&logits) {
        let found = model.logits(&Context::inference(parameters), &batch)?;
        report.output(&logits, found[0].tensor(), expected)?;
    }
    let tape = Tape::new();
    let loss = model.loss(&Context::training(parameters, &tape, RngKey::new(0)), &batch)?;
    let nll = format!("out.nll.{name}");
    if let Some(expected) = file.find(&nll) {
        report.output(&nll, &host::fetch(loss.total.tensor())?.reshape(1)?, expected)?;
    }
    let gradients = tape.backward(&loss.total)?;
    let prefix = format!("grad.{name}.");
    for full in file.names() {
        let Some(parameter) = full.strip_prefix(&prefix) else { continue };
        let found = gradient_of(file, full, parameter, parameters, &gradients)?;
        report.gradient(full, &found, file.tensor(full)?)?;
    }
    Ok(())
}
