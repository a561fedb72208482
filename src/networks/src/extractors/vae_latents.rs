//! The `vae-latents` extractor: the distribution of the latents of an image, by the autoencoder of Stable Diffusion.
//!
//! The mean and the deviation of each latent are kept, so that drawing a latent stays a random choice of training. They are not yet
//! multiplied by the scaling factor.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::Device;
use flowmill_corpus::{Array, ColumnSpec, DType, Role};
use flowmill_extract::extractors::pixels::{ImageFilter, ImageResize, ImageTransform};
use flowmill_extract::{
    Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Kind, Media, State, StateError, Weights,
    required_weights,
};
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, NnError, Parameters, Value, host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::mapped;
use crate::pretrained::{self, Role as Network};
use crate::single_file::{Part, map_part};
use crate::stable_diffusion::{Autoencoder, AutoencoderConfig, DiffusionError};

/// The extractor's kind.
pub const KIND: &str = "vae-latents";

/// The column of means, `[row, column, channel]`.
pub const LATENT_MEAN: &str = "latent_mean";

/// The column of standard deviations, `[row, column, channel]`.
pub const LATENT_DEVIATION: &str = "latent_deviation";

/// The settings of a network in its folder.
const CONFIG: &str = "config.json";
/// The parts of the autoencoder that encode.
const ENCODER: [&str; 2] = ["vae.encoder.", "vae.quant_conv."];

/// Settings of the `vae-latents` extractor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VaeLatentsConfig {
    /// The folder of Stable Diffusion in the form of diffusers, or its folder `vae`, or a single `.safetensors` file of Stable Diffusion 1.x or
    /// its autoencoder (with the settings of a `config.json` next to it, if there is one), relative to the folder of the recipe; or `random`, to try a run without any. Required.
    ///
    /// Counterparts: PMG's `model.stable_diffusion`.
    pub weights: Option<Weights>,
    /// Pixels along each axis of an image.
    ///
    /// Counterparts: PMG's `pmg.image_size`.
    pub size: usize,
    /// The way in which an image becomes a square: `squash` resizes both axes, `center-crop` the shorter one and cuts out the middle.
    pub resize: ImageResize,
    /// The filter, `bicubic` or `bilinear`.
    pub filter: ImageFilter,
}

impl Default for VaeLatentsConfig {
    fn default() -> Self {
        let ImageTransform { size, resize, filter } = ImageTransform::default();
        Self { weights: None, size, resize, filter }
    }
}

impl VaeLatentsConfig {
    fn is_random(&self) -> bool {
        self.weights == Some(Weights::Random)
    }

    fn image(&self) -> ImageTransform {
        ImageTransform { size: self.size, resize: self.resize, filter: self.filter }
    }

    /// Returns the folder of the autoencoder below `root`, the recipe's folder.
    fn folder(&self, root: &Path) -> PathBuf {
        let given = mapped::place(self.weights.as_ref(), root);
        let inside = given.join("vae");
        if inside.is_dir() { inside } else { given }
    }

    /// Reads or draws the weights of the encoder as a state.
    fn load(&self, seed: u64, root: &Path) -> Result<State, StateError> {
        let folder = self.folder(root);
        let fail = |problem: &dyn std::fmt::Display| mapped::unusable(&folder, problem);
        let network = match self.is_random() {
            true => AutoencoderConfig { block_out_channels: vec![8; 4], norm_num_groups: 4, ..Default::default() },
            // Single files have no settings, unless they lie next to them; the default are those of Stable Diffusion.
            false if folder.is_file() => {
                let read =
                    beside(&folder).map_or_else(|| Ok(Default::default()), |own| pretrained::autoencoder_config(&own));
                read.map_err(|error| fail(&error))?
            }
            false => pretrained::autoencoder_config(&folder).map_err(|error| fail(&error))?,
        };
        check_size(&network, &self.image()).map_err(|problem| fail(&problem))?;
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(seed).purpose(KIND));
        let builder = if self.is_random() { builder.scope("vae") } else { builder.scope("vae").without_values() };
        Autoencoder::new(builder, &network).map_err(|error| fail(&error))?;
        match (self.is_random(), folder.is_file()) {
            (true, _) => Ok(()),
            (_, true) => {
                let levels = network.block_out_channels.len();
                map_part(&folder, Part::Autoencoder { levels }, &mut parameters)
            }
            _ => pretrained::map_weights(&folder, Network::Autoencoder, &mut parameters),
        }
        .map_err(|error| fail(&error))?;
        let mut state = State::new(KIND, json!({ "image": self.image(), "autoencoder": network }));
        mapped::store(&mut state, &parameters, encodes).map_err(|error| fail(&error))?;
        Ok(state)
    }
}

/// Returns the folder with the settings of an autoencoder in a single file: its own one, or `vae` in it.
fn beside(file: &Path) -> Option<PathBuf> {
    ["vae", ""].map(|folder| file.with_file_name(folder)).into_iter().find(|folder| folder.join(CONFIG).exists())
}

