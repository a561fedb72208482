//! Networks in a single file of Stable Diffusion 1.x (`v1-5-pruned.safetensors`, `vae-ft-mse-840000.safetensors`), whose weights have the
//! names of the first public implementation (CompVis/stable-diffusion, `ldm/modules` and `ldm/models/autoencoder.py`).

use std::collections::BTreeMap;
use std::path::Path;

use flowmill_nn::Parameters;
use flowmill_weights::{Archive, MappedTensor};

use crate::pretrained::{self, PretrainedError, Role};

/// A network in a single file, with the sizes that its names depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The U-Net; its number of residual blocks per level.
    UNet {
        /// `layers_per_block` of its settings.
        layers: usize,
    },
    /// The autoencoder; its number of levels. Alone in a file, its names have no prefix.
    Autoencoder {
        /// The length of `block_out_channels` of its settings.
        levels: usize,
    },
    /// The encoder of captions.
    TextEncoder,
}

impl Part {
    /// Returns its role.
    pub fn role(self) -> Role {
        match self {
            Self::UNet { .. } => Role::UNet,
            Self::Autoencoder { .. } => Role::Autoencoder,
            Self::TextEncoder => Role::TextEncoder,
        }
    }

    /// Returns the present name of a weight; `None` for one of another network.
    fn present_name(self, published: &str) -> Option<String> {
        match self {
            Self::UNet { layers } => unet_name(published.strip_prefix(UNET)?, layers),
            Self::Autoencoder { .. } if is_present(published) => Some(published.to_owned()),
            Self::Autoencoder { levels } => autoencoder_name(published, levels),
            Self::TextEncoder => {
                let name = published.strip_prefix(TEXT_ENCODER)?;
                (!name.ends_with(".position_ids")).then(|| name.to_owned())
            }
        }
    }
}

/// The prefix of the U-Net's names. Files with averaged weights have them once more under `model_ema.`, which are not read.
const UNET: &str = "model.diffusion_model.";
/// The prefix of the autoencoder's names in a file with all networks.
const AUTOENCODER: &str = "first_stage_model.";
/// The prefix of the names of the encoder of captions.
const TEXT_ENCODER: &str = "cond_stage_model.transformer.";
/// Names of layers inside of the autoencoder's residual blocks and attention, and their present names.
const LAYERS: [(&str, &str); 6] = [
    ("nin_shortcut", "conv_shortcut"),
    ("norm", "group_norm"),
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("proj_out", "to_out.0"),
];
/// Names of layers inside of the U-Net's residual blocks, and their present names.
const RESIDUAL: [(&str, &str); 6] = [
    ("in_layers.0.", "norm1."),
    ("in_layers.2.", "conv1."),
    ("emb_layers.1.", "time_emb_proj."),
    ("out_layers.0.", "norm2."),
    ("out_layers.3.", "conv2."),
    ("skip_connection.", "conv_shortcut."),
];
/// Names of the U-Net's other layers, and their present names.
const OUTSIDE: [(&str, &str); 5] = [
    ("time_embed.0.", "time_embedding.linear_1."),
    ("time_embed.2.", "time_embedding.linear_2."),
    ("input_blocks.0.0.", "conv_in."),
    ("out.0.", "conv_norm_out."),
    ("out.2.", "conv_out."),
];

/// Returns the name with its beginning replaced, if it is one of `names`.
fn renamed(name: &str, names: &[(&str, &str)]) -> Option<String> {
    names.iter().find_map(|(old, new)| Some(format!("{new}{}", name.strip_prefix(old)?)))
}

/// Returns the present name of a weight of a U-Net. The first implementation counts residual blocks over all levels, and the layer that
/// changes the resolution along with them.
fn unet_name(name: &str, layers: usize) -> Option<String> {
    if let Some(outside) = renamed(name, &OUTSIDE) {
        return Some(outside);
    }
    let (part, rest) = name.split_once('.')?;
    let (first, inner) = rest.split_once('.')?;
    let first: usize = first.parse().ok()?;
    if part == "middle_block" {
        return match first {
            1 => Some(format!("mid_block.attentions.0.{inner}")),
            block => Some(format!("mid_block.resnets.{}.{}", block / 2, renamed(inner, &RESIDUAL)?)),
        };
    }
    let (second, inner) = inner.split_once('.')?;
    let (blocks, position) = match part {
        "input_blocks" => ("down_blocks", first.checked_sub(1)?),
        "output_blocks" => ("up_blocks", first),
        _ => return None,
    };
    let (level, block) = (position / (layers + 1), position % (layers + 1));
    if let Some(last) = inner.strip_prefix("op.") {
        return Some(format!("{blocks}.{level}.downsamplers.0.conv.{last}"));
    }
    if let Some(last) = inner.strip_prefix("conv.") {
        return Some(format!("{blocks}.{level}.upsamplers.0.conv.{last}"));
    }
    match second {
        "0" => Some(format!("{blocks}.{level}.resnets.{block}.{}", renamed(inner, &RESIDUAL)?)),
        _ => Some(format!("{blocks}.{level}.attentions.{block}.{inner}")),
    }
}

