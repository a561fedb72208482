//! The use of a model on a caption.

use flowmill_family::{BoxError, Input, Loaded, Made, Output, Request, Synthesis, Synthesizer};
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::network::Network;
use super::{Sampling, StableDiffusion};
use crate::image_sheet::image;

/// Options of using a model; null means the model's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SynthOptions {
    /// Number of steps.
    pub steps: Option<usize>,
    /// Strength of the caption.
    pub guidance: Option<f32>,
}

/// A model that makes images from captions.
pub struct ImageSynthesizer {
    network: Network,
    parameters: Parameters,
    sampling: Sampling,
    rng_key: RngKey,
}

impl ImageSynthesizer {
    /// Opens a model.
    ///
    /// # Errors
    /// Returns an error if an option cannot be used.
    pub fn new(loaded: Loaded<StableDiffusion>, options: SynthOptions, seed: u64) -> Result<Self, BoxError> {
        let Loaded { description, model, parameters, .. } = loaded;
        let sampling = description.sampling.changed(None, options.steps, options.guidance)?;
        Ok(Self { network: model, parameters, sampling, rng_key: RngKey::new(seed).purpose("images") })
    }
}

impl Synthesizer for ImageSynthesizer {
    fn run(&self, request: &Request) -> Result<Synthesis, BoxError> {
        let [Input::Text(caption)] = request.inputs.as_slice() else {
            return Err("this model makes images from captions".into());
        };
        let context = Context::inference(&self.parameters);
        let images = self.network.sample(&context, &[caption], &self.sampling, &self.rng_key)?;
        let output = Output::Images(images.iter().map(image).collect());
        let made = Made { name: request.name.clone(), title: caption.clone(), output, real: None };
        Ok(Synthesis { made, figures: vec![format!("{} steps", self.sampling.steps)] })
    }
}
