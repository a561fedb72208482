//! Prodigy: AdamW that estimates its own learning rate.

use std::collections::BTreeMap;

use candle_core::Tensor;
use flowmill_nn::{Gradients, NnError, Parameters, host};
use rayon::prelude::*;

use super::change::{Change, Changes};
use super::composition::{Tensors, Updated, mix, wide};
use super::rule::StateArray;
use super::slot::{Arrays, Figures, Slot, Slots, take};
use super::{OptimConfig, Optimizer, Update};
use crate::TrainError;

/// Number of values summed as one unit. It is fixed, and sums are joined in order, so the estimate does not depend on the thread count.
const CHUNK: usize = 1 << 14;
/// The estimate's name in the stored state.
const ESTIMATE: &str = "estimate";
/// Names of the optimizer's arrays of a parameter, in the order of [`Slot`]'s state.
const ARRAYS: [&str; 4] = ["exp_avg", "exp_avg_sq", "s", "p0"];

/// Prodigy (Mishchenko and Defazio, arXiv 2306.06101) by the formula of the package `prodigyopt`: with d the estimate, k the number of
/// the update from 0, g the scaled gradient and w₀ the weights at the start,
///
/// ```text
/// r = rate · d, with bias correction times √(1 - β2^(k+1)) / (1 - β1^(k+1))
/// n ← β3 n + d r / d0 · Σ g (w₀ - w)
/// m ← β1 m + (1 - β1) d g;  v ← β2 v + (1 - β2) (d g)²;  s ← β3 s + d r / d0 · g
/// d̂ = d_coef n / Σ |s|;  d ← min(greatest d̂ so far, growth_rate d)
/// w ← w (1 - r decay) - r m / (√v + d ε), all with the r from above and the new d
/// ```
///
/// The sums run over all parameters; `lr_multiple` of a group scales its updates only, not its contribution to the estimate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prodigy {
    /// Decay of the running mean of gradients and of their squares.
    pub betas: [f64; 2],
    /// Decay of the sums in the estimate; by default the root of the second beta.
    pub beta3: Option<f64>,
    /// Added to the root of the mean square, times the estimate.
    pub eps: f64,
    /// Initial estimate.
    pub d0: f64,
    /// Factor on the estimate: larger for a bolder one.
    pub d_coef: f64,
    /// Largest factor by which the estimate may grow in one update.
    pub growth_rate: f64,
    /// Corrects for moments that start at zero.
    pub bias_correction: bool,
    /// Keeps the rate out of the estimate's denominator, for schedules with warm-up.
    pub safeguard_warmup: bool,
}

/// The estimate of the learning rate. Single precision, like in the stored state: a resumed run continues with the same bits.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Estimate {
    d: f32,
    greatest: f32,
    numerator: f32,
}

/// Prodigy over a model's parameters.
#[derive(Debug)]
pub(super) struct ProdigyOptimizer {
    rule: Prodigy,
    slots: Slots,
    estimate: Estimate,
    updates: u64,
}

/// The scalars of one update.
#[derive(Clone, Copy)]
struct Scalars {
    update: Update,
    d: f64,
    /// d r / d0.
    weight: f64,
    /// Weight of the gradient in s.
    share: f64,
}

impl ProdigyOptimizer {
    /// Creates the optimizer over the trainable parameters, which it remembers as the start.
    pub(super) fn new(rule: Prodigy, config: &OptimConfig, parameters: &Parameters) -> Result<Self, TrainError> {
        let state = |dims: &[usize], _| ARRAYS.map(|kind| StateArray::new(kind, dims)).to_vec();
        let mut slots = Slots::new(config, parameters, state)?;
        slots.start(parameters)?;
        let d = rule.d0 as f32;
        Ok(Self { rule, slots, estimate: Estimate { d, greatest: d, numerator: 0.0 }, updates: 0 })
    }