/// Returns whether a name of an autoencoder is a present one.
fn is_present(name: &str) -> bool {
    let is_part = ["encoder.", "decoder."].iter().any(|part| name.starts_with(part));
    is_part && ["_blocks.", "mid_block.", "conv_norm_out."].iter().any(|own| name.contains(own))
}

/// Returns the present name of a weight of an autoencoder with this number of levels; `None` for one that is not the autoencoder's.
fn autoencoder_name(published: &str, levels: usize) -> Option<String> {
    let name = published.strip_prefix(AUTOENCODER).unwrap_or(published);
    let (part, rest) = name.split_once('.')?;
    if matches!(part, "quant_conv" | "post_quant_conv") {
        return Some(name.to_owned());
    }
    if !matches!(part, "encoder" | "decoder") {
        return None;
    }
    let parts: Vec<&str> = rest.split('.').collect();
    // The decoder of the first implementation counts its levels down.
    let counted_up = |level: &str| levels.checked_sub(1)?.checked_sub(level.parse().ok()?);
    let layer = |old: &str| LAYERS.iter().find(|(own, _)| *own == old).map_or(old, |(_, new)| new).to_owned();
    let inner = match parts.as_slice() {
        ["norm_out", last] => format!("conv_norm_out.{last}"),
        [conv @ ("conv_in" | "conv_out"), last] => format!("{conv}.{last}"),
        ["mid", "attn_1", own, last] => format!("mid_block.attentions.0.{}.{last}", layer(own)),
        ["mid", block, own, last] => {
            let number: usize = block.strip_prefix("block_")?.parse().ok()?;
            format!("mid_block.resnets.{}.{}.{last}", number.checked_sub(1)?, shortcut(own))
        }
        ["down", level, "block", block, own, last] => {
            format!("down_blocks.{level}.resnets.{block}.{}.{last}", shortcut(own))
        }
        ["down", level, "downsample", "conv", last] => format!("down_blocks.{level}.downsamplers.0.conv.{last}"),
        ["up", level, "block", block, own, last] => {
            format!("up_blocks.{}.resnets.{block}.{}.{last}", counted_up(level)?, shortcut(own))
        }
        ["up", level, "upsample", "conv", last] => format!("up_blocks.{}.upsamplers.0.conv.{last}", counted_up(level)?),
        _ => return None,
    };
    Some(format!("{part}.{inner}"))
}

/// Returns the present name of a layer of a residual block.
fn shortcut(layer: &str) -> &str {
    if layer == "nin_shortcut" { "conv_shortcut" } else { layer }
}

