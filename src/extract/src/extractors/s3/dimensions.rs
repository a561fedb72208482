//! Versions and sizes of S3 tokenizers.

use std::collections::BTreeMap;

use candle_core::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::UnusableWeights;

/// Channels per head of the published models.
const HEAD_WIDTH: usize = 64;

/// Numbers of three levels that index an entry of the codebook since the second version.
pub(super) const FSQ_DIGITS: usize = 8;

/// A version of the published tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// `speech_tokenizer_v1` at 25 Hz: learned entries, the nearest wins.
    V1,
    /// `speech_tokenizer_v2` at 25 Hz: eight numbers rounded to three levels each.
    V2,
    /// `speech_tokenizer_v3` at 25 Hz, of CosyVoice 3: as `v2`, with twice as many blocks.
    V3,
}

impl Version {
    /// The version's name in recipes and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3 => "v3",
        }
    }

    /// Returns the number of different tokens of the published model.
    pub fn entries(self) -> usize {
        match self {
            Self::V1 => 4096,
            Self::V2 | Self::V3 => 3usize.pow(FSQ_DIGITS as u32),
        }
    }
}

/// The sizes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Bands of the log-mel.
    pub n_mels: usize,
    /// Channels.
    pub state: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Entries of the codebook.
    pub entries: usize,
    /// Positions that have an encoding (version 1).
    pub positions: usize,
}

impl Dimensions {
    /// The published sizes.
    pub fn published(version: Version) -> Self {
        let layers = if version == Version::V3 { 12 } else { 6 };
        Self { n_mels: 128, state: 1280, heads: 20, layers, entries: version.entries(), positions: 1500 }
    }

    /// Sizes for smoke runs without weights: the interface of the published model, a fraction of its work.
    pub fn small(version: Version) -> Self {
        Self { state: 2 * HEAD_WIDTH, heads: 2, layers: 2, ..Self::published(version) }
    }

    /// The sizes of a model with these tensors; the number of heads leaves no trace in them, so that of the published models is
    /// assumed unless it is given.
    pub(super) fn of(
        version: Version,
        tensors: &BTreeMap<String, Tensor>,
        heads: Option<usize>,
    ) -> Result<Self, UnusableWeights> {
        let shape = |name: &str, axes: usize| {
            let tensor = tensors.get(name).ok_or_else(|| foreign(name, tensors))?;
            let shape = tensor.dims().to_vec();
            if shape.len() == axes {
                Ok(shape)
            } else {
                Err(UnusableWeights(format!("`{name}` has the shape {shape:?}, not {axes} axes")))
            }
        };
        let layers = layers(tensors)?;
        if let Some(found) = found_version(tensors, layers).filter(|found| !found.contains(&version)) {
            return Err(UnusableWeights(format!(
                "these are weights of version {}, the recipe says `version: {}`",
                found.iter().map(|version| version.name()).collect::<Vec<_>>().join(" or "),
                version.name()
            )));
        }
        let conv = shape("encoder.conv1.weight", 3)?;
        let (state, n_mels) = (conv[0], conv[1]);
        let (entries, positions) = match version {
            Version::V1 => (shape("quantizer._codebook.embed", 2)?[0], shape("encoder.positional_embedding", 2)?[0]),
            Version::V2 | Version::V3 => (version.entries(), Self::published(version).positions),
        };
        let heads = heads.unwrap_or((state / HEAD_WIDTH).max(1));
        let dimensions = Self { n_mels, state, heads, layers, entries, positions };
        dimensions.check(version)?;
        Ok(dimensions)
    }

