//! A model with everything that it makes images with: the diffusion model's autoencoder and its encoder of captions.

use std::path::PathBuf;

use flowmill_family::{BoxError, Loaded};
use flowmill_image::Raster;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Value, host};

use super::Pmg;
use super::config::{FrozenSettings, PmgModelConfig};
use super::frozen::Folders;
use super::network::{Example, Network};
use crate::stable_diffusion::Sampling;
use crate::stable_diffusion::files::{CaptionEncoder, DiffusionFiles, FrozenAutoencoder};
use crate::stable_diffusion::sampling::Diffusion;

/// Other places of the frozen networks than those that the model names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Places {
    /// The folder of the language model.
    pub llama: Option<PathBuf>,
    /// The folder or file of the diffusion model.
    pub stable_diffusion: Option<PathBuf>,
}

/// A model that is ready for use.
pub struct Imagination {
    /// The settings.
    pub config: PmgModelConfig,
    /// The network.
    pub network: Network,
    parameters: Parameters,
    autoencoder: FrozenAutoencoder,
    captions: Option<CaptionEncoder>,
}

impl Imagination {
    /// Opens the frozen networks of a model, and checks that they are those of its training.
    ///
    /// # Errors
    /// When a folder is missing or cannot be used, or has other weights.
    pub fn open(loaded: Loaded<Pmg>, places: &Places) -> Result<Self, BoxError> {
        let Loaded { config, model, mut parameters, folder, device, .. } = loaded;
        let FrozenSettings { llama_folder, diffusion_folder, checksum, .. } = config.frozen()?;
        let diffusion = places.stable_diffusion.clone().unwrap_or_else(|| folder.join(diffusion_folder));
        let llama = llama_folder.as_ref().map(|own| places.llama.clone().unwrap_or_else(|| folder.join(own)));
        for (option, place) in [("--stable-diffusion", Some(&diffusion)), ("--llama", llama.as_ref())] {
            if let Some(place) = place.filter(|place| !place.exists()) {
                let place = place.display();
                return Err(format!(
                    "{place} is not there, a frozen network of this model; name its place with {option}"
                )
                .into());
            }
        }
        let folders = Folders { llama, diffusion: DiffusionFiles::new(diffusion) };
        if folders.checksum()? != *checksum {
            let places = folders.llama.iter().map(PathBuf::as_path).chain([folders.diffusion.place()]);
            let places: Vec<String> = places.map(|place| place.display().to_string()).collect();
            return Err(format!(
                "{}: these are not the frozen networks that the soft prompts were trained with: their checksum differs",
                places.join(", ")
            )
            .into());
        }
        folders.map(&mut parameters)?;
        parameters.to_device(&device)?;
        let captions = folders.diffusion.captions(&device)?;
        let autoencoder = folders.diffusion.autoencoder(&device)?;
        Ok(Self { config, network: model, parameters, autoencoder, captions })
    }

    /// Returns a context of the weights.
    pub fn context(&self) -> Context<'_> {
        Context::inference(&self.parameters)
    }

    /// Returns the conditions of a description in words, `[1, token, channel]`: without words the prediction without conditions.
    ///
    /// # Errors
    /// When the diffusion model has no encoder of captions.
    pub fn caption(&self, caption: &str) -> Result<Value, BoxError> {
        let encoder = self.captions.as_ref();
        let encoder =
            encoder.ok_or("the diffusion model has no `text_encoder`, which guidance and negative prompts need")?;
        encoder.encode(caption)
    }

    /// Returns an image for each item of conditions `[item, row, channel]`; item `n` begins with the noise of `rng_keys[n]`.
    ///
    /// # Errors
    /// When the settings cannot be used, or a prediction is not finite.
    pub fn images(
        &self,
        conditions: &Value,
        negative: &str,
        sampling: &Sampling,
        rng_keys: &[RngKey],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Raster>, BoxError> {
        let context = self.context();
        let diffusion =
            Diffusion { unet: self.network.pmg.unet(), context: &context, schedule: self.network.pmg.schedule() };
        let without = match sampling.is_guided() {
            true => repeated(&self.caption(negative)?, rng_keys.len())?,
            false => conditions.clone(),
        };
        let size = [self.network.latent_size; 2];
        self.autoencoder.decode(&diffusion.sample(sampling, [conditions, &without], size, rng_keys, progress)?)
    }

    /// Returns the error of the predicted noise of a user's target under conditions `[1, row, channel]`.
    ///
    /// # Errors
    /// When the shapes do not fit.
    pub fn noise_error(
        &self,
        conditions: &Value,
        example: &Example,
        draws: usize,
        rng_key: &RngKey,
    ) -> Result<f64, BoxError> {
        let loss =
            self.network.noise_loss(&self.context(), conditions, (std::slice::from_ref(example), draws), rng_key)?;
        Ok(f64::from(loss.scalar()?))
    }
}

/// Returns conditions `[1, row, channel]` for several items.
pub fn repeated(conditions: &Value, items: usize) -> Result<Value, BoxError> {
    let elements = host::read(conditions.tensor())?;
    let shape = [&[items], &conditions.dims()[1..]].concat();
    Ok(Value::from_vec(elements.repeat(items), &shape)?)
}
