//! The `clip-images` extractor: an embedding of every image of a row by CLIP, at unit length, as scores of similarity read them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use candle_core::Device;
use flowmill_corpus::{Array, ColumnSpec, DType, Role};
use flowmill_extract::extractors::pixels::{ImageFilter, ImageResize, ImageTransform};
use flowmill_extract::{
    Column, ConfigError, ExtractError, Extracted, Extractor, Fit, Kind, Media, State, StateError, Weights,
    required_weights,
};
use flowmill_image::Raster;
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, NnError, Parameters, Value, host};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::mapped;
use crate::clip::{Clip, ClipConfig, ClipError, ImageConfig, TextConfig, normalized};
use crate::pretrained;

/// The extractor's kind.
pub const KIND: &str = "clip-images";

/// The column of embeddings, `[image, value]`, in the order of the row's images.
pub const IMAGE_EMBEDDINGS: &str = "image_embeddings";

/// The mean of each channel of the images that CLIP was trained on (`CLIPImageProcessor`).
const MEAN: [f32; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// The deviation of each channel of these images.
const DEVIATION: [f32; 3] = [0.268_629_54, 0.261_302_6, 0.275_777_1];

/// The parts of CLIP that embed images.
const IMAGES: [&str; 2] = ["clip.vision_model.", "clip.visual_projection."];

/// Settings of the `clip-images` extractor.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClipImagesConfig {
    /// The folder of a CLIP in the form of transformers (`config.json`, `model.safetensors`), relative to the folder of the recipe; or
    /// `random`, to try a run without any. Required.
    ///
    /// Counterparts: PMG's `model.clip`.
    pub weights: Option<Weights>,
}

impl ClipImagesConfig {
    fn is_random(&self) -> bool {
        self.weights == Some(Weights::Random)
    }

    /// Reads or draws the weights of the image transformer as a state.
    fn load(&self, seed: u64, root: &Path) -> Result<State, StateError> {
        let folder = mapped::place(self.weights.as_ref(), root);
        let fail = |problem: &dyn std::fmt::Display| mapped::unusable(&folder, problem);
        let network = match self.is_random() {
            true => random(),
            false => pretrained::clip_config(&folder).map_err(|error| fail(&error))?,
        };
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(seed).purpose(KIND));
        let builder = if self.is_random() { builder.scope("clip") } else { builder.scope("clip").without_values() };
        Clip::new(builder, &network).map_err(|error| fail(&error))?;
        if !self.is_random() {
            pretrained::map_weights(&folder, pretrained::Role::Clip, &mut parameters).map_err(|error| fail(&error))?;
        }
        let mut state = State::new(KIND, json!({ "clip": network }));
        mapped::store(&mut state, &parameters, embeds).map_err(|error| fail(&error))?;
        Ok(state)
    }
}

/// The settings of a small CLIP without weights.
fn random() -> ClipConfig {
    let text = TextConfig {
        vocab_size: 8,
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        ..TextConfig::default()
    };
    let image = ImageConfig {
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        image_size: 32,
        patch_size: 8,
        ..ImageConfig::default()
    };
    ClipConfig { text, image, projection_dim: 16 }
}

/// Returns whether a parameter is needed to embed images.
fn embeds(name: &str) -> bool {
    IMAGES.iter().any(|prefix| name.starts_with(prefix))
}

/// Returns an image as CLIP reads it, `[row, column, channel]` with `size` rows and columns: the shorter side resized, the middle cut out, the
/// channels normalized (`CLIPImageProcessor`).
///
/// # Errors
/// [`ExtractError::Media`] for an image whose proportions are too extreme.
pub fn input(image: &Raster, size: usize) -> Result<Vec<f32>, ExtractError> {
    let transform = ImageTransform { size, resize: ImageResize::CenterCrop, filter: ImageFilter::Bicubic };
    Ok(transform.apply(image)?.to_normalized(MEAN, DEVIATION))
}

/// The columns.
fn columns() -> Vec<Column> {
    let spec = ColumnSpec::new(IMAGE_EMBEDDINGS, DType::F32).axis("image").axis("value");
    vec![spec.docs("embeddings of the images at unit length").into()]
}

