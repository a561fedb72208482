//! Writing a latent diffusion model as a folder of the package diffusers: `vae/`, `unet/`, `text_encoder/`, `tokenizer/`, `scheduler/` and
//! `model_index.json`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use candle_core::Tensor;
use flowmill_family::BoxError;
use flowmill_networks::clip::TextConfig;
use flowmill_networks::stable_diffusion::sampling::ScheduleConfig;
use flowmill_networks::stable_diffusion::{AutoencoderConfig, UNetConfig};
use serde_json::{Value as Json, json};

use super::files::{AUTOENCODER, SCHEDULER, TEXT_ENCODER, TOKENIZER, UNET};
use super::tokenizer::ClipTokenizer;

/// The weights of a network in its folder.
const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";

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