/// Gives the parameters of a network, whose names begin with the [prefix](Role::prefix) of its role, its weights in a single file. They stay
/// in their file and are frozen. The autoencoder may have the names of diffusers.
///
/// # Errors
/// [`PretrainedError::Weights`] if the file cannot be read; [`PretrainedError::Mismatch`] if names or shapes differ.
pub fn map_part(file: &Path, part: Part, parameters: &mut Parameters) -> Result<(), PretrainedError> {
    let prefix = part.role().prefix();
    let mut weights: BTreeMap<String, MappedTensor> = BTreeMap::new();
    for (name, weight) in Archive::open(file)?.map()? {
        let Some(present) = part.present_name(&name) else { continue };
        // The projections of the autoencoder's attention were convolutions.
        let weight = match *weight.shape() {
            [outputs, inputs, 1, 1] if part.role() == Role::Autoencoder && present.contains(".attentions.") => {
                weight.with_shape(vec![outputs, inputs]).unwrap_or(weight)
            }
            _ => weight,
        };
        weights.insert(format!("{prefix}{present}"), weight);
    }
    pretrained::give(file, part.role(), weights, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_autoencoder_become_present_ones() {
        for (published, expected) in [
            ("first_stage_model.encoder.conv_in.weight", Some("encoder.conv_in.weight")),
            ("encoder.down.1.block.0.nin_shortcut.bias", Some("encoder.down_blocks.1.resnets.0.conv_shortcut.bias")),
            ("encoder.down.2.downsample.conv.weight", Some("encoder.down_blocks.2.downsamplers.0.conv.weight")),
            ("encoder.mid.block_2.norm1.weight", Some("encoder.mid_block.resnets.1.norm1.weight")),
            ("encoder.mid.attn_1.norm.weight", Some("encoder.mid_block.attentions.0.group_norm.weight")),
            ("decoder.mid.attn_1.proj_out.bias", Some("decoder.mid_block.attentions.0.to_out.0.bias")),
            ("decoder.up.3.block.2.conv1.weight", Some("decoder.up_blocks.0.resnets.2.conv1.weight")),
            ("decoder.up.1.upsample.conv.bias", Some("decoder.up_blocks.2.upsamplers.0.conv.bias")),
            ("encoder.norm_out.bias", Some("encoder.conv_norm_out.bias")),
            ("first_stage_model.post_quant_conv.weight", Some("post_quant_conv.weight")),
            ("decoder.up_blocks.0.resnets.2.conv1.weight", Some("decoder.up_blocks.0.resnets.2.conv1.weight")),
            ("model.diffusion_model.out.0.weight", None),
            ("cond_stage_model.transformer.text_model.final_layer_norm.bias", None),
        ] {
            assert_eq!(Part::Autoencoder { levels: 4 }.present_name(published).as_deref(), expected, "{published}");
        }
    }

    #[test]
    fn names_of_the_u_net_become_present_ones() {
        for (published, expected) in [
            ("time_embed.2.bias", Some("time_embedding.linear_2.bias")),
            ("input_blocks.0.0.weight", Some("conv_in.weight")),
            ("input_blocks.1.0.in_layers.0.weight", Some("down_blocks.0.resnets.0.norm1.weight")),
            ("input_blocks.2.1.proj_in.weight", Some("down_blocks.0.attentions.1.proj_in.weight")),
            ("input_blocks.3.0.op.bias", Some("down_blocks.0.downsamplers.0.conv.bias")),
            ("input_blocks.4.0.skip_connection.weight", Some("down_blocks.1.resnets.0.conv_shortcut.weight")),
            ("input_blocks.11.0.out_layers.3.weight", Some("down_blocks.3.resnets.1.conv2.weight")),
            ("middle_block.0.emb_layers.1.weight", Some("mid_block.resnets.0.time_emb_proj.weight")),
            ("middle_block.1.norm.weight", Some("mid_block.attentions.0.norm.weight")),
            ("middle_block.2.in_layers.2.bias", Some("mid_block.resnets.1.conv1.bias")),
            ("output_blocks.2.0.out_layers.0.bias", Some("up_blocks.0.resnets.2.norm2.bias")),
            ("output_blocks.2.1.conv.weight", Some("up_blocks.0.upsamplers.0.conv.weight")),
            ("output_blocks.5.2.conv.weight", Some("up_blocks.1.upsamplers.0.conv.weight")),
            (
                "output_blocks.5.1.transformer_blocks.0.attn2.to_k.weight",
                Some("up_blocks.1.attentions.2.transformer_blocks.0.attn2.to_k.weight"),
            ),
            ("out.0.weight", Some("conv_norm_out.weight")),
            ("out.2.bias", Some("conv_out.bias")),
            ("label_emb.0.0.weight", None),
        ] {
            let part = Part::UNet { layers: 2 };
            let found = part.present_name(&format!("model.diffusion_model.{published}"));
            assert_eq!(found.as_deref(), expected, "{published}");
            assert_eq!(part.present_name(&format!("model_ema.{published}")), None);
        }
    }

    #[test]
    fn names_of_the_encoder_of_captions_lose_their_prefix() {
        let name = |own: &str| Part::TextEncoder.present_name(&format!("cond_stage_model.transformer.{own}"));
        let weight = "text_model.encoder.layers.0.mlp.fc1.weight";
        assert_eq!(name(weight).as_deref(), Some(weight));
        assert_eq!(name("text_model.embeddings.position_ids"), None);
        assert_eq!(Part::TextEncoder.present_name("logit_scale"), None);
    }
}
