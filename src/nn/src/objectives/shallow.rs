//! Shallow flow matching (arXiv 2505.12226): the flow starts from a coarse prediction on the path from noise to data
//! instead of from noise.
//!
//! A head predicts `X_h`, a time `t_h` and a log variance. The position of `X_h` on the path is found by projecting it on the data: `t`
//! is the share of the data in it, `sigma^2` the variance of the rest. The path runs from `X_s = a X_0 + X_h` at `t` to
//! `X_1 + sigma_min X_0` at 1.

use crate::tape::in_single_precision;
use crate::{NnError, Ragged, Result, Value, host};
use candle_core::Tensor;

/// Keeps the projection on silent frames and the logarithm of a zero variance finite; the authors' constant.
const EPSILON: f64 = 1e-8;
/// Lower bound on the remaining share of the path, which velocities are divided by.
const SHORTEST: f64 = 1e-6;

/// The objective and the start of inference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShallowFlowMatching {
    /// Deviation that remains at the end of the path.
    pub sigma_min: f32,
}

impl Default for ShallowFlowMatching {
    fn default() -> Self {
        Self { sigma_min: 1e-6 }
    }
}

/// Prediction of the head for a batch.
#[derive(Debug, Clone)]
pub struct ShallowPrediction {
    /// `X_h`, shaped like the data.
    pub mean: Value,
    /// `t_h` in (0, 1), `[item, 1]`.
    pub time: Value,
    /// The logarithm of `sigma_h^2`, `[item, 1]`.
    pub log_variance: Value,
}

/// Start of an item's path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// The time `t` of the start.
    pub time: f64,
    /// The variance `sigma^2` of the prediction there.
    pub variance: f64,
    /// Factor on `X_h`: the strength over Delta.
    pub scale: f64,
    /// Factor on the noise.
    pub noise: f64,
    /// Divisor (1 or more) of time and deviation that puts the start on the path.
    pub delta: f64,
}

impl Placement {
    /// The remaining share of the path, `1 - t`.
    pub fn rest(&self) -> f64 {
        (1.0 - self.time).max(SHORTEST)
    }

    /// The time of the point that is `progress` (0 to 1) of the way from the start to the data.
    pub fn time_at(&self, progress: f32) -> f32 {
        (f64::from(progress) * (1.0 - self.time) + self.time) as f32
    }
}

/// A point of each item's path, and the losses that do not need the estimator.
#[derive(Debug, Clone)]
pub struct ShallowPath {
    /// Start of each item's path.
    pub placements: Vec<Placement>,
    /// The point, shaped like the data.
    pub position: Value,
    /// The target velocity of the estimator at the point, shaped like the data. It depends on `X_h`.
    pub velocity: Value,
    /// The time that the estimator receives for each item.
    pub times: Vec<f32>,
    /// Mean over valid elements of `(X_h - t X_1)^2`.
    pub mean_loss: Value,
    /// Mean over items of `(t_h - t)^2`.
    pub time_loss: Value,
    /// Mean over items of `(log sigma_h^2 - log sigma^2)^2`.
    pub variance_loss: Value,
}

impl ShallowPath {
    /// The flow matching loss: mean over valid elements of the squared error of the estimated velocity. Its derivative flows
    /// into the estimate and into `X_h`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn matching_loss(&self, estimated: &Value, rows: &Ragged) -> Result<Value> {
        let zero = Value::plain(estimated.tensor().zeros_like()?)?;
        let error = in_single_precision(&[estimated], || estimated.subtract(&self.velocity))?;
        error.mean_square_error(&zero, rows)
    }
}

impl ShallowFlowMatching {
    /// Returns the start of a prediction of the given time and variance, `strength` (alpha) times as far along: 1 in training.
    ///
    /// Computed in single precision and in the authors' order: if Delta exceeds 1, the noise is the root of a difference that should be 0
    /// and consists of rounding errors, and only the same rounding gives the same function.
    pub fn place(&self, time: f32, variance: f32, strength: f32) -> Placement {
        let kept = (1.0 - f64::from(self.sigma_min)) as f32;
        let delta = (strength * (variance.sqrt() + kept * time)).max(1.0);
        let (time, variance) = (strength * time / delta, strength * strength * variance / (delta * delta));
        let rest = 1.0 - kept * time;
        let noise = (rest * rest - variance).max(0.0).sqrt();
        let doubles = [time, variance, strength / delta, noise, delta].map(f64::from);
        let [time, variance, scale, noise, delta] = doubles;
        Placement { time, variance, scale, noise, delta }
    }

