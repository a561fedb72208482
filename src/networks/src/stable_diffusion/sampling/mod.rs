//! Sampling: the noise is removed step by step, by one of the methods of the package diffusers with its default settings.

mod guidance;
mod schedule;
mod steps;

pub use guidance::guided;
pub use schedule::{BetaSchedule, Prediction, Schedule, ScheduleConfig, Spacing};

use super::{DiffusionError, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use steps::{Multistep, Terms};

/// A method of sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Deterministic steps along the predicted noise (DDIM with eta 0; Song et al., arXiv 2010.02502).
    #[default]
    Ddim,
    /// Steps with fresh noise, of the smaller of the two variances (DDPM; Ho et al., arXiv 2006.11239).
    Ddpm,
    /// Pseudo linear multistep method (PNDM without its Runge-Kutta steps; Liu et al., arXiv 2202.09778).
    Pndm,
    /// Euler steps over noise levels (Karras et al., arXiv 2206.00364, without churn).
    Euler,
}

impl Method {
    /// Returns the placement of the steps by default.
    pub fn spacing(self) -> Spacing {
        match self {
            Self::Euler => Spacing::Linspace,
            _ => Spacing::Leading,
        }
    }
}

/// A run of a method: its steps, and what it remembers from step to step.
#[derive(Debug, Clone)]
pub struct Sampler {
    schedule: Schedule,
    method: Method,
    /// Number of steps that were asked for.
    count: usize,
    /// The step of training at which each call of the network takes place, in order.
    steps: Vec<f32>,
    /// The noise level before each step and after the last one, for [`Method::Euler`].
    sigmas: Vec<f64>,
    spacing: Spacing,
    multistep: Multistep,
    /// Number of finished steps.
    done: usize,
}

impl Sampler {
    /// Prepares sampling in `count` steps.
    ///
    /// # Errors
    /// [`DiffusionError::Schedule`] if there are no steps, or more than in training.
    pub fn new(schedule: &Schedule, method: Method, count: usize, spacing: Spacing) -> Result<Self> {
        let total = schedule.alphas().len();
        if count == 0 || count > total {
            let message = format!("{count} steps of a diffusion of {total}");
            return Err(DiffusionError::Schedule { field: "num_inference_steps", message });
        }
        let mut steps = steps::placed(schedule, count, spacing)?;
        if method != Method::Euler {
            steps.iter_mut().for_each(|step| *step = step.round_ties_even());
        }
        if method == Method::Pndm && steps.len() > 1 {
            // The second step is called twice, to improve the first one.
            steps.insert(1, steps[1]);
        }
        let sigmas = if method == Method::Euler { steps::sigmas(schedule, &steps) } else { Vec::new() };
        let schedule = schedule.clone();
        Ok(Self { schedule, method, count, steps, sigmas, spacing, multistep: Multistep::default(), done: 0 })
    }

    /// Returns the step of training at which each call of the network takes place, in order.
    pub fn steps(&self) -> &[f32] {
        &self.steps
    }

    /// Returns the noise levels of the steps, for [`Method::Euler`].
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// Returns the factor of standard normal noise that sampling begins with.
    pub fn first_deviation(&self) -> f32 {
        let largest = self.sigmas.iter().copied().fold(0.0, f64::max);
        match (self.method, self.spacing) {
            (Method::Euler, Spacing::Leading) => (largest * largest + 1.0).sqrt() as f32,
            (Method::Euler, _) => largest as f32,
            _ => 1.0,
        }
    }

    /// Returns the factor of the sample that the network reads at the next step.
    pub fn input_factor(&self) -> f32 {
        match self.sigmas.get(self.done) {
            Some(sigma) => (1.0 / (sigma * sigma + 1.0).sqrt()) as f32,
            None => 1.0,
        }
    }

    /// Returns the step of training of the next call of the network; `None` at the end.
    pub fn next_step(&self) -> Option<f32> {
        self.steps.get(self.done).copied()
    }

    /// Returns whether the next step adds fresh noise.
    pub fn needs_noise(&self) -> bool {
        self.method == Method::Ddpm && self.next_step().is_some_and(|step| step > 0.0)
    }

    /// Takes the next step: changes the sample, given the output of the network and, if it [is needed](Self::needs_noise), standard
    /// normal noise of the same size.
    ///
    /// # Errors
    /// [`DiffusionError::Schedule`] if there is no further step, or the sizes differ.
    pub fn advance(&mut self, sample: &mut [f32], output: &[f32], noise: Option<&[f32]>) -> Result<()> {
        let refuse = |field, message: &str| Err(DiffusionError::Schedule { field, message: message.to_owned() });
        let Some(step) = self.next_step() else { return refuse("step", "sampling has ended") };
        if output.len() != sample.len() || noise.is_some_and(|noise| noise.len() != sample.len()) {
            return refuse("sample", "sample, prediction and noise have different sizes");
        }
        if self.needs_noise() && noise.is_none() {
            return refuse("noise", "this step adds noise");
        }
        let distance = (self.schedule.alphas().len() / self.count) as i64;
        let number = step as i64;
        match self.method {
            Method::Ddim => {
                let terms = Terms::ddim(&self.schedule, number, number - distance);
                terms.apply(sample, output, None);
            }
            Method::Ddpm => {
                let terms = Terms::ddpm(&self.schedule, number, number - distance);
                terms.apply(sample, output, noise.filter(|_| number > 0));
            }
            Method::Pndm => {
                self.multistep.advance(&self.schedule, sample, output, [number, number - distance], distance)
            }
            Method::Euler => {
                let (sigma, next) = (self.sigmas[self.done], self.sigmas[self.done + 1]);
                Terms::euler(&self.schedule, sigma, next).apply(sample, output, None);
            }
        }
        self.done += 1;
        Ok(())
    }
}
