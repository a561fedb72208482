//! The recipe's `export` section.

use flowmill_nn::solvers::{Method, Solver, Tolerances};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of stage 6, `export`: how the model is written, sampled and scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportConfig {
    /// The split that is sampled and scored; without it the validation split, or without that the training split.
    pub split: Option<String>,
    /// Samples of each utterance, at least 2; their mean estimates the conditional mean mel.
    pub samples: usize,
    /// Utterances to sample, in the order of the split; 0 is all of them.
    pub max_utterances: usize,
    /// Solver of the flow's differential equation. Its evaluations of the velocity are counted. `synth` takes it over
    /// unless its options say otherwise.
    pub solver: Method,
    /// Steps of `euler`.
    pub n_timesteps: usize,
    /// Accuracy of `dopri5`, and when it gives up.
    pub tolerances: Tolerances,
    /// Strength alpha of a shallow flow; without it that of the model. Other families have none.
    pub sfm_strength: Option<f32>,
    /// Strength r of classifier-free guidance: (1 + r) conditional - r unconditional.
    pub inference_cfg_rate: f64,
    /// Writes the weights as `flow.pt` too, the state dict that public inference code loads. Code that does not know
    /// `normalise_mel: true`, `gaussian_skip` or `direct_mel_kernel` needs a model trained without them; the model
    /// card says so.
    pub write_pt: bool,
    /// Merges adapters (`train.lora`) into the exported weights. The adapters are written next to the weights in the
    /// format of PEFT in either case.
    ///
    /// Counterparts: PEFT's `merge_and_unload`.
    pub merge_adapters: bool,
    /// Iterations of the vocoder (fast Griffin-Lim).
    pub vocoder_iterations: usize,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self {
            split: None,
            samples: 8,
            max_utterances: 0,
            solver: Method::Euler,
            n_timesteps: 10,
            tolerances: Tolerances::default(),
            sfm_strength: None,
            inference_cfg_rate: 0.7,
            write_pt: true,
            merge_adapters: true,
            vocoder_iterations: 60,
        }
    }
}

impl ExportConfig {
    /// What cannot work, as the field and what would be right.
    ///
    /// # Errors
    /// The first field that cannot be used.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let at_least = |field, value: usize, least: usize| {
            if value >= least { Ok(()) } else { Err((field, format!("is {value}; it must be at least {least}"))) }
        };
        at_least("samples", self.samples, 2)?;
        at_least("n_timesteps", self.n_timesteps, 1)?;
        at_least("vocoder_iterations", self.vocoder_iterations, 1)?;
        self.tolerances.check().map_err(|error| ("tolerances", error.to_string()))?;
        if self.sfm_strength.is_some_and(|strength| !(strength > 0.0 && strength <= 100.0)) {
            return Err(("sfm_strength", "must lie above 0, up to 100".to_owned()));
        }
        if !self.inference_cfg_rate.is_finite() || self.inference_cfg_rate < 0.0 {
            return Err(("inference_cfg_rate", format!("is {}; it must be 0 or more", self.inference_cfg_rate)));
        }
        Ok(())
    }

    /// The solver that the settings describe.
    pub fn solver(&self) -> Solver {
        Solver { method: self.solver, steps: self.n_timesteps, tolerances: self.tolerances }
    }
}
