//! The recipe's `export` section.

use flowmill_nn::solvers::{Method, Solver, Tolerances};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the exported model is sampled and scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportConfig {
    /// The held-out split that samples and scores come from; null: the one that is validated on, or without any the one that is trained
    /// on.
    pub split: Option<String>,
    /// Samples drawn per utterance; their mean estimates the conditional mean mel. At least 2.
    pub samples: usize,
    /// Utterances to sample, in the split's order; 0 for all.
    pub max_utterances: usize,
    /// How the flow's ODE is solved: on fixed steps (`euler`) or with adaptive ones (`dopri5`).
    pub solver: Method,
    /// Euler's steps.
    pub n_timesteps: usize,
    /// How exact `dopri5` is, and when it gives up.
    pub tolerances: Tolerances,
    /// Strength alpha of a shallow flow; null: the model's own. Other models have none.
    pub sfm_strength: Option<f32>,
    /// Strength r of classifier-free guidance: (1 + r) conditional − r unconditional.
    pub inference_cfg_rate: f64,
    /// Whether the weights are written as `flow.pt` too, the state dict that public inference code loads.
    pub write_pt: bool,
    /// Whether adapters (`train.lora`) are merged into the exported weights; otherwise these are what the adapters were trained beside.
    /// In both cases the adapters lie beside them as PEFT reads them.
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
