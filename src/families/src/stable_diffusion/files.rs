//! The files of a published latent diffusion model: a folder of the package diffusers, or a single file of Stable Diffusion 1.x.

use std::path::{Path, PathBuf};

use candle_core::Device;
use flowmill_family::BoxError;
use flowmill_image::Raster;
use flowmill_networks::clip::{TextConfig, TextTower};
use flowmill_networks::pretrained::{self, PretrainedError, map_weights};
use flowmill_networks::single_file::{Part, map_part};
use flowmill_networks::stable_diffusion::sampling::ScheduleConfig;
use flowmill_networks::stable_diffusion::{Autoencoder, AutoencoderConfig, UNetConfig};
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Value, host};

use super::tokenizer::ClipTokenizer;

/// The folder of the U-Net in a model of diffusers.
pub const UNET: &str = "unet";
/// The autoencoder.
pub const AUTOENCODER: &str = "vae";
/// The encoder of captions.
pub const TEXT_ENCODER: &str = "text_encoder";
/// The tokenizer of captions.
pub const TOKENIZER: &str = "tokenizer";
/// The noise.
pub const SCHEDULER: &str = "scheduler";
/// The settings of a network in its folder.
const CONFIG: &str = "config.json";
/// The settings of the noise.
const SCHEDULER_CONFIG: &str = "scheduler_config.json";

/// The place of a diffusion model. Next to a single file lie the folders of a model of diffusers, of which settings and tokenizer are
/// read; settings that are not there are those of Stable Diffusion 1.5.
#[derive(Debug, Clone, PartialEq)]
pub struct DiffusionFiles {
    /// The folder or the single file.
    place: PathBuf,
    /// The folder of settings and tokenizer.
    folder: PathBuf,
}

/// The settings of a diffusion model.
#[derive(Debug, Clone)]
pub struct DiffusionSettings {
    /// Those of the U-Net.
    pub unet: UNetConfig,
    /// Those of the autoencoder.
    pub autoencoder: AutoencoderConfig,
    /// Those of the noise.
    pub schedule: ScheduleConfig,
}

impl DiffusionFiles {
    /// Creates the files at a place.
    pub fn new(place: PathBuf) -> Self {
        let folder = if place.is_file() { place.with_file_name("") } else { place.clone() };
        Self { place, folder }
    }

    /// Returns the folder or the single file.
    pub fn place(&self) -> &Path {
        &self.place
    }

    fn is_single(&self) -> bool {
        self.place.is_file()
    }

    /// Returns the settings of a part, which only a single file may lack.
    fn settings_of<T: Default>(
        &self,
        part: &str,
        file: &str,
        read: impl Fn(&Path) -> Result<T, PretrainedError>,
    ) -> Result<T, PretrainedError> {
        let folder = self.folder.join(part);
        match self.is_single() && !folder.join(file).exists() {
            true => Ok(T::default()),
            false => read(&folder),
        }
    }

    fn unet_config(&self) -> Result<UNetConfig, PretrainedError> {
        self.settings_of(UNET, CONFIG, pretrained::unet_config)
    }

    fn autoencoder_config(&self) -> Result<AutoencoderConfig, PretrainedError> {
        self.settings_of(AUTOENCODER, CONFIG, pretrained::autoencoder_config)
    }

    fn text_config(&self) -> Result<TextConfig, PretrainedError> {
        self.settings_of(TEXT_ENCODER, CONFIG, pretrained::text_config)
    }

    /// Returns whether captions can be encoded. A single file needs a tokenizer next to it.
    fn has_captions(&self) -> bool {
        match self.is_single() {
            true => self.folder.join(TOKENIZER).exists(),
            false => self.folder.join(TEXT_ENCODER).exists(),
        }
    }

    /// Reads the settings, and checks that the parts fit each other.
    ///
    /// # Errors
    /// The file and the setting that cannot be used; nothing of the weights is read.
    pub fn settings(&self) -> Result<DiffusionSettings, BoxError> {
        let unet = self.unet_config()?;
        let autoencoder = self.autoencoder_config()?;
        let schedule = self.settings_of(SCHEDULER, SCHEDULER_CONFIG, pretrained::schedule_config)?;
        unet.check()?;
        autoencoder.check()?;
        let about =
            |part: &str, message: String| format!("{}: {message}", self.folder.join(part).join(CONFIG).display());
        if unet.in_channels != autoencoder.latent_channels || unet.out_channels != unet.in_channels {
            let message = format!(
                "`in_channels` {} and `out_channels` {} must be the `latent_channels` of the autoencoder, {}",
                unet.in_channels, unet.out_channels, autoencoder.latent_channels
            );
            return Err(about(UNET, message).into());
        }
        if self.has_captions() {
            let width = self.text_config()?.hidden_size;
            if width != unet.cross_attention_dim {
                let message = format!(
                    "a text encoder of {width} channels (`hidden_size`) does not fit the U-Net, whose conditions have {} \
                     (`cross_attention_dim`)",
                    unet.cross_attention_dim
                );
                return Err(about(TEXT_ENCODER, message).into());
            }
        }
        Ok(DiffusionSettings { unet, autoencoder, schedule })
    }

