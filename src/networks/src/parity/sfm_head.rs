//! The SFM head: its predictions, and the gradients of `sum(x_h w_x) + sum(t_h w_t) + sum(log_sigma_sq w_s)`.

use candle_core::Tensor;
use flowmill_nn::init::Builder;
use flowmill_nn::objectives::ShallowPrediction;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Ragged, Tape, Value};

use super::{GoldenFile, ParityError, Report, Result};
use crate::sfm::SfmHead;

/// The input as a parameter, so that it has a gradient.
const INPUT: &str = "in.h";

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let (channels, bins) = (file.size(&["d_hidden"])?, file.size(&["mel_channels"])?);
    file.expect_weight("conv1.weight", &[channels, channels, 3])?;
    file.expect_weight("proj.weight", &[bins.saturating_add(2), channels])?;
    let mut parameters = Parameters::new();
    let head = SfmHead::new(Builder::new(&mut parameters, RngKey::new(0)), channels, bins, 0.0)?;
    file.load(&mut parameters)?;
    let hidden = file.floats(INPUT, 3)?;
    let (items, frames, width) = hidden.dims3()?;
    if items * frames == 0 {
        return Err(ParityError::tensor(INPUT, format!("{:?}", hidden.dims()), "at least one frame"));
    }
    let input = parameters.add(INPUT, hidden.reshape((items * frames, width))?)?;
    parameters.to_device(file.device())?;
    for (name, shape) in [("in.w_x", &[items, bins, frames][..]), ("in.w_t", &[items, 1]), ("in.w_s", &[items, 1])] {
        file.shaped(name, shape)?;
    }
    let rows = Ragged::packed(&vec![frames; items]);

    let tape = Tape::new();
    let context = Context::training(&parameters, &tape, RngKey::new(0));
    let predicted = head.forward(&context, &context.parameter(input), &rows)?;
    let mut report = Report::default();
    let found = Outputs::new(&predicted, items, frames, bins)?;
    for (name, found) in [("out.x_h", &found.mean), ("out.t_h", &found.time), ("out.log_sigma_sq", &found.log_variance)]
    {
        if let Some(expected) = file.find(name) {
            report.output(name, found, expected)?;
        }
    }
    let loss = weighted(file, &predicted)?;
    let gradients = tape.backward(&loss)?;
    if let (Some(expected), Some(gradient)) = (file.find("out.grad_h"), gradients.get(input)) {
        report.gradient("out.grad_h", &gradient.reshape((items, frames, width))?, expected)?;
    }
    report.gradients(file, &parameters, &gradients)?;
    Ok(report)
}

/// The predictions in the public layout.
struct Outputs {
    mean: Tensor,
    time: Tensor,
    log_variance: Tensor,
}

impl Outputs {
    fn new(predicted: &ShallowPrediction, items: usize, frames: usize, bins: usize) -> Result<Self> {
        let mean = predicted.mean.tensor().reshape((items, frames, bins))?.transpose(1, 2)?.contiguous()?;
        let (time, log_variance) = (predicted.time.tensor().clone(), predicted.log_variance.tensor().clone());
        Ok(Self { mean, time, log_variance })
    }
}

/// Returns the sum of the predictions, each multiplied by its weight.
fn weighted(file: &GoldenFile, predicted: &ShallowPrediction) -> Result<Value> {
    let mean = Value::plain(file.floats("in.w_x", 3)?.transpose(1, 2)?)?.reshape(predicted.mean.dims())?;
    let time = Value::plain(file.floats("in.w_t", 2)?.clone())?;
    let log_variance = Value::plain(file.floats("in.w_s", 2)?.clone())?;
    let sums = [
        predicted.mean.multiply(&mean)?.sum()?,
        predicted.time.multiply(&time)?.sum()?,
        predicted.log_variance.multiply(&log_variance)?.sum()?,
    ];
    Ok(sums[0].add(&sums[1])?.add(&sums[2])?)
}
