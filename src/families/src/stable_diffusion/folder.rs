//! A latent diffusion model in a folder of the package diffusers: `vae/`, `unet/`, `text_encoder/`, `tokenizer/`, `scheduler/` and
//! `model_index.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use flowmill_family::BoxError;
use flowmill_image::Raster;
use flowmill_networks::clip::{TextConfig, TextTower};
use flowmill_networks::pretrained::{self, Role, map_weights};
use flowmill_networks::stable_diffusion::sampling::ScheduleConfig;
use flowmill_networks::stable_diffusion::{Autoencoder, AutoencoderConfig, UNetConfig};
use flowmill_nn::init::Builder;
use flowmill_nn::random::RngKey;
use flowmill_nn::{Context, Parameters, Value, host};
use serde_json::{Value as Json, json};

use super::tokenizer::ClipTokenizer;

/// The parts of a folder.
pub const UNET: &str = "unet";
/// The autoencoder.
pub const AUTOENCODER: &str = "vae";
/// The encoder of captions.
pub const TEXT_ENCODER: &str = "text_encoder";
/// The tokenizer of captions.
pub const TOKENIZER: &str = "tokenizer";
/// The noise.
pub const SCHEDULER: &str = "scheduler";
/// The weights of a network in its folder.
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

/// The settings in a folder.
#[derive(Debug, Clone)]
pub struct FolderSettings {
    /// Those of the U-Net.
    pub unet: UNetConfig,
    /// Those of the autoencoder.
    pub autoencoder: AutoencoderConfig,
    /// Those of the noise.
    pub schedule: ScheduleConfig,
}

impl FolderSettings {
    /// Reads the settings, and checks that the parts fit each other.
    ///
    /// # Errors
    /// The file and the setting that cannot be used; nothing of the weights is read.
    pub fn read(folder: &Path) -> Result<Self, BoxError> {
        let unet = pretrained::unet_config(&folder.join(UNET))?;
        let autoencoder = pretrained::autoencoder_config(&folder.join(AUTOENCODER))?;
        let schedule = pretrained::schedule_config(&folder.join(SCHEDULER))?;
        unet.check()?;
        autoencoder.check()?;
        let about =
            |part: &str, message: String| format!("{}: {message}", folder.join(part).join("config.json").display());
        if unet.in_channels != autoencoder.latent_channels || unet.out_channels != unet.in_channels {
            let message = format!(
                "`in_channels` {} and `out_channels` {} must be the `latent_channels` of the autoencoder, {}",
                unet.in_channels, unet.out_channels, autoencoder.latent_channels
            );
            return Err(about(UNET, message).into());
        }
        let text = folder.join(TEXT_ENCODER);
        if text.exists() {
            let width = pretrained::text_config(&text)?.hidden_size;
            if width != unet.cross_attention_dim {
                let message = format!(
                    "a text encoder of {width} channels (`hidden_size`) does not fit the U-Net, whose conditions have {} \
                     (`cross_attention_dim`)",
                    unet.cross_attention_dim
                );
                return Err(about(TEXT_ENCODER, message).into());
            }
        }
        Ok(Self { unet, autoencoder, schedule })
    }
}

/// Returns all files of a folder that its networks are read from.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for part in [UNET, AUTOENCODER, TEXT_ENCODER] {
        let part = folder.join(part);
        if part.exists() {
            files.push(part.join("config.json"));
            files.extend(flowmill_weights::files(&part));
        }
    }
    files.push(folder.join(SCHEDULER).join("scheduler_config.json"));
    files.extend(
        ["vocab.json", "merges.txt"]
            .map(|name| folder.join(TOKENIZER).join(name))
            .into_iter()
            .filter(|path| path.exists()),
    );
    files
}

/// A frozen autoencoder, whose weights stay in their file.
pub struct FrozenAutoencoder {
    network: Autoencoder,
    parameters: Parameters,
}

