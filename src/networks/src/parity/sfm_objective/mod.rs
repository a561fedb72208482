//! The shallow flow matching objective with a linear estimator: every loss, and the gradients of their sum.
//!
//! The estimator of these files is `(W x + v t + speaker + prompt / 2)` on valid frames; a dropped item has neither
//! speaker nor prompt.

mod rounding;

use candle_core::Tensor;
use flowmill_nn::objectives::{Placement, ShallowFlowMatching, ShallowPath, ShallowPrediction};
use flowmill_nn::random::RngKey;
use flowmill_nn::solvers::TimeSchedule;
use flowmill_nn::{Context, ParameterId, Parameters, Ragged, Tape, Value};
use serde::Deserialize;

use super::report::{largest, same_shape};
use super::{GoldenFile, ParityError, Report, Result};

pub(super) fn check(file: &GoldenFile) -> Result<Report> {
    let problem = Problem::new(file)?;
    let placements = problem.placements(file)?;
    let tape = Tape::new();
    let context = Context::training(&problem.parameters, &tape, RngKey::new(0));
    let predicted = problem.predicted(&context)?;
    let losses = problem.losses(file, &context, &predicted, placements)?;
    let path = &losses.path;
    let mut report = Report::default();
    let parts = [
        ("out.fm_loss", &losses.matching),
        ("out.mu_loss", &path.mean_loss),
        ("out.t_loss", &path.time_loss),
        ("out.sigma_loss", &path.variance_loss),
        ("out.loss", &losses.total),
    ];
    for (name, part) in parts {
        scalar(file, &mut report, name, f64::from(part.scalar()?))?;
    }
    statistics(file, &mut report, path, &predicted)?;
    problem.gradients(file, &mut report, &tape, &losses.total)?;
    Ok(report)
}

/// The losses of a batch, and their path.
struct Losses {
    path: ShallowPath,
    matching: Value,
    total: Value,
}

/// The inputs, with those that need gradients as parameters.
struct Problem {
    objective: ShallowFlowMatching,
    parameters: Parameters,
    /// `X_h` `[item, frame, bin]`, time and log variance `[item, 1]`.
    inputs: [ParameterId; 3],
    weights: [ParameterId; 2],
    rows: Ragged,
    bins: usize,
}

impl Problem {
    fn new(file: &GoldenFile) -> Result<Self> {
        let data = frames_first(file, "in.x1")?;
        let (items, frames, bins) = data.dims3()?;
        let rows = Ragged::padded(&lengths(file.floats("in.mask", 3)?, items, frames)?, frames)?;
        file.expect_only(&["v", "w"])?;
        file.expect_weight("w", &[bins, bins])?;
        file.expect_weight("v", &[bins])?;
        let (like_data, per_item) = ([items, bins, frames], [items, 1, 1]);
        let inputs = [("in.xp", &like_data), ("in.x0", &like_data), ("in.cond", &like_data)];
        for (name, shape) in inputs.into_iter().chain([("in.tp", &per_item), ("in.logsigma_p", &per_item)]) {
            file.shaped(name, shape)?;
        }
        file.shaped("in.spk", &[items, bins])?;
        file.shaped("in.t", &[items])?;
        file.shaped("in.cfg_keep", &[items])?;
        let mut parameters = Parameters::new();
        let per_item = |name: &str| -> Result<Tensor> { Ok(file.floats(name, 3)?.reshape((items, 1))?) };
        let inputs = [
            parameters.add("xp", frames_first(file, "in.xp")?)?,
            parameters.add("tp", per_item("in.tp")?)?,
            parameters.add("logsigma", per_item("in.logsigma_p")?)?,
        ];
        let weights = [
            parameters.add("w", file.floats("param.w", 2)?.clone())?,
            parameters.add("v", file.floats("param.v", 1)?.clone())?,
        ];
        parameters.to_device(file.device())?;
        let objective = ShallowFlowMatching { sigma_min: file.number(&["sigma_min"])? as f32 };
        Ok(Self { objective, parameters, inputs, weights, rows, bins })
    }

    fn predicted(&self, context: &Context) -> Result<ShallowPrediction> {
        let [mean, time, log_variance] = self.inputs.map(|id| context.parameter(id));
        Ok(ShallowPrediction { mean, time, log_variance })
    }

    /// Returns the starts of the items, with the roundings of the file if a start is only rounding; see [`rounding`].
    fn placements(&self, file: &GoldenFile) -> Result<Vec<Placement>> {
        let mean = self.parameters.tensor(self.inputs[0]);
        let own = self.objective.project(mean, &frames_first(file, "in.x1")?, &self.rows)?;
        let Some(expected) = file.find("out.grad_xp") else { return Ok(own) };
        rounding::fitted(&self.objective, own, |placements| self.item_errors(file, placements, expected))
    }

    /// Returns the largest error of the gradient of each item's prediction, with these starts.
    fn item_errors(&self, file: &GoldenFile, placements: Vec<Placement>, expected: &Tensor) -> Result<Vec<f64>> {
        let tape = Tape::new();
        let context = Context::training(&self.parameters, &tape, RngKey::new(0));
        let predicted = self.predicted(&context)?;
        let losses = self.losses(file, &context, &predicted, placements)?;
        let gradients = tape.backward(&losses.total)?;
        let missing = || ParityError::Missing("out.grad_xp".to_owned());
        let found = gradients.get(self.inputs[0]).ok_or_else(missing)?.transpose(1, 2)?.contiguous()?;
        same_shape("out.grad_xp", &found, expected)?;
        (0..self.rows.len()).map(|item| Ok(largest(&found.get(item)?, &expected.get(item)?)?.0)).collect()
    }

