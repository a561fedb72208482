//! The noise of a diffusion at each of its steps, and the objective of training.

use crate::stable_diffusion::{DiffusionError, Result};
use flowmill_nn::Value;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Largest number of steps of a diffusion.
const MOST_STEPS: usize = 100_000;

/// The course of the noise variances over the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BetaSchedule {
    /// Variances at equal distances.
    Linear,
    /// Square roots at equal distances, as in latent diffusion.
    #[default]
    ScaledLinear,
}

/// The quantity that a network predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    #[default]
    Epsilon,
    /// The velocity `sqrt(alpha) noise - sqrt(1 - alpha) sample` (Salimans and Ho, arXiv 2202.00512).
    VPrediction,
}

/// Placement of the steps of sampling among those of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// Multiples of the distance, plus an offset.
    #[default]
    Leading,
    /// From the first to the last step, at equal distances.
    Linspace,
    /// From the last step down, at equal distances.
    Trailing,
}

/// Settings of a diffusion, under the names of the package diffusers (`scheduler_config.json`); the default is that of Stable
/// Diffusion 1.5. Other keys are ignored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleConfig {
    /// Number of steps in training.
    pub num_train_timesteps: usize,
    /// Variance of the noise of the first step.
    pub beta_start: f64,
    /// Variance of the noise of the last step.
    pub beta_end: f64,
    /// The course of the variances.
    pub beta_schedule: BetaSchedule,
    /// The quantity that the network predicts.
    pub prediction_type: Prediction,
    /// Number added to the steps of [`Spacing::Leading`].
    pub steps_offset: usize,
    /// True if the step before the first one has no noise at all. Otherwise it has that of the first one.
    pub set_alpha_to_one: bool,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            beta_start: 0.00085,
            beta_end: 0.012,
            beta_schedule: BetaSchedule::default(),
            prediction_type: Prediction::default(),
            steps_offset: 1,
            set_alpha_to_one: false,
        }
    }
}

/// The noise of a diffusion (Ho et al., arXiv 2006.11239).
#[derive(Debug, Clone)]
pub struct Schedule {
    config: ScheduleConfig,
    /// The share of the sample's variance that is left after each step.
    alphas: Vec<f64>,
}

impl Schedule {
    /// Computes the noise of each step, rounded to single precision like in the public implementation.
    ///
    /// # Errors
    /// [`DiffusionError::Schedule`] names the first setting that is out of range.
    pub fn new(config: &ScheduleConfig) -> Result<Self> {
        let refuse = |field, message: String| Err(DiffusionError::Schedule { field, message });
        let ScheduleConfig { num_train_timesteps: steps, beta_start, beta_end, .. } = *config;
        if !(2..=MOST_STEPS).contains(&steps) {
            return refuse("num_train_timesteps", format!("{steps} is not between 2 and {MOST_STEPS}"));
        }
        for (field, beta) in [("beta_start", beta_start), ("beta_end", beta_end)] {
            if !(beta > 0.0 && beta < 1.0) {
                return refuse(field, format!("{beta} is not between 0 and 1"));
            }
        }
        if config.steps_offset >= steps {
            return refuse("steps_offset", format!("{} is beyond {steps} steps", config.steps_offset));
        }
        let beta = |at: f32| match config.beta_schedule {
            BetaSchedule::Linear => at,
            BetaSchedule::ScaledLinear => at * at,
        };
        let [start, end] = [beta_start, beta_end].map(|beta| match config.beta_schedule {
            BetaSchedule::Linear => beta as f32,
            BetaSchedule::ScaledLinear => beta.sqrt() as f32,
        });
        let mut left = 1.0;
        let alpha = |at: f32| {
            left *= f64::from(1.0 - beta(at));
            f64::from(left as f32)
        };
        let alphas = equally_spaced(start, end, steps).into_iter().map(alpha).collect();
        Ok(Self { config: config.clone(), alphas })
    }

    /// Returns the settings.
    pub fn config(&self) -> &ScheduleConfig {
        &self.config
    }

    /// Returns the share of the sample's variance that is left after each step.
    pub fn alphas(&self) -> &[f64] {
        &self.alphas
    }

    /// Returns that share before the steps, after a step, or before the first one for a negative number.
    pub(super) fn alpha(&self, step: i64) -> f64 {
        match usize::try_from(step) {
            Ok(step) => self.alphas[step.min(self.alphas.len() - 1)],
            Err(_) if self.config.set_alpha_to_one => 1.0,
            Err(_) => self.alphas[0],
        }
    }

    /// Returns the noise level of each step, relative to the sample.
    pub(super) fn sigmas(&self) -> Vec<f64> {
        self.alphas.iter().map(|alpha| ((1.0 - alpha) / alpha).sqrt()).collect()
    }

    /// Returns the factors of sample and noise after the given step of each item.
    fn factors(&self, steps: &[u32]) -> Result<[Value; 2]> {
        let alpha = |step: &u32| {
            let message = || format!("step {step} of a diffusion of {}", self.alphas.len());
            let outside = || DiffusionError::Schedule { field: "timesteps", message: message() };
            self.alphas.get(*step as usize).copied().ok_or_else(outside)
        };
        let alphas = steps.iter().map(alpha).collect::<Result<Vec<f64>>>()?;
        let column = |factors: Vec<f32>| Value::from_vec(factors, &[steps.len(), 1]);
        Ok([
            column(alphas.iter().map(|alpha| alpha.sqrt() as f32).collect())?,
            column(alphas.iter().map(|alpha| (1.0 - alpha).sqrt() as f32).collect())?,
        ])
    }

    /// Returns the samples of a batch with the noise of the given step of each item: the input of the network in training.
    ///
    /// # Errors
    /// When the shapes do not fit or a step does not exist.
    pub fn add_noise(&self, samples: &Value, noise: &Value, steps: &[u32]) -> Result<Value> {
        let [of_sample, of_noise] = self.factors(steps)?;
        Ok(scaled(samples, &of_sample)?.add(&scaled(noise, &of_noise)?)?)
    }

    /// Returns the quantity that the network learns to predict.
    ///
    /// # Errors
    /// Those of [`add_noise`](Self::add_noise).
    pub fn target(&self, samples: &Value, noise: &Value, steps: &[u32]) -> Result<Value> {
        match self.config.prediction_type {
            Prediction::Epsilon => Ok(noise.clone()),
            Prediction::VPrediction => {
                let [of_sample, of_noise] = self.factors(steps)?;
                Ok(scaled(noise, &of_sample)?.subtract(&scaled(samples, &of_noise)?)?)
            }
        }
    }
}

/// Multiplies the elements of each item by the item's factor, `[item, 1]`.
fn scaled(samples: &Value, factors: &Value) -> flowmill_nn::Result<Value> {
    let items = factors.rows();
    let count = samples.tensor().elem_count();
    if samples.dims().first() != Some(&items) || items == 0 {
        return Err(flowmill_nn::NnError::shape("noise", format!("{items} items"), samples.dims()));
    }
    let rows = flowmill_nn::Ragged::packed(&vec![count / items; items]);
    samples.reshape(&[count, 1])?.scale_items(factors, &rows)?.reshape(samples.dims())
}

/// Numbers at equal distances from the first to the last, in the arithmetic of PyTorch.
pub(super) fn equally_spaced(first: f32, last: f32, count: usize) -> Vec<f32> {
    if count == 1 {
        return vec![first];
    }
    let step = (last - first) / (count.max(2) - 1) as f32;
    let number = |index: usize| match index < count / 2 {
        true => first + step * index as f32,
        false => last - step * (count - 1 - index) as f32,
    };
    (0..count).map(number).collect()
}