impl Kind for ClipImagesConfig {
    const NAME: &'static str = KIND;
    const ABOUT: &'static str = "Embeddings of all images of a row by CLIP, at unit length.";
    const PATHS: &'static [&'static str] = &["weights"];
    const WORDS: &'static [&'static str] = &["random"];
    const MEDIA: &'static [Role] = &[Role::Images];
    const NETWORK: bool = true;

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn open(state: &State, device: &Device) -> Result<Box<dyn Extractor>, StateError> {
        Ok(Box::new(ClipImages::from_state(state, device)?))
    }

    fn check(&self) -> Result<(), ConfigError> {
        required_weights("weights", self.weights.as_ref(), "the folder of a CLIP").map(drop)
    }

    fn fit(&self, seed: u64, root: &Path) -> Result<Box<dyn Fit>, ConfigError> {
        let (config, root) = (self.clone(), root.to_owned());
        Ok(mapped::fit(KIND, self.weights.as_ref(), move || config.load(seed, &root)))
    }

    fn other_files(&self) -> Vec<&Path> {
        self.weights.iter().filter_map(Weights::file).collect()
    }

    fn other_files_read(&self, root: &Path) -> Vec<PathBuf> {
        if self.is_random() { Vec::new() } else { mapped::files(&mapped::place(self.weights.as_ref(), root)) }
    }

    fn reads_seed(&self) -> bool {
        self.is_random()
    }
}

/// The image transformer as an extractor.
pub struct ClipImages {
    network: Clip,
    parameters: Parameters,
    /// Pixels along each axis of an image that the network reads.
    size: usize,
    /// One row at a time: the network uses all threads itself.
    turn: Mutex<()>,
}

#[derive(Deserialize)]
struct Settings {
    clip: ClipConfig,
}

impl ClipImages {
    /// The extractor that a state describes, to run on a device.
    ///
    /// # Errors
    /// When the state is of another kind or incomplete.
    pub fn from_state(state: &State, device: &Device) -> Result<Self, StateError> {
        let Settings { clip } = state.settings_as(KIND)?;
        let fail = |problem: String| StateError::Foreign { wanted: KIND.to_owned(), found: problem };
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(0));
        let network =
            Clip::new(builder.scope("clip").without_values(), &clip).map_err(|error| fail(error.to_string()))?;
        mapped::restore(state, &mut parameters, embeds)?;
        parameters.to_device(device).map_err(|error| fail(error.to_string()))?;
        Ok(Self { network, parameters, size: clip.image.image_size, turn: Mutex::new(()) })
    }

    /// Returns the embedding of each image at unit length, and its width.
    ///
    /// # Errors
    /// The reason why an image cannot be used.
    pub fn embed(&self, images: &[Raster]) -> Result<(Vec<f32>, usize), ExtractError> {
        let mut pixels = Vec::new();
        for image in images {
            pixels.extend(input(image, self.size)?);
        }
        let _turn = self.turn.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.forward(pixels, images.len()).map_err(|error| ExtractError::Media(error.to_string()))
    }

    fn forward(&self, pixels: Vec<f32>, count: usize) -> Result<(Vec<f32>, usize), ClipError> {
        let size = self.size;
        let device = self.parameters.device();
        let images = host::tensor(pixels, &[count, size, size, 3])?.to_device(&device).map_err(NnError::from)?;
        let embeddings = self.network.embed_images(&Context::inference(&self.parameters), &Value::plain(images)?)?;
        let embeddings = host::fetch(normalized(&embeddings)?.tensor())?;
        Ok((host::slice("embeddings", &embeddings)?.to_vec(), embeddings.dims()[1]))
    }
}

impl Extractor for ClipImages {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn columns(&self) -> Vec<Column> {
        columns()
    }

    fn extract(&self, media: &Media) -> Result<Extracted, ExtractError> {
        let images = media.images(KIND)?;
        let (values, width) = self.embed(&images)?;
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ExtractError::NotFinite { extractor: KIND });
        }
        let array = Array::new(vec![images.len(), width], values);
        Ok(Extracted::from(array.map_err(|error| ExtractError::Media(error.to_string()))?))
    }
}
