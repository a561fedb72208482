//! The autoencoder in a single file of Stable Diffusion 1.x (`v1-5-pruned.safetensors`, `vae-ft-mse-840000.safetensors`), whose weights have
//! the names of the first public implementation (CompVis/latent-diffusion, `ldm/models/autoencoder.py`).

use std::collections::BTreeMap;
use std::path::Path;

use flowmill_nn::Parameters;
use flowmill_weights::{Archive, MappedTensor};

use crate::pretrained::{PretrainedError, Role};

/// The prefix of the autoencoder's names in a file with all parts.
const STAGE: &str = "first_stage_model.";
/// Names of layers inside of residual blocks and attention, and their present names.
const LAYERS: [(&str, &str); 6] = [
    ("nin_shortcut", "conv_shortcut"),
    ("norm", "group_norm"),
    ("q", "to_q"),
    ("k", "to_k"),
    ("v", "to_v"),
    ("proj_out", "to_out.0"),
];

/// Returns the present name of a weight of an autoencoder with this number of levels; `None` for one that is not the autoencoder's.
fn present_name(published: &str, levels: usize) -> Option<String> {
    let name = published.strip_prefix(STAGE).unwrap_or(published);
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

/// Gives the parameters of an autoencoder, whose names begin with `vae.`, the weights in a single file;
/// `levels` is the number of its levels. Names of diffusers are accepted too.
///
/// # Errors
/// [`PretrainedError::Weights`] if the file cannot be read; [`PretrainedError::Mismatch`] if names or shapes differ.
pub fn map_autoencoder(file: &Path, levels: usize, parameters: &mut Parameters) -> Result<(), PretrainedError> {
    let prefix = Role::Autoencoder.prefix();
    let mut weights: BTreeMap<String, MappedTensor> = BTreeMap::new();
    for (name, weight) in Archive::open(file)?.map()? {
        let is_part = ["encoder.", "decoder."].iter().any(|part| name.starts_with(part));
        let is_present = is_part && ["_blocks.", "mid_block.", "conv_norm_out."].iter().any(|own| name.contains(own));
        let present = if is_present { Some(name.clone()) } else { present_name(&name, levels) };
        let Some(present) = present else { continue };
        // The projections of the attention were convolutions.
        let weight = match *weight.shape() {
            [outputs, inputs, 1, 1] if present.contains(".attentions.") => {
                weight.with_shape(vec![outputs, inputs]).unwrap_or(weight)
            }
            _ => weight,
        };
        weights.insert(format!("{prefix}{present}"), weight);
    }
    let report = parameters.load_mapped(prefix, weights)?;
    match report.is_exact() {
        true => Ok(()),
        false => Err(PretrainedError::Mismatch { path: file.to_owned(), report: Box::new(report) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_first_implementation_become_present_ones() {
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
            ("model.diffusion_model.out.0.weight", None),
            ("cond_stage_model.transformer.text_model.final_layer_norm.bias", None),
        ] {
            assert_eq!(present_name(published, 4).as_deref(), expected, "{published}");
        }
    }
}