impl FrozenAutoencoder {
    /// Opens the autoencoder of a folder.
    ///
    /// # Errors
    /// When settings or weights are missing or damaged.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, BoxError> {
        let folder = folder.join(AUTOENCODER);
        let config = pretrained::autoencoder_config(&folder)?;
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(0)).without_values();
        let network = Autoencoder::new(builder.scope(AUTOENCODER), &config)?;
        map_weights(&folder, Role::Autoencoder, &mut parameters)?;
        parameters.to_device(device)?;
        Ok(Self { network, parameters })
    }

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
    /// Opens the encoder of a folder.
    ///
    /// # Errors
    /// When settings, weights or tokenizer are missing or damaged.
    pub fn open(folder: &Path, device: &Device) -> Result<Self, BoxError> {
        let own = folder.join(TEXT_ENCODER);
        let config = pretrained::text_config(&own)?;
        let tokenizer = ClipTokenizer::open(&folder.join(TOKENIZER))?;
        if tokenizer.size() > config.vocab_size {
            let message = format!(
                "its {} tokens are more than those of the text encoder, {}",
                tokenizer.size(),
                config.vocab_size
            );
            return Err(format!("{}: {message}", folder.join(TOKENIZER).display()).into());
        }
        let mut parameters = Parameters::new();
        let mut builder = Builder::new(&mut parameters, RngKey::new(0)).without_values();
        let tower = TextTower::new(builder.scope(TEXT_ENCODER).scope("text_model"), &config)?;
        map_weights(&own, Role::TextEncoder, &mut parameters)?;
        parameters.to_device(device)?;
        Ok(Self { tower, tokenizer, config, parameters })
    }

    /// Returns the conditions of a caption, `[1, token, channel]`.
    ///
    /// # Errors
    /// When the network cannot compute it.
    pub fn encode(&self, caption: &str) -> Result<Value, BoxError> {
        let tokens = self.tokenizer.encode(caption, self.config.max_position_embeddings);
        Ok(self.tower.forward(&Context::inference(&self.parameters), &[tokens])?.hidden)
    }
}

/// Everything that a folder is written from.
pub struct FolderContent<'a> {
    /// The weights by name: `vae.*`, `unet.*` and `text_encoder.*`.
    pub tensors: &'a BTreeMap<String, Tensor>,
    /// The settings of the U-Net.
    pub unet: &'a UNetConfig,
    /// The settings of the autoencoder.
    pub autoencoder: &'a AutoencoderConfig,
    /// The settings of the encoder of captions.
    pub text: &'a TextConfig,
    /// The settings of the noise.
    pub schedule: &'a ScheduleConfig,
    /// The tokenizer.
    pub tokenizer: &'a ClipTokenizer,
    /// Height and width of images, in pixels.
    pub image_size: usize,
}

impl FolderContent<'_> {
    /// Writes the folder; `file` returns the path for a file name.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, file: &mut dyn FnMut(&str) -> Result<PathBuf, BoxError>) -> Result<(), BoxError> {
        let mut write =
            |name: &str, content: String| -> Result<(), BoxError> { Ok(std::fs::write(file(name)?, content)?) };
        let index = json!({
            "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.0",
            "feature_extractor": [null, null], "safety_checker": [null, null], "requires_safety_checker": false,
            "scheduler": ["diffusers", "PNDMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        });
        write("model_index.json", format!("{index:#}\n"))?;
        write(
            &format!("{UNET}/config.json"),
            described(json!(self.unet), json!({ "_class_name": "UNet2DConditionModel" })),
        )?;
        let levels = self.autoencoder.block_out_channels.len();
        let types = json!({
            "_class_name": "AutoencoderKL", "sample_size": self.image_size, "act_fn": "silu",
            "down_block_types": vec!["DownEncoderBlock2D"; levels], "up_block_types": vec!["UpDecoderBlock2D"; levels],
        });
        write(&format!("{AUTOENCODER}/config.json"), described(json!(self.autoencoder), types))?;
        let text = json!({
            "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "bos_token_id": self.text.eos_token_id - 1,
            "pad_token_id": self.text.eos_token_id, "attention_dropout": 0.0, "projection_dim": self.text.hidden_size,
        });
        write(&format!("{TEXT_ENCODER}/config.json"), described(json!(self.text), text))?;
        let noise = json!({
            "_class_name": "PNDMScheduler", "skip_prk_steps": true, "clip_sample": false, "timestep_spacing": "leading",
            "trained_betas": null,
        });
        write(&format!("{SCHEDULER}/scheduler_config.json"), described(json!(self.schedule), noise))?;
        for (name, content) in self.tokenizer.files(self.text.max_position_embeddings) {
            write(&format!("{TOKENIZER}/{name}"), content)?;
        }
        for (part, name) in [(UNET, WEIGHTS), (AUTOENCODER, WEIGHTS), (TEXT_ENCODER, "model.safetensors")] {
            let own = self.tensors.iter().filter_map(|(name, tensor)| {
                let name = name.strip_prefix(part)?.strip_prefix('.')?;
                Some((name.to_owned(), tensor.clone()))
            });
            let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
            flowmill_weights::write(&file(&format!("{part}/{name}"))?, &own.collect::<Vec<_>>(), &metadata)?;
        }
        Ok(())
    }
}

/// Formats settings, with more keys.
fn described(mut settings: Json, more: Json) -> String {
    if let (Some(settings), Json::Object(more)) = (settings.as_object_mut(), more) {
        settings.extend(more);
    }
    format!("{settings:#}\n")
}
