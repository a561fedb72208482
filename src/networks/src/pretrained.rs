//! Published networks in folders: `config.json` with the settings, and weights that stay in their files.

use crate::clip::{ClipConfig, TextConfig};
use crate::llama::LlamaFileConfig;
use crate::stable_diffusion::sampling::ScheduleConfig;
use crate::stable_diffusion::{AutoencoderConfig, UNetConfig};
use flowmill_nn::{LoadReport, Parameters};
use flowmill_weights::{Archive, MappedTensor, WeightError};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest size of a file of settings, in bytes.
const LARGEST: u64 = 1 << 20;

/// The reason why a published network cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PretrainedError {
    /// The file of settings cannot be read or understood.
    #[error("{}: {problem}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The weights cannot be read: a shard is missing, or numbers have a type that is not supported.
    #[error(transparent)]
    Weights(#[from] WeightError),
    /// The weights are not those of the network that the settings describe.
    #[error("{}: its weights are not those of its config.json: {report}", path.display())]
    Mismatch {
        /// The folder.
        path: PathBuf,
        /// The comparison.
        report: Box<LoadReport>,
    },
    /// A layer refused the weights.
    #[error(transparent)]
    Nn(#[from] flowmill_nn::NnError),
}

/// The kind of a published network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A LLaMA in the format of transformers; the classifier of tokens is left out.
    Llama,
    /// A U-Net in the format of diffusers.
    UNet,
    /// An autoencoder in the format of diffusers.
    Autoencoder,
    /// The text transformer of a CLIP in the format of transformers.
    TextEncoder,
    /// A whole CLIP in the format of transformers.
    Clip,
}

impl Role {
    /// The beginning of the names of its parameters.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Llama => "llama.",
            Self::UNet => "unet.",
            Self::Autoencoder => "vae.",
            Self::TextEncoder => "text_encoder.",
            Self::Clip => "clip.",
        }
    }

    /// Returns the name of the parameter for a published name; `None` for what the network does not use.
    fn name_of(self, published: &str) -> Option<String> {
        let name = match self {
            Self::Llama => {
                let inner = published.strip_prefix("model.").unwrap_or(published);
                let unused = inner == "lm_head.weight" || inner.ends_with("rotary_emb.inv_freq");
                (!unused).then(|| inner.to_owned())?
            }
            Self::UNet => published.to_owned(),
            Self::Autoencoder => current_attention(published),
            Self::TextEncoder => match published.strip_prefix(TEXT_MODEL).unwrap_or(published) {
                // The projection belongs to the comparison with images.
                "embeddings.position_ids" | "text_projection.weight" => return None,
                inner => format!("{TEXT_MODEL}{inner}"),
            },
            Self::Clip if published.ends_with(".embeddings.position_ids") => return None,
            Self::Clip => published.to_owned(),
        };
        Some(format!("{}{name}", self.prefix()))
    }
}

/// The prefix of the text transformer's names, which newer files leave out.
const TEXT_MODEL: &str = "text_model.";
/// Names of the autoencoder's attention in older files, and their present names.
const OLD_NAMES: [(&str, &str); 4] =
    [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];

fn current_attention(published: &str) -> String {
    if !published.contains(".attentions.") {
        return published.to_owned();
    }
    let renamed = OLD_NAMES.iter().find(|(old, _)| published.contains(old));
    renamed.map_or_else(|| published.to_owned(), |(old, new)| published.replace(old, new))
}

/// Reads the settings of a network, `config.json` in its folder.
fn settings<T: DeserializeOwned>(folder: &Path) -> Result<T, PretrainedError> {
    settings_in(folder.join("config.json"))
}

