//! The arithmetic of single steps.

use super::schedule::{Prediction, Schedule, Spacing, equally_spaced};
use crate::stable_diffusion::{DiffusionError, Result};

/// Returns the steps of training at which sampling in `count` steps calls the network, from the noisiest on.
pub(super) fn placed(schedule: &Schedule, count: usize, spacing: Spacing) -> Result<Vec<f32>> {
    let total = schedule.alphas().len();
    let offset = schedule.config().steps_offset;
    let steps: Vec<f32> = match spacing {
        Spacing::Leading => {
            let distance = total / count;
            (0..count).rev().map(|index| (index * distance + offset) as f32).collect()
        }
        // A single one is the first step of training.
        Spacing::Linspace => equally_spaced(0.0, (total - 1) as f32, count).into_iter().rev().collect(),
        Spacing::Trailing => {
            let distance = total as f64 / count as f64;
            let step = |index: usize| (total as f64 - index as f64 * distance).round_ties_even() - 1.0;
            (0..count).map(|index| step(index) as f32).collect()
        }
    };
    if let Some(step) = steps.iter().find(|step| **step > (total - 1) as f32) {
        let message = format!("{count} steps with an offset of {offset} reach {step} of {total}");
        return Err(DiffusionError::Schedule { field: "num_inference_steps", message });
    }
    Ok(steps)
}

/// Returns the noise levels at steps, interpolated between those of whole steps, and 0 at the end.
pub(super) fn sigmas(schedule: &Schedule, steps: &[f32]) -> Vec<f64> {
    let all = schedule.sigmas();
    let at = |step: &f32| {
        let (below, share) = (step.floor() as usize, f64::from(step.fract()));
        let low = all[below.min(all.len() - 1)];
        low + share * (all[(below + 1).min(all.len() - 1)] - low)
    };
    steps.iter().map(at).chain([0.0]).collect()
}

/// A step as a sum: the factors of sample, output of the network, and noise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    sample: f64,
    output: f64,
    noise: f64,
}

impl Terms {
    /// The step of DDIM between two steps of training.
    pub(super) fn ddim(schedule: &Schedule, step: i64, next: i64) -> Self {
        let (alpha, to) = (schedule.alpha(step), schedule.alpha(next));
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        // The clean sample and the noise, each as factors of sample and output.
        let (clean, direction) = match schedule.config().prediction_type {
            Prediction::Epsilon => ([1.0 / signal, -noise / signal], [0.0, 1.0]),
            Prediction::VPrediction => ([signal, -noise], [noise, signal]),
        };
        let of = |part: usize| to.sqrt() * clean[part] + (1.0 - to).sqrt() * direction[part];
        Self { sample: of(0), output: of(1), noise: 0.0 }
    }

    /// The step of DDPM between two steps of training.
    pub(super) fn ddpm(schedule: &Schedule, step: i64, next: i64) -> Self {
        let alpha = schedule.alpha(step);
        let to = if next < 0 { 1.0 } else { schedule.alpha(next) };
        let kept = alpha / to;
        let (signal, noise) = (alpha.sqrt(), (1.0 - alpha).sqrt());
        let clean = match schedule.config().prediction_type {
            Prediction::Epsilon => [1.0 / signal, -noise / signal],
            Prediction::VPrediction => [signal, -noise],
        };
        let of_clean = to.sqrt() * (1.0 - kept) / (1.0 - alpha);
        let of_sample = kept.sqrt() * (1.0 - to) / (1.0 - alpha);
        let variance = ((1.0 - to) / (1.0 - alpha) * (1.0 - kept)).max(1e-20);
        Self { sample: of_sample + of_clean * clean[0], output: of_clean * clean[1], noise: variance.sqrt() }
    }

    /// The step of Euler's method between two noise levels.
    pub(super) fn euler(schedule: &Schedule, sigma: f64, next: f64) -> Self {
        let square = sigma * sigma + 1.0;
        // The clean sample, as factors of sample and output.
        let clean = match schedule.config().prediction_type {
            Prediction::Epsilon => [1.0, -sigma],
            Prediction::VPrediction => [1.0 / square, -sigma / square.sqrt()],
        };
        let step = (next - sigma) / sigma;
        Self { sample: 1.0 + step * (1.0 - clean[0]), output: -step * clean[1], noise: 0.0 }
    }

    /// The transfer of a sample along the noise between two steps of training (PNDM, equation 9).
    fn transfer(schedule: &Schedule, step: i64, next: i64) -> Self {
        let (alpha, to) = (schedule.alpha(step), schedule.alpha(next));
        let rest = 1.0 - alpha;
        let divisor = alpha * (1.0 - to).sqrt() + (alpha * rest * to).sqrt();
        let of_noise = -(to - alpha) / divisor;
        let of_sample = (to / alpha).sqrt();
        match schedule.config().prediction_type {
            Prediction::Epsilon => Self { sample: of_sample, output: of_noise, noise: 0.0 },
            Prediction::VPrediction => {
                Self { sample: of_sample + of_noise * rest.sqrt(), output: of_noise * alpha.sqrt(), noise: 0.0 }
            }
        }
    }

    /// Changes the sample.
    pub(super) fn apply(self, sample: &mut [f32], output: &[f32], noise: Option<&[f32]>) {
        for (index, (sample, output)) in sample.iter_mut().zip(output).enumerate() {
            let drawn = noise.map_or(0.0, |noise| f64::from(noise[index]));
            let sum = self.sample * f64::from(*sample) + self.output * f64::from(*output) + self.noise * drawn;
            *sample = sum as f32;
        }
    }
}

/// The memory of the multistep method.
#[derive(Debug, Clone, Default)]
pub(super) struct Multistep {
    /// The last outputs of the network, newest first.
    outputs: Vec<Vec<f32>>,
    /// The sample before the first step, until the second call.
    first: Option<Vec<f32>>,
    calls: usize,
}

/// Weights of the last outputs, newest first, by their number (Adams-Bashforth).
const WEIGHTS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

impl Multistep {
    /// Takes the step `[from, to]`. The second call improves the first step: it repeats it with the mean of both outputs.
    pub(super) fn advance(
        &mut self,
        schedule: &Schedule,
        sample: &mut [f32],
        output: &[f32],
        [from, to]: [i64; 2],
        distance: i64,
    ) {
        let improves = self.calls == 1;
        if self.calls == 0 {
            self.first = Some(sample.to_vec());
        }
        self.calls += 1;
        if improves {
            let first = self.first.take().unwrap_or_default();
            let before = self.outputs.first().map_or(output, Vec::as_slice);
            let mean: Vec<f32> = output.iter().zip(before).map(|(a, b)| (a + b) / 2.0).collect();
            sample.copy_from_slice(&first);
            Terms::transfer(schedule, from + distance, from).apply(sample, &mean, None);
            return;
        }
        self.outputs.insert(0, output.to_vec());
        self.outputs.truncate(WEIGHTS.len());
        let weights = WEIGHTS[self.outputs.len() - 1];
        let combined = |index: usize| {
            let terms = self.outputs.iter().zip(weights);
            terms.map(|(output, weight)| weight * f64::from(output[index])).sum::<f64>() as f32
        };
        let combined: Vec<f32> = (0..output.len()).map(combined).collect();
        Terms::transfer(schedule, from, to).apply(sample, &combined, None);
    }
}