    /// Returns all files that networks are read from, in a fixed order.
    pub fn all(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for part in [UNET, AUTOENCODER, TEXT_ENCODER] {
            let part = self.folder.join(part);
            if part.exists() {
                files.push(part.join(CONFIG));
                if !self.is_single() {
                    files.extend(flowmill_weights::files(&part));
                }
            }
        }
        files.push(self.folder.join(SCHEDULER).join(SCHEDULER_CONFIG));
        files.extend(["vocab.json", "merges.txt"].map(|name| self.folder.join(TOKENIZER).join(name)));
        if self.is_single() {
            files.push(self.place.clone());
        }
        files.retain(|path| path.exists());
        files
    }

    /// Maps the weights of a network: a folder of its own, or a part of the single file.
    fn map(&self, folder: &str, part: Part, parameters: &mut Parameters) -> Result<(), BoxError> {
        match self.is_single() {
            true => map_part(&self.place, part, parameters)?,
            false => map_weights(&self.folder.join(folder), part.role(), parameters)?,
        }
        Ok(())
    }

    /// Gives the parameters `unet.*` their weights, which stay in their files.
    ///
    /// # Errors
    /// When weights are missing, damaged, of an unsupported type, or those of another network.
    pub fn map_unet(&self, parameters: &mut Parameters) -> Result<(), BoxError> {
        let layers = self.unet_config()?.layers_per_block;
        self.map(UNET, Part::UNet { layers }, parameters)
    }

    /// Opens the autoencoder.
    ///
    /// # Errors
    /// When settings or weights are missing or damaged.
    pub fn autoencoder(&self, device: &Device) -> Result<FrozenAutoencoder, BoxError> {
        let config = self.autoencoder_config()?;
        let levels = config.block_out_channels.len();
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(0)).without_values();
        let network = Autoencoder::new(builder.scope(AUTOENCODER), &config)?;
        self.map(AUTOENCODER, Part::Autoencoder { levels }, &mut parameters)?;
        parameters.to_device(device)?;
        Ok(FrozenAutoencoder { network, parameters })
    }

    /// Opens the encoder of captions, if there is one.
    ///
    /// # Errors
    /// When settings, weights or tokenizer are missing or damaged.
    pub fn captions(&self, device: &Device) -> Result<Option<CaptionEncoder>, BoxError> {
        if !self.has_captions() {
            return Ok(None);
        }
        let config = self.text_config()?;
        let place = self.folder.join(TOKENIZER);
        let tokenizer = ClipTokenizer::open(&place)?;
        if tokenizer.size() > config.vocab_size {
            let (own, known) = (tokenizer.size(), config.vocab_size);
            let message = format!("its {own} tokens are more than those of the text encoder, {known}");
            return Err(format!("{}: {message}", place.display()).into());
        }
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(0)).without_values();
        let tower = TextTower::new(builder.scope(TEXT_ENCODER).scope("text_model"), &config)?;
        self.map(TEXT_ENCODER, Part::TextEncoder, &mut parameters)?;
        parameters.to_device(device)?;
        Ok(Some(CaptionEncoder { tower, tokenizer, config, parameters }))
    }
}

/// A frozen autoencoder, whose weights stay in their file.
pub struct FrozenAutoencoder {
    network: Autoencoder,
    parameters: Parameters,
}

impl FrozenAutoencoder {
    /// Returns the images of latents `[item, height, width, channel]`, times the scaling factor.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn decode(&self, latents: &Value) -> Result<Vec<Raster>, BoxError> {
        let context = Context::inference(&self.parameters);
        let factor = 1.0 / self.network.config().scaling_factor as f32;
        rasters(&self.network.decode(&context, &latents.affine(factor, 0.0)?)?)
    }
}

/// Returns images `[item, height, width, 3]` with values from -1 to 1 as pictures.
///
/// # Errors
/// When the shape is another one.
pub fn rasters(images: &Value) -> Result<Vec<Raster>, BoxError> {
    let &[_, height, width, 3] = images.dims() else {
        return Err(format!("decoded images of the shape {:?}", images.dims()).into());
    };
    let elements = host::read(images.tensor())?;
    let raster = |values: &[f32]| Ok(Raster::from_signed(width as u32, height as u32, values)?);
    elements.chunks_exact((3 * height * width).max(1)).map(raster).collect()
}

/// A frozen encoder of captions, with its tokenizer.
pub struct CaptionEncoder {
    tower: TextTower,
    tokenizer: ClipTokenizer,
    config: TextConfig,
    parameters: Parameters,
}

impl CaptionEncoder {
    /// Returns the conditions of a caption, `[1, token, channel]`.
    ///
    /// # Errors
    /// When the network cannot compute it.
    pub fn encode(&self, caption: &str) -> Result<Value, BoxError> {
        let tokens = self.tokenizer.encode(caption, self.config.max_position_embeddings);
        Ok(self.tower.forward(&Context::inference(&self.parameters), &[tokens])?.hidden)
    }
}
