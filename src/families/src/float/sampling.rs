//! Sampling of the motion of whole clips.

use flowmill_networks::float::{Float as FloatNetwork, GuidanceOptions, MotionRequest, Result};
use flowmill_nn::Context;
use flowmill_nn::random::RngKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most steps of a window.
const MOST_STEPS: usize = 1000;

/// Settings of sampling.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Number of Euler's steps per window.
    ///
    /// Counterparts: FLOAT's `nfe`.
    pub nfe: usize,
    /// Strength of the speech; 1 for none beyond the condition itself.
    ///
    /// Counterparts: FLOAT's `a_cfg_scale`.
    pub audio_guidance: f32,
    /// Strength of the emotion; 1 for none beyond the condition itself.
    ///
    /// Counterparts: FLOAT's `e_cfg_scale`.
    pub emotion_guidance: f32,
    /// Factor of the noise that motion starts from. 1 samples from the model's distribution. With 0 the result is always the same and close
    /// to the mean of what the model holds for possible, with less motion.
    pub noise: f32,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { nfe: 10, audio_guidance: 2.0, emotion_guidance: 1.0, noise: 1.0 }
    }
}

impl Sampling {
    /// Checks the settings.
    ///
    /// # Errors
    /// Returns the first invalid key and the reason.
    pub fn check(&self) -> std::result::Result<(), (&'static str, String)> {
        if !(1..=MOST_STEPS).contains(&self.nfe) {
            return Err(("nfe", format!("{} is not within 1 to {MOST_STEPS}", self.nfe)));
        }
        for (key, value, most) in [
            ("audio_guidance", self.audio_guidance, 100.0),
            ("emotion_guidance", self.emotion_guidance, 100.0),
            ("noise", self.noise, 10.0),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err((key, format!("{value} is not between 0 and {most}")));
            }
        }
        Ok(())
    }

    /// Samples the motion `[frame, channel]` of clips. The noise of a clip depends on `rng_key` and its place among the requests.
    ///
    /// # Errors
    /// Returns an error for a request that does not match the model.
    pub fn sample(
        &self,
        network: &FloatNetwork,
        context: &Context<'_>,
        requests: &[MotionRequest],
        rng_key: &RngKey,
    ) -> Result<Vec<Vec<f32>>> {
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let options = GuidanceOptions { steps: self.nfe, audio: self.audio_guidance, emotion: self.emotion_guidance };
        let values = network.config().num_frames * network.config().dim_w;
        let noise = |item: usize, window: usize| {
            let mut noise = rng_key.purpose("float sample").sample(item as u64).step(window as u64).normals(values);
            noise.iter_mut().for_each(|value| *value *= self.noise);
            noise
        };
        network.sample_from(context, requests, &options, noise)
    }
}