/// Returns whether a parameter belongs to the encoder.
fn encodes(name: &str) -> bool {
    ENCODER.iter().any(|prefix| name.starts_with(prefix))
}

/// Checks that images of this size can be encoded.
fn check_size(network: &AutoencoderConfig, image: &ImageTransform) -> Result<(), String> {
    network.check().map_err(|error| error.to_string())?;
    if network.in_channels != 3 {
        return Err(format!("the autoencoder reads {} channels, images have 3", network.in_channels));
    }
    match image.size.is_multiple_of(network.factor()) {
        true => Ok(()),
        false => Err(format!("size: {} is no multiple of {}, the pixels per latent", image.size, network.factor())),
    }
}

/// The columns.
fn columns() -> Vec<Column> {
    let latents = |name: &str, docs: &str| {
        ColumnSpec::new(name, DType::F32).axis("row").axis("column").axis("channel").docs(docs).into()
    };
    vec![latents(LATENT_MEAN, "means of the latents"), latents(LATENT_DEVIATION, "standard deviations of the latents")]
}

impl Kind for VaeLatentsConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str =
        "The latents of the first image of a row, as means and deviations, by the autoencoder of Stable Diffusion.";
    const PATHS: &'static [&'static str] = &["weights"];
    const WORDS: &'static [&'static str] = &["random"];
    const MEDIA: &'static [Role] = &[Role::Images];
    const NETWORK: bool = true;

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(VaeLatents::from_state(state, device)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        required_weights("weights", self.weights.as_ref(), "the folder of Stable Diffusion or its folder `vae`")?;
        self.image().check()
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let (config, root) = (self.clone(), root.to_owned());
        Ok(mapped::fit(KIND, self.weights.as_ref(), move || config.load(seed, &root)))
    }

    fn other_files(&self) -> Vec<&Path> {
        self.weights.iter().filter_map(Weights::file).collect()
    }

    fn other_files_read(&self, root: &Path) -> Vec<PathBuf> {
        let folder = self.folder(root);
        match (self.is_random(), folder.is_file()) {
            (true, _) => Vec::new(),
            (_, true) => {
                let settings = beside(&folder).map(|own| own.join(CONFIG));
                std::iter::once(folder).chain(settings).collect()
            }
            _ => mapped::files(&folder),
        }
    }

    fn reads_seed(&self) -> bool {
        self.is_random()
    }
}

/// The encoder as an extractor.
pub struct VaeLatents {
    network: Autoencoder,
    parameters: Parameters,
    image: ImageTransform,
    /// One image at a time: an image of 512 pixels needs more than a gigabyte.
    turn: Mutex<()>,
}

#[derive(Deserialize)]
struct Settings {
    image: ImageTransform,
    autoencoder: AutoencoderConfig,
}

impl VaeLatents {
    /// The extractor that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        let Settings { image, autoencoder } = state.settings_as(KIND)?;
        let fail = |problem: String| StateError::Foreign { wanted: KIND.to_owned(), found: problem };
        check_size(&autoencoder, &image).map_err(fail)?;
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(0));
        let network = Autoencoder::new(builder.scope("vae").without_values(), &autoencoder);
        let network = network.map_err(|error| fail(error.to_string()))?;
        mapped::restore(state, &mut parameters, encodes)?;
        parameters.to_device(device).map_err(|error| fail(error.to_string()))?;
        Ok(Self { network, parameters, image, turn: Mutex::new(()) })
    }

    /// Returns the means and deviations of the latents of an image, `[row, column, channel]`, and their shape.
    fn latents(&self, image: Vec<f32>) -> Result<([Vec<f32>; 2], Vec<usize>), DiffusionError> {
        let size = self.image.size;
        let images =
            host::tensor(image, &[1, size, size, 3])?.to_device(&self.parameters.device()).map_err(NnError::from)?;
        let posterior = self.network.encode(&Context::inference(&self.parameters), &Value::plain(images)?)?;
        let deviation = posterior.log_variance.affine(0.5, 0.0)?.exponential()?;
        let shape = posterior.mean.dims()[1..].to_vec();
        let fetch = |value: &Value| -> Result<Vec<f32>, NnError> {
            let tensor = host::fetch(value.tensor())?;
            Ok(host::slice("latents", &tensor)?.to_vec())
        };
        Ok(([fetch(&posterior.mean)?, fetch(&deviation)?], shape))
    }
}

impl Extractor for VaeLatents {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let image = self.image.apply(&media.image(KIND)?)?.to_signed();
        let latents = {
            let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            self.latents(image)
        };
        let (values, shape) = latents.map_err(|error| ExtractError::Media(error.to_string()))?;
        if values.iter().flatten().any(|value| !value.is_finite()) {
            return Err(ExtractError::NotFinite { extractor: KIND });
        }
        let array = |values: Vec<f32>| Array::new(shape.clone(), values);
        let arrays: Result<Vec<Array>, _> = values.into_iter().map(array).collect();
        Ok(Extracted::new(arrays.map_err(|error| ExtractError::Media(error.to_string()))?))
    }
}
