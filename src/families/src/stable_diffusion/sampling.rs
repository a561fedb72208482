//! Sampling: latents from noise, under conditions and guidance.

use flowmill_family::BoxError;
use flowmill_networks::stable_diffusion::UNet;
use flowmill_networks::stable_diffusion::sampling::{Method, Sampler, Schedule, guided};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Value, host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most steps of sampling.
const MOST_STEPS: usize = 1000;

/// Settings of sampling.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// The method: `ddim`, `pndm`, `ddpm` or `euler`.
    pub method: Method,
    /// Number of steps.
    pub steps: usize,
    /// Strength of the conditions; 1 takes them as they are, more moves away from the prediction without them.
    pub guidance: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { method: Method::Ddim, steps: 50, guidance: 6.0 }
    }
}

impl Sampling {
    /// Checks the settings.
    ///
    /// # Errors
    /// The name of the wrong one, and the reason.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(1..=MOST_STEPS).contains(&self.steps) {
            return Err(("steps", format!("{} is not between 1 and {MOST_STEPS}", self.steps)));
        }
        if !self.guidance.is_finite() {
            return Err(("guidance", "not a number".to_owned()));
        }
        Ok(())
    }

    /// Returns the settings with those that are given in the place of its own.
    ///
    /// # Errors
    /// The setting that cannot be used.
    pub fn changed(
        self,
        method: Option<Method>,
        steps: Option<usize>,
        guidance: Option<f32>,
    ) -> Result<Self, BoxError> {
        let changed = Self {
            method: method.unwrap_or(self.method),
            steps: steps.unwrap_or(self.steps),
            guidance: guidance.unwrap_or(self.guidance),
        };
        changed.check().map_err(|(key, reason)| format!("{key}: {reason}"))?;
        Ok(changed)
    }

    /// Returns whether sampling needs the prediction without conditions.
    pub fn is_guided(&self) -> bool {
        self.guidance != 1.0
    }
}

/// A diffusion model that latents are sampled from.
pub struct Diffusion<'a> {
    /// The network.
    pub unet: &'a UNet,
    /// The weights of the network.
    pub context: &'a Context<'a>,
    /// The noise schedule of the training.
    pub schedule: &'a Schedule,
}

impl Diffusion<'_> {
    /// Returns sampled latents `[item, height, width, channel]`, times the scaling factor. `with` are the conditions
    /// `[item, row, channel]`, `without` those that guidance moves away from, also of each item. The noise of item `n` is that of
    /// `rng_keys[n]`; `progress` gets the number of finished calls and of all calls.
    ///
    /// # Errors
    /// When the shapes do not fit, the settings cannot be used, or a prediction is not finite.
    pub fn sample(
        &self,
        sampling: &Sampling,
        [with, without]: [&Value; 2],
        [height, width]: [usize; 2],
        rng_keys: &[RngKey],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Value, BoxError> {
        let shape = [rng_keys.len(), height, width, self.unet.config().in_channels];
        let size = shape[1..].iter().product();
        let mut sampler = Sampler::new(self.schedule, sampling.method, sampling.steps, sampling.method.spacing())?;
        let normals = |purpose: &str, step: u64| -> Vec<f32> {
            rng_keys.iter().flat_map(|key| key.purpose(purpose).step(step).normals(size)).collect()
        };
        let first = sampler.first_deviation();
        let mut latents: Vec<f32> = normals("latents", 0).into_iter().map(|x| x * first).collect();
        let calls = sampler.steps().len();
        let mut done = 0;
        while let Some(step) = sampler.next_step() {
            let factor = sampler.input_factor();
            let input = Value::from_vec(latents.iter().map(|x| x * factor).collect(), &shape)?;
            let predict = |conditions: &Value| -> Result<Vec<f32>, BoxError> {
                let steps = vec![step; rng_keys.len()];
                Ok(host::read(self.unet.forward(self.context, &input, &steps, conditions)?.tensor())?)
            };
            let mut output = predict(with)?;
            if sampling.is_guided() {
                output = guided(&output, &predict(without)?, sampling.guidance);
            }
            if output.iter().any(|x| !x.is_finite()) {
                return Err(format!("the prediction of step {step} has a value that is not finite").into());
            }
            let noise = sampler.needs_noise().then(|| normals("step", done as u64 + 1));
            sampler.advance(&mut latents, &output, noise.as_deref())?;
            done += 1;
            progress(done, calls);
        }
        Ok(Value::from_vec(latents, &shape)?)
    }
}