fn settings_in<T: DeserializeOwned>(path: PathBuf) -> Result<T, PretrainedError> {
    let refuse = |problem: String| PretrainedError::Config { path: path.clone(), problem };
    let mut text = Vec::new();
    let file = File::open(&path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    if text.len() as u64 > LARGEST {
        return Err(refuse(format!("it is larger than {LARGEST} bytes")));
    }
    serde_json::from_slice(&text).map_err(|error| refuse(format!("these are not settings of the network: {error}")))
}

/// Reads the settings of a LLaMA in a folder.
///
/// # Errors
/// [`PretrainedError::Config`] if there are none.
pub fn llama_config(folder: &Path) -> Result<LlamaFileConfig, PretrainedError> {
    settings(folder)
}

/// Reads the settings of a U-Net in a folder.
///
/// # Errors
/// [`PretrainedError::Config`] if there are none.
pub fn unet_config(folder: &Path) -> Result<UNetConfig, PretrainedError> {
    settings(folder)
}

/// Reads the settings of an autoencoder in a folder.
///
/// # Errors
/// [`PretrainedError::Config`] if there are none.
pub fn autoencoder_config(folder: &Path) -> Result<AutoencoderConfig, PretrainedError> {
    settings(folder)
}

/// Reads the settings of a text encoder in a folder.
///
/// # Errors
/// [`PretrainedError::Config`] if there are none.
pub fn text_config(folder: &Path) -> Result<TextConfig, PretrainedError> {
    settings(folder)
}

/// Reads the settings of a CLIP in a folder.
///
/// # Errors
/// [`PretrainedError::Config`] if there are none.
pub fn clip_config(folder: &Path) -> Result<ClipConfig, PretrainedError> {
    settings(folder)
}

/// Reads the settings of a diffusion in a folder, `scheduler_config.json`.
///
/// # Errors
/// [`PretrainedError::Config`] if there are none.
pub fn schedule_config(folder: &Path) -> Result<ScheduleConfig, PretrainedError> {
    settings_in(folder.join("scheduler_config.json"))
}

/// Gives the parameters of a network, whose names begin with the [prefix](Role::prefix) of its role, the weights in a folder: one
/// `.safetensors` file, or the shards of an index. They stay in their files and are frozen.
///
/// # Errors
/// [`PretrainedError::Weights`] if a file is missing, damaged or of an unsupported type; [`PretrainedError::Mismatch`] if names or shapes
/// differ, which lists the differences.
pub fn map_weights(folder: &Path, role: Role, parameters: &mut Parameters) -> Result<(), PretrainedError> {
    let renamed = |(name, weight): (String, MappedTensor)| Some((role.name_of(&name)?, flat_projection(&name, weight)));
    let weights: BTreeMap<String, MappedTensor> =
        Archive::open(folder)?.map()?.into_iter().filter_map(renamed).collect();
    give(folder, role, weights, parameters)
}

/// Gives the parameters of a network weights that were found at `path`, by the names of the parameters.
///
/// # Errors
/// [`PretrainedError::Mismatch`] if names or shapes differ.
pub(crate) fn give(
    path: &Path,
    role: Role,
    weights: BTreeMap<String, MappedTensor>,
    parameters: &mut Parameters,
) -> Result<(), PretrainedError> {
    let report = parameters.load_mapped(role.prefix(), weights)?;
    match report.is_exact() {
        true => Ok(()),
        false => Err(PretrainedError::Mismatch { path: path.to_owned(), report: Box::new(report) }),
    }
}

/// Removes the axes of size 1 that older files give the projections of the autoencoder's attention.
fn flat_projection(name: &str, weight: MappedTensor) -> MappedTensor {
    let old = OLD_NAMES.iter().any(|(old, _)| name.contains(old)) && name.contains(".attentions.");
    match *weight.shape() {
        [outputs, inputs, 1, 1] if old => weight.with_shape(vec![outputs, inputs]).unwrap_or(weight),
        _ => weight,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_names_become_those_of_the_parameters() {
        for (role, published, expected) in [
            (Role::Llama, "model.layers.3.mlp.up_proj.weight", Some("llama.layers.3.mlp.up_proj.weight")),
            (Role::Llama, "embed_tokens.weight", Some("llama.embed_tokens.weight")),
            (Role::Llama, "lm_head.weight", None),
            (Role::Llama, "model.layers.0.self_attn.rotary_emb.inv_freq", None),
            (Role::UNet, "conv_in.bias", Some("unet.conv_in.bias")),
            (
                Role::Autoencoder,
                "encoder.mid_block.attentions.0.proj_attn.weight",
                Some("vae.encoder.mid_block.attentions.0.to_out.0.weight"),
            ),
            (Role::Autoencoder, "quant_conv.weight", Some("vae.quant_conv.weight")),
            (
                Role::TextEncoder,
                "text_model.final_layer_norm.bias",
                Some("text_encoder.text_model.final_layer_norm.bias"),
            ),
            (Role::TextEncoder, "final_layer_norm.bias", Some("text_encoder.text_model.final_layer_norm.bias")),
            (Role::TextEncoder, "text_model.embeddings.position_ids", None),
        ] {
            assert_eq!(role.name_of(published).as_deref(), expected, "{published}");
        }
    }
}