    /// r: the learning rate of this update without the groups' multiples.
    fn rate(&self, update: Update) -> f64 {
        let correction = if self.rule.bias_correction {
            let [beta1, beta2] = self.rule.betas;
            let number = (self.updates + 1).min(i32::MAX as u64) as i32;
            (1.0 - beta2.powi(number)).sqrt() / (1.0 - beta1.powi(number))
        } else {
            1.0
        };
        f64::from(self.estimate.d) * update.rate * correction
    }
}

impl Prodigy {
    fn beta3(&self) -> f64 {
        self.beta3.unwrap_or_else(|| self.betas[1].sqrt())
    }

    /// Updates a parameter's moments with the gradient; returns its contributions to the sums of numerator and denominator.
    fn gather(&self, scalars: Scalars, arrays: Arrays<'_>) -> Figures {
        let Arrays { weights, gradient, mut state } = arrays;
        let [mean, square, sums, start] = state.as_mut_slice() else { return [0.0; 2] };
        let [beta1, beta2] = self.betas.map(|beta| beta as f32);
        let d = scalars.d;
        let mean_weight = (d * (1.0 - self.betas[0])) as f32;
        let square_weight = (d * d * (1.0 - self.betas[1])) as f32;
        let (beta3, share) = (self.beta3() as f32, scalars.share as f32);
        let moments = mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK)).zip(sums.par_chunks_mut(CHUNK));
        let given = weights.par_chunks(CHUNK).zip(start.par_chunks(CHUNK)).zip(gradient.par_chunks(CHUNK));
        let chunks = moments.zip(given).map(|(((mean, square), sums), ((weights, start), gradient))| {
            let mut totals = [0f64; 2];
            let moments = mean.iter_mut().zip(square).zip(sums);
            let given = weights.iter().zip(start.iter()).zip(gradient);
            for (((mean, square), sum), ((weight, start), gradient)) in moments.zip(given) {
                let gradient = scalars.update.gradient(*gradient);
                totals[0] += f64::from(gradient) * f64::from(start - weight);
                *mean = *mean * beta1 + mean_weight * gradient;
                *square = *square * beta2 + square_weight * (gradient * gradient);
                *sum = *sum * beta3 + share * gradient;
                totals[1] += f64::from(sum.abs());
            }
            totals
        });
        let chunks: Vec<[f64; 2]> = chunks.collect();
        chunks.iter().fold([0.0; 2], |sum, chunk| [sum[0] + chunk[0], sum[1] + chunk[1]])
    }

    /// The composition of [`gather`](Self::gather).
    fn compose_gather(&self, scalars: Scalars, tensors: &Tensors) -> Result<Updated, NnError> {
        let [mean, square, sums, start] = tensors.state.as_slice() else { return Ok(Updated::unchanged(tensors)) };
        let ([beta1, beta2], d) = (self.betas, scalars.d);
        let gradient = scalars.update.tensor(&tensors.gradient)?;
        let product = wide(&gradient)?.mul(&wide(&start.sub(&tensors.weights)?)?)?.sum_all()?;
        let mean = mix(beta1, mean, d * (1.0 - beta1), &gradient)?;
        let square = mix(beta2, square, d * d * (1.0 - beta2), &gradient.sqr()?)?;
        let sums = mix(self.beta3(), sums, scalars.share, &gradient)?;
        let figures = Some([product, wide(&sums)?.abs()?.sum_all()?]);
        Ok(Updated { weights: tensors.weights.clone(), state: vec![mean, square, sums, start.clone()], figures })
    }

    /// Moves a parameter; `rate` is r, `d` the new estimate.
    fn change(&self, rate: f64, d: f32, slot: &Slot, arrays: Arrays<'_>) {
        let Arrays { weights, mut state, .. } = arrays;
        let [mean, square, ..] = state.as_mut_slice() else { return };
        let rate = rate * slot.settings.lr_multiple;
        let (keep, step) = ((1.0 - rate * slot.settings.weight_decay) as f32, rate as f32);
        let floor = (f64::from(d) * self.eps) as f32;
        let chunks = weights.par_chunks_mut(CHUNK).zip(mean.par_chunks(CHUNK)).zip(square.par_chunks(CHUNK));
        chunks.for_each(|((weights, mean), square)| {
            for ((weight, mean), square) in weights.iter_mut().zip(mean).zip(square) {
                *weight = *weight * keep - step * mean / (square.sqrt() + floor);
            }
        });
    }

    /// The composition of [`change`](Self::change).
    fn compose_change(&self, rate: f64, d: f32, slot: &Slot, tensors: &Tensors) -> Result<Updated, NnError> {
        let [mean, square, ..] = tensors.state.as_slice() else { return Ok(Updated::unchanged(tensors)) };
        let rate = rate * slot.settings.lr_multiple;
        let change = mean.div(&square.sqrt()?.affine(1.0, f64::from(d) * self.eps)?)?;
        let weights = mix(1.0 - rate * slot.settings.weight_decay, &tensors.weights, -rate, &change)?;
        Ok(Updated::new(weights, tensors.state.clone()))
    }
}