    /// Returns the path from the given starts, and its losses, with the velocity of the linear estimator there.
    fn losses(
        &self,
        file: &GoldenFile,
        context: &Context,
        predicted: &ShallowPrediction,
        placements: Vec<Placement>,
    ) -> Result<Losses> {
        let (data, noise) = (frames_first(file, "in.x1")?, frames_first(file, "in.x0")?);
        let schedule = schedule(file)?;
        let progress: Vec<f32> = file.floats("in.t", 1)?.to_vec1()?;
        let progress: Vec<f32> = progress.into_iter().map(|t| schedule.warp(t)).collect();
        let path = self.objective.path_from(placements, predicted, &data, &noise, &progress, &self.rows)?;
        let [w, v] = self.weights.map(|id| context.parameter(id));
        let items = self.rows.len();
        let times = Value::from_vec(path.times.clone(), &[items, 1])?.linear(&v.reshape(&[self.bins, 1])?, None)?;
        let keep = Tensor::new(file.floats("in.cfg_keep", 1)?.to_vec1::<f32>()?, data.device())?;
        let speaker = file.floats("in.spk", 2)?.broadcast_mul(&keep.reshape((items, 1))?)?;
        let prompt = (frames_first(file, "in.cond")?.broadcast_mul(&keep.reshape((items, 1, 1))?)? * 0.5)?;
        let estimated = path.position.linear(&w, None)?.add(&Value::plain(prompt)?)?;
        let estimated = estimated.add_items(&times.add(&Value::plain(speaker)?)?, &self.rows)?;
        let matching = path.matching_loss(&estimated, &self.rows)?;
        let total = matching.add(&path.mean_loss)?.add(&path.time_loss)?.add(&path.variance_loss)?;
        Ok(Losses { path, matching, total })
    }

    fn gradients(&self, file: &GoldenFile, report: &mut Report, tape: &Tape, total: &Value) -> Result<()> {
        let gradients = tape.backward(total)?;
        for (name, id) in ["out.grad_xp", "out.grad_tp", "out.grad_logsigma"].into_iter().zip(self.inputs) {
            let Some(expected) = file.find(name) else { continue };
            let Some(gradient) = gradients.get(id) else { continue };
            let found = match gradient.rank() {
                3 => gradient.transpose(1, 2)?.contiguous()?,
                _ => gradient.unsqueeze(2)?,
            };
            report.gradient(name, &found, expected)?;
        }
        report.gradients(file, &self.parameters, &gradients)
    }
}

/// Compares the means over items that the authors log.
fn statistics(file: &GoldenFile, report: &mut Report, path: &ShallowPath, predicted: &ShallowPrediction) -> Result<()> {
    let count = path.placements.len() as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / count;
    let elements = |value: &Value| -> Result<Vec<f64>> {
        Ok(value.tensor().flatten_all()?.to_vec1::<f32>()?.into_iter().map(f64::from).collect())
    };
    let (times, log_variances) = (elements(&predicted.time)?, elements(&predicted.log_variance)?);
    let found = [
        ("out.Delta", mean(&mut path.placements.iter().map(|placement| placement.delta))),
        ("out.th", mean(&mut path.placements.iter().map(|placement| placement.time))),
        ("out.sigma_h", mean(&mut path.placements.iter().map(|placement| placement.variance))),
        ("out.tp", mean(&mut times.into_iter())),
        ("out.sigma_p", mean(&mut log_variances.into_iter().map(f64::exp))),
    ];
    found.into_iter().try_for_each(|(name, found)| scalar(file, report, name, found))
}

fn scalar(file: &GoldenFile, report: &mut Report, name: &str, found: f64) -> Result<()> {
    let Some(expected) = file.find(name) else { return Ok(()) };
    let found = Tensor::new(found as f32, expected.device())?.reshape(vec![1; expected.rank()])?;
    report.output(name, &found, expected)
}

/// Returns a tensor `[item, bin, frame]` as `[item, frame, bin]`.
fn frames_first(file: &GoldenFile, name: &str) -> Result<Tensor> {
    Ok(file.floats(name, 3)?.transpose(1, 2)?.contiguous()?)
}

/// Returns the number of valid frames of each item, which are ones in a mask `[item, 1, frame]`.
fn lengths(mask: &Tensor, items: usize, frames: usize) -> Result<Vec<usize>> {
    let refuse = |found: String| ParityError::tensor("in.mask", found, "ones, then zeros, for each item");
    if mask.dims() != [items, 1, frames] {
        return Err(refuse(format!("{:?}", mask.dims())));
    }
    let mask = mask.reshape((items, frames))?.to_vec2::<f32>()?;
    let length = |(item, mask): (usize, &Vec<f32>)| {
        let length = mask.iter().take_while(|valid| **valid == 1.0).count();
        match mask[length..].iter().all(|valid| *valid == 0.0) && length > 0 {
            true => Ok(length),
            false => Err(refuse(format!("{mask:?} for item {item}"))),
        }
    };
    mask.iter().enumerate().map(length).collect()
}

fn schedule(file: &GoldenFile) -> Result<TimeSchedule> {
    let path = ["t_scheduler"];
    let Some(value) = file.value(&path) else { return Ok(TimeSchedule::Uniform) };
    TimeSchedule::deserialize(value).map_err(|error| ParityError::config(&path, format!("is {value}: {error}")))
}
