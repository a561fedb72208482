//! Cross entropy of rows of logits with target classes.

use crate::device::wide;
use crate::gradients::{Flow, Gradient};
use crate::kernels::cross_entropy;
use crate::ops::operation::{Operation, apply, composed};
use crate::tape::record;
use crate::{NnError, Result, Value, host};
use candle_core::Tensor;
use rayon::prelude::*;
use std::cmp::Ordering;

/// The place of a target among the logits of its row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetScore {
    /// Cross entropy of the row, in nats.
    pub loss: f32,
    /// Number of classes that score higher than the target: 0 if the target is the most probable class.
    pub rank: usize,
}

impl Value {
    /// The sum over rows `[row, class]` of `weight * -log softmax(row)[target]`, a scalar.
    ///
    /// # Errors
    /// When the numbers of rows differ, or a target is not a class.
    pub fn cross_entropy(&self, targets: &[u32], weights: &[f32]) -> Result<Value> {
        self.weighted(targets, weights, None)
    }

    /// Returns [`cross_entropy`](Self::cross_entropy) and [`target_scores`](Self::target_scores), in one pass over the logits on the CPU.
    ///
    /// # Errors
    /// Those of the two.
    pub fn scored_cross_entropy(&self, targets: &[u32], weights: &[f32]) -> Result<(Value, Vec<TargetScore>)> {
        if composed(&[self]) {
            return Ok((self.cross_entropy(targets, weights)?, self.target_scores(targets)?));
        }
        let width = check(self, targets)?;
        let logits = host::slice("cross entropy", self.tensor())?;
        let log_sums = cross_entropy::log_sums(&logits, width);
        let scores = scores(&logits, width, targets, &log_sums);
        drop(logits);
        Ok((self.weighted(targets, weights, Some(log_sums))?, scores))
    }

    fn weighted(&self, targets: &[u32], weights: &[f32], log_sums: Option<Vec<f32>>) -> Result<Value> {
        check(self, targets)?;
        if weights.len() != targets.len() {
            return Err(NnError::shape("cross entropy", format!("{} weights", targets.len()), &[weights.len()]));
        }
        apply(CrossEntropy { targets: targets.to_vec(), weights: weights.to_vec(), log_sums }, &[self])
    }

    /// The cross entropy of each row `[row, class]` and the rank of its target. Nothing is recorded; logits on a device are copied to
    /// the host.
    ///
    /// # Errors
    /// When the numbers of rows differ, or a target is not a class.
    pub fn target_scores(&self, targets: &[u32]) -> Result<Vec<TargetScore>> {
        let width = check(self, targets)?;
        let logits = host::fetch(self.tensor())?;
        let logits = host::slice("target scores", &logits)?;
        Ok(scores(&logits, width, targets, &cross_entropy::log_sums(&logits, width)))
    }
}

/// Returns the scores of the targets among rows of `width` logits.
fn scores(logits: &[f32], width: usize, targets: &[u32], log_sums: &[f32]) -> Vec<TargetScore> {
    let rows = logits.par_chunks_exact(width).zip(targets).zip(log_sums);
    let score = |((row, target), log_sum): ((&[f32], &u32), &f32)| {
        let target = *target as usize;
        let own = row[target];
        // Among equal classes the first leads, as in `largest`; what cannot be compared counts against the target.
        let before = row[..target].iter().filter(|x| x.partial_cmp(&&own) != Some(Ordering::Less)).count();
        let after = row[target + 1..].iter().filter(|x| !x.partial_cmp(&&own).is_some_and(Ordering::is_le)).count();
        TargetScore { loss: log_sum - own, rank: before + after }
    };
    rows.map(score).collect()
}

/// Checks logits and targets; returns the number of classes.
fn check(logits: &Value, targets: &[u32]) -> Result<usize> {
    let &[rows, width] = logits.dims() else {
        return Err(NnError::shape("cross entropy", "[row, class]", logits.dims()));
    };
    if rows != targets.len() {
        return Err(NnError::shape("cross entropy", format!("{rows} targets"), &[targets.len()]));
    }
    if let Some(target) = targets.iter().find(|target| **target as usize >= width) {
        return Err(NnError::Index { operation: "cross entropy", index: i64::from(*target), size: width });
    }
    Ok(width)
}

/// The weighted sum of cross entropies.
struct CrossEntropy {
    targets: Vec<u32>,
    weights: Vec<f32>,
    /// The logarithms of the sums of the exponentials of each row, if the kernel has computed them before.
    log_sums: Option<Vec<f32>>,
}

impl Operation for CrossEntropy {
    const IN_SINGLE_PRECISION: bool = true;

    /// The softmax, minus 1 at the targets, times the weights.
    type Saved = Tensor;

    fn forward(&self, inputs: &[Tensor]) -> Result<(Tensor, Tensor)> {
        let logits = wide(&inputs[0])?;
        let (rows, width) = logits.dims2()?;
        let (device, dtype) = (logits.device(), logits.dtype());
        if rows == 0 {
            return Ok((Tensor::zeros((), dtype, device)?, logits));
        }
        let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?)?;
        let exponentials = shifted.exp()?;
        let sums = exponentials.sum_keepdim(1)?;
        let targets = Tensor::from_slice(&self.targets, (rows, 1), device)?;
        let weights = Tensor::from_slice(&self.weights, (rows, 1), device)?.to_dtype(dtype)?;
        let losses = ((sums.log()? - shifted.gather(&targets, 1)?)? * &weights)?;
        let classes = Tensor::arange(0u32, width as u32, device)?.reshape((1, width))?;
        let hits = classes.broadcast_eq(&targets)?.to_dtype(dtype)?;
        let slope = (exponentials.broadcast_div(&sums)? - hits)?.broadcast_mul(&weights)?;
        Ok((losses.sum_all()?, slope))
    }

    fn backward(self, slope: Tensor, gradient: &Tensor, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(slope.broadcast_mul(&gradient.to_dtype(slope.dtype())?)?)])
    }

    fn fused(self, inputs: &[&Value]) -> Result<Value> {
        let (input, width) = (inputs[0], inputs[0].width());
        let Self { targets, weights, log_sums } = self;
        let logits = host::slice("cross entropy", input.tensor())?;
        let log_sums = log_sums.unwrap_or_else(|| cross_entropy::log_sums(&logits, width));
        let rows = log_sums.iter().zip(&targets).zip(&weights).enumerate();
        let loss = |(row, ((log_sum, target), weight)): (usize, ((&f32, &u32), &f32))| {
            f64::from(*weight) * (f64::from(*log_sum) - f64::from(logits[row * width + *target as usize]))
        };
        let output = host::tensor(vec![rows.map(loss).sum::<f64>() as f32], &[])?;
        drop(logits);
        Ok(record(output, inputs, || {
            let input = input.tensor().clone();
            move |gradient: Gradient, flow: &mut Flow<'_>| {
                let upstream = host::slice("cross entropy", gradient.tensor())?[0];
                let weights: Vec<f32> = weights.iter().map(|weight| weight * upstream).collect();
                let logits = host::slice("cross entropy", &input)?;
                flow.give_vec(0, cross_entropy::backward(&logits, width, &log_sums, &targets, &weights), input.dims())
            }
        }))
    }
}