    /// Places each item's prediction by its orthogonal projection on the data. No derivative flows through it.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn project(&self, mean: &Tensor, data: &Tensor, rows: &Ragged) -> Result<Vec<Placement>> {
        check(mean.dims(), data.dims(), rows)?;
        let width = data.dims().last().copied().unwrap_or(1);
        let (mean, data) = (host::fetch(mean)?, host::fetch(data)?);
        let (x, data) = (host::slice("projection", &mean)?, host::slice("projection", &data)?);
        let placements = rows.ranges().iter().map(|rows| {
            let elements = rows.start * width..rows.end * width;
            let (time, variance) = projection(&x[elements.clone()], &data[elements], width);
            self.place(time as f32, variance as f32, 1.0)
        });
        Ok(placements.collect())
    }

    /// The point of each item's path at `progress` (uniform draws, warped by the schedule: 0 is the start of the path, 1 the
    /// data) and all targets and losses there. Data and noise are `[row, channel]` or `[item, time, channel]`; rows of no
    /// item are left out of all sums.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn path(
        &self,
        predicted: &ShallowPrediction,
        data: &Tensor,
        noise: &Tensor,
        progress: &[f32],
        rows: &Ragged,
    ) -> Result<ShallowPath> {
        let placements = self.project(predicted.mean.tensor(), data, rows)?;
        self.path_from(placements, predicted, data, noise, progress, rows)
    }

    /// Like [`path`](Self::path), from given starts.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn path_from(
        &self,
        placements: Vec<Placement>,
        predicted: &ShallowPrediction,
        data: &Tensor,
        noise: &Tensor,
        progress: &[f32],
        rows: &Ragged,
    ) -> Result<ShallowPath> {
        // Velocities are divided by the rest of the path, which may be so short that they exceed the range of narrower formats.
        in_single_precision(&[&predicted.mean], || {
            self.path_in_single_precision(placements, predicted, data, noise, progress, rows)
        })
    }

    fn path_in_single_precision(
        &self,
        placements: Vec<Placement>,
        predicted: &ShallowPrediction,
        data: &Tensor,
        noise: &Tensor,
        progress: &[f32],
        rows: &Ragged,
    ) -> Result<ShallowPath> {
        check(noise.dims(), data.dims(), rows)?;
        if progress.len() != rows.len() || placements.len() != rows.len() {
            let expected = format!("[{}] times and starts", rows.len());
            return Err(NnError::shape("shallow flow matching", expected, &[progress.len(), placements.len()]));
        }
        let width = data.dims().last().copied().unwrap_or(1);
        let per_item = |factor: &dyn Fn(usize) -> f64| {
            let factors = (0..rows.len()).flat_map(|item| std::iter::repeat_n(factor(item) as f32, width));
            Value::from_vec(factors.collect(), &[rows.len(), width])
        };
        // For each item: noise times the first factor plus data times the second.
        let mixed = |factors: &dyn Fn(usize) -> (f64, f64)| mix(noise, data, factors, rows);

        let mean = predicted.mean.scale_items(&per_item(&|item| placements[item].scale)?, rows)?;
        let target = mixed(&|item| (0.0, placements[item].time))?;
        let start = mean.add(&mixed(&|item| (placements[item].noise, 0.0))?)?;
        let end = |weight: f64| (weight * f64::from(self.sigma_min), weight);
        let position = start
            .scale_items(&per_item(&|item| 1.0 - f64::from(progress[item]))?, rows)?
            .add(&mixed(&|item| end(f64::from(progress[item])))?)?;
        let velocity = start
            .scale_items(&per_item(&|item| -1.0 / placements[item].rest())?, rows)?
            .add(&mixed(&|item| end(1.0 / placements[item].rest()))?)?;
        let time_loss = item_loss(&predicted.time, &placements, |placement| placement.time)?;
        let variance_loss =
            item_loss(&predicted.log_variance, &placements, |placement| (placement.variance + EPSILON).ln())?;
        let times = placements.iter().zip(progress).map(|(placement, progress)| placement.time_at(*progress)).collect();
        let mean_loss = mean.mean_square_error(&target, rows)?;
        Ok(ShallowPath { placements, position, velocity, times, mean_loss, time_loss, variance_loss })
    }
}

fn check(found: &[usize], data: &[usize], rows: &Ragged) -> Result<()> {
    let width = data.last().copied().unwrap_or(1);
    let count: usize = data.iter().product();
    if found == data && rows.total() * width == count {
        return Ok(());
    }
    Err(NnError::shape("shallow flow matching", format!("{data:?} in {} rows", rows.total()), found))
}

/// Time and variance of an item's prediction: the mean over frames of the share of the data in it, and the mean square of the
/// rest.
fn projection(x: &[f32], data: &[f32], width: usize) -> (f64, f64) {
    let frames = (x.len() / width.max(1)).max(1) as f64;
    let share = |(x, data): (&[f32], &[f32])| {
        let (mut product, mut square) = (0.0, EPSILON);
        for (x, data) in x.iter().zip(data) {
            product += f64::from(*x) * f64::from(*data);
            square += f64::from(*data) * f64::from(*data);
        }
        product / square
    };
    let of_frames = x.chunks_exact(width.max(1)).zip(data.chunks_exact(width.max(1)));
    let time = of_frames.map(share).sum::<f64>() / frames;
    let rest = x.iter().zip(data).map(|(x, data)| (f64::from(*x) - time * f64::from(*data)).powi(2));
    (time, rest.sum::<f64>() / (frames * width.max(1) as f64))
}

/// The mean over items of the squared error of one number per item.
fn item_loss(found: &Value, placements: &[Placement], target: impl Fn(&Placement) -> f64) -> Result<Value> {
    let targets = placements.iter().map(|placement| target(placement) as f32).collect();
    let targets = Value::from_vec(targets, &[placements.len(), 1])?;
    found.mean_square_error(&targets, &Ragged::packed(&[placements.len()]))
}

/// The sum of noise and data of each item, each multiplied by its factor; zero on rows of no item.
fn mix(noise: &Tensor, data: &Tensor, factors: &dyn Fn(usize) -> (f64, f64), rows: &Ragged) -> Result<Value> {
    let width = data.dims().last().copied().unwrap_or(1);
    let shape = data.dims();
    let (noise, data) = (host::slice("shallow path", noise)?, host::slice("shallow path", data)?);
    let mut mixed = vec![0.0; data.len()];
    for (item, rows) in rows.ranges().iter().enumerate() {
        let elements = rows.start * width..rows.end * width;
        let (on_noise, on_data) = factors(item);
        let pairs = noise[elements.clone()].iter().zip(&data[elements.clone()]);
        for (mixed, (noise, data)) in mixed[elements].iter_mut().zip(pairs) {
            *mixed = (on_noise * f64::from(*noise) + on_data * f64::from(*data)) as f32;
        }
    }
    Value::from_vec(mixed, shape)
}