impl Estimate {
    /// Updates the estimate from the sums of an update.
    fn learn(&mut self, rule: &Prodigy, numerator: f64, denominator: f64, moves: bool) {
        self.numerator = numerator as f32;
        if !moves {
            return;
        }
        let proposed = (rule.d_coef * numerator / denominator) as f32;
        if self.d == rule.d0 as f32 {
            self.d = self.d.max(proposed);
        }
        self.greatest = self.greatest.max(proposed);
        self.d = self.greatest.min((f64::from(self.d) * rule.growth_rate) as f32);
    }
}

impl Optimizer for ProdigyOptimizer {
    fn step(
        &mut self,
        parameters: &mut Parameters,
        gradients: &Gradients,
        update: Update,
    ) -> Result<Changes, TrainError> {
        let (d, rate) = (f64::from(self.estimate.d), self.rate(update));
        let weight = d / self.rule.d0 * rate;
        let share = if self.rule.safeguard_warmup { d / self.rule.d0 * d } else { weight };
        let scalars = Scalars { update, d, weight, share };
        let rule = self.rule;
        let sums = self.slots.visit(
            parameters,
            gradients,
            |_, arrays| rule.gather(scalars, arrays),
            |_, tensors| rule.compose_gather(scalars, tensors),
        )?;
        let [products, denominator] =
            sums.iter().fold([0.0; 2], |sum, (_, share)| [sum[0] + share[0], sum[1] + share[1]]);
        // Without any gradient so far there is nothing to estimate from, and nothing to do.
        if denominator == 0.0 {
            return Ok(Changes::default());
        }
        let numerator = f64::from(self.estimate.numerator) * rule.beta3() + scalars.weight * products;
        self.estimate.learn(&self.rule, numerator, denominator, update.rate > 0.0);
        let d = self.estimate.d;
        let changes = self.slots.visit(
            parameters,
            gradients,
            |slot, arrays| Change::measured(update.measure, arrays, |arrays| rule.change(rate, d, slot, arrays)),
            |slot, tensors| rule.compose_change(rate, d, slot, tensors)?.measured(update.measure, &tensors.weights),
        )?;
        self.updates += 1;
        Ok(Changes::of(update, changes))
    }

    fn updates(&self) -> u64 {
        self.updates
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        let Estimate { d, greatest, numerator } = self.estimate;
        // Three elements of three: the shape always fits.
        let estimate = host::tensor(vec![d, greatest, numerator], &[3]);
        estimate.map(|tensor| (ESTIMATE.to_owned(), tensor)).into_iter().chain(self.slots.state()).collect()
    }

    fn restore(&mut self, updates: u64, stored: &mut BTreeMap<String, Tensor>) -> Result<(), String> {
        let estimate = take(stored, ESTIMATE, &[3])?;
        let elements = host::slice(ESTIMATE, &estimate).map_err(|error| error.to_string())?;
        let &[d, greatest, numerator] = &elements[..] else { return Err(format!("{ESTIMATE} is damaged")) };
        self.slots.restore(stored)?;
        self.estimate = Estimate { d, greatest, numerator };
        self.updates = updates;
        Ok(())
    }
}