    /// Fails unless a model of these sizes can be built.
    pub(super) fn check(&self, version: Version) -> Result<(), UnusableWeights> {
        let Self { n_mels, state, heads, entries, .. } = *self;
        if heads == 0 || !state.is_multiple_of(heads) {
            return Err(UnusableWeights(format!("{state} channels cannot be divided into {heads} heads; set `heads`")));
        }
        if n_mels == 0 || state == 0 {
            return Err(UnusableWeights(format!("{n_mels} bands and {state} channels make no encoder")));
        }
        if entries == 0 {
            return Err(UnusableWeights("the codebook has no entry".to_owned()));
        }
        if version != Version::V1 && state / heads != HEAD_WIDTH {
            let width = state / heads;
            return Err(UnusableWeights(format!(
                "a head of version {} has {HEAD_WIDTH} channels, not {width}; set `heads` to {}",
                version.name(),
                state / HEAD_WIDTH
            )));
        }
        Ok(())
    }

    /// Fails unless there are features of recordings that the model can read.
    pub(super) fn check_bands(&self) -> Result<(), UnusableWeights> {
        match self.n_mels {
            80 | 128 => Ok(()),
            bands => Err(UnusableWeights(format!(
                "`encoder.conv1.weight` reads {bands} bands; Whisper's log-mel has 80 or 128"
            ))),
        }
    }
}

/// Returns the number of transformer blocks.
fn layers(tensors: &BTreeMap<String, Tensor>) -> Result<usize, UnusableWeights> {
    let block = |name: &str| name.strip_prefix("encoder.blocks.")?.split('.').next()?.parse::<usize>().ok();
    let layers = tensors.keys().filter_map(|name| block(name)).max().map_or(0, |last| last.saturating_add(1));
    if layers > tensors.len() {
        return Err(UnusableWeights(format!("blocks are numbered up to {}, and most of them are missing", layers - 1)));
    }
    Ok(layers)
}

/// Returns the versions that the tensors can belong to, if they show it. The second and the third have the same tensors, so only the
/// published numbers of blocks tell them apart.
fn found_version(tensors: &BTreeMap<String, Tensor>, layers: usize) -> Option<&'static [Version]> {
    if tensors.contains_key("quantizer._codebook.project_down.weight") {
        let published = |version: Version| layers == Dimensions::published(version).layers;
        return Some(match (published(Version::V2), published(Version::V3)) {
            (true, _) => &[Version::V2],
            (_, true) => &[Version::V3],
            _ => &[Version::V2, Version::V3],
        });
    }
    tensors.contains_key("quantizer._codebook.embed").then_some(&[Version::V1])
}

/// Says what the file has instead of `name`.
fn foreign(name: &str, tensors: &BTreeMap<String, Tensor>) -> UnusableWeights {
    let first: Vec<String> = tensors.keys().take(3).map(|name| format!("`{name}`")).collect();
    let has = if first.is_empty() { "no tensors".to_owned() } else { format!("{} and so on", first.join(", ")) };
    UnusableWeights(format!("not an S3 tokenizer: there is no tensor `{name}`; the file has {has}"))
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// Published files of the second and the third version have the same names, and are told apart nevertheless.
    #[test]
    fn weights_of_another_version_are_refused_by_their_blocks() {
        let of = |version: Version, blocks: usize| {
            let blocks = (0..blocks).map(|block| format!("encoder.blocks.{block}.attn_ln.bias"));
            let names = blocks.chain(["quantizer._codebook.project_down.weight".to_owned()]);
            let zero = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
            let tensors = names.map(|name| (name, zero.clone())).collect();
            Dimensions::of(version, &tensors, None).unwrap_err().to_string()
        };
        assert!(of(Version::V2, 12).contains("weights of version v3"), "{}", of(Version::V2, 12));
        assert!(of(Version::V3, 6).contains("weights of version v2"), "{}", of(Version::V3, 6));
        assert!(of(Version::V1, 2).contains("weights of version v2 or v3"), "{}", of(Version::V1, 2));
        // Other numbers of blocks may be of either; what is missing here are convolutions.
        for (version, blocks) in [(Version::V2, 6), (Version::V3, 12), (Version::V2, 2), (Version::V3, 2)] {
            assert!(of(version, blocks).contains("encoder.conv1.weight"), "{}", of(version, blocks));
        }
    }
}
