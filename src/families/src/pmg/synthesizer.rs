//! The use of a model on the history of a user.

use std::path::PathBuf;
use std::time::Instant;

use flowmill_family::{BoxError, Input, Loaded, Made, Output, Request, Synthesis, Synthesizer};
use flowmill_networks::stable_diffusion::sampling::Method;
use flowmill_nn::random::RngKey;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Pmg;
use super::imagination::{Imagination, Places, repeated};
use super::network::Example;
use super::prompt::PromptReader;
use super::rows::User;
use crate::image_sheet::image;
use crate::stable_diffusion::Sampling;

/// Most images of a user.
const MOST_IMAGES: usize = 64;

/// Options of `flowmill imagine`; null means the model's own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SynthOptions {
    /// Number of steps.
    pub steps: Option<usize>,
    /// Strength of the taste.
    pub guidance: Option<f32>,
    /// The method of sampling.
    pub sampler: Option<Method>,
    /// A description of what the images should not be.
    pub negative: Option<String>,
    /// Number of images.
    pub images: Option<usize>,
    /// The folder of the language model, if it is not where it was at the training.
    pub llama: Option<PathBuf>,
    /// The folder of the diffusion model, if it is not where it was at the training.
    pub stable_diffusion: Option<PathBuf>,
}

/// A model that makes images to the taste of users.
pub struct ImageSynthesizer {
    imagination: Imagination,
    prompts: PromptReader,
    sampling: Sampling,
    negative: String,
    images: usize,
    rng_key: RngKey,
}

impl ImageSynthesizer {
    /// Opens a model.
    ///
    /// # Errors
    /// Returns an error if its folder or a frozen network is incomplete, or an option cannot be used.
    pub fn new(loaded: Loaded<Pmg>, options: SynthOptions, seed: u64) -> Result<Self, BoxError> {
        let own = loaded.description.sampling.clone();
        let sampling = own.images.changed(options.sampler, options.steps, options.guidance)?;
        let images = options.images.unwrap_or(1);
        if !(1..=MOST_IMAGES).contains(&images) {
            return Err(format!("images: {images} is not between 1 and {MOST_IMAGES}").into());
        }
        let prompts = PromptReader::open(&loaded.folder)?;
        let places = Places { llama: options.llama, stable_diffusion: options.stable_diffusion };
        Ok(Self {
            imagination: Imagination::open(loaded, &places)?,
            prompts,
            sampling,
            negative: options.negative.unwrap_or(own.negative_prompt),
            images,
            rng_key: RngKey::new(seed).purpose("imagine"),
        })
    }

    fn imagine(&self, user: &Value, name: &str, progress: &mut dyn FnMut(usize, usize)) -> Result<Synthesis, BoxError> {
        let tokens = self.prompts.tokens(&captions(user)?)?;
        let started = Instant::now();
        let example = Example { user: User { tokens, mean: Vec::new(), deviation: Vec::new() }, sample: 0 };
        let context = self.imagination.context();
        let conditions = self.imagination.network.conditions(&context, &[example])?;
        let keys: Vec<RngKey> = (0..self.images as u64).map(|number| self.rng_key.sample(number)).collect();
        let conditions = repeated(&conditions, keys.len())?;
        let made = self.imagination.images(&conditions, &self.negative, &self.sampling, &keys, progress)?;
        let output = Output::Images(made.iter().map(image).collect());
        let seconds = started.elapsed().as_secs_f64();
        let figures =
            vec![format!("{} images", made.len()), format!("{} steps", self.sampling.steps), format!("{seconds:.1} s")];
        Ok(Synthesis { made: Made { name: name.to_owned(), title: name.to_owned(), output, real: None }, figures })
    }
}

/// Returns the captions of a user's history.
///
/// # Errors
/// When there are none.
fn captions(user: &Value) -> Result<Vec<String>, BoxError> {
    let items = user.get("history_items_info").and_then(Value::as_array).filter(|items| !items.is_empty());
    let items = items.ok_or("the user has no `history_items_info` with items")?;
    let caption = |(number, item): (usize, &Value)| {
        let caption = item.get("caption").and_then(Value::as_str).map(str::trim).filter(|caption| !caption.is_empty());
        let missing = || format!("item {number} of the user's history has no `caption`");
        Ok(caption.ok_or_else(missing)?.to_owned())
    };
    items.iter().enumerate().map(caption).collect()
}

impl Synthesizer for ImageSynthesizer {
    fn run(&self, request: &Request) -> Result<Synthesis, BoxError> {
        self.run_observed(request, &mut |_, _| {})
    }

    fn run_observed(&self, request: &Request, progress: &mut dyn FnMut(usize, usize)) -> Result<Synthesis, BoxError> {
        match request.inputs.as_slice() {
            [Input::Text(user)] => {
                let user = serde_json::from_str(user).map_err(|error| format!("this is no user: {error}"))?;
                self.imagine(&user, &request.name, progress)
            }
            _ => Err("this model makes images to the taste of a user: use `flowmill imagine --user USER.json`".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_of_the_history_are_required() {
        let user = |items: Value| serde_json::json!({ "history_items_info": items });
        assert_eq!(captions(&user(serde_json::json!([{ "caption": " a cat " }]))).unwrap(), ["a cat"]);
        for items in
            [serde_json::json!([]), serde_json::json!([{ "caption": "" }]), serde_json::json!([{}]), Value::Null]
        {
            assert!(captions(&user(items)).is_err());
        }
    }
}
