//! The weights of an encoder before it runs.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use flowmill_nn::{
    NnError, Parameters,
    init::{Builder, Init},
    random::RngKey,
};

use crate::UnusableWeights;

/// The sizes of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Values of a stacked frame.
    pub inputs: usize,
    /// Channels.
    pub outputs: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Channels of the feed-forward layers.
    pub units: usize,
    /// Layers.
    pub blocks: usize,
    /// Taps of the memory.
    pub taps: usize,
}

impl Dimensions {
    /// The sizes of the published model.
    pub fn published() -> Self {
        Self { inputs: 560, outputs: 512, heads: 4, units: 2048, blocks: 50, taps: 11 }
    }

    /// Sizes for smoke runs without weights.
    pub fn small() -> Self {
        Self { outputs: 128, units: 256, blocks: 2, ..Self::published() }
    }

    fn of(tensors: &BTreeMap<String, Tensor>, heads: usize) -> Result<Self, UnusableWeights> {
        let shape = |name: &str| {
            let missing = || {
                let first = tensors.keys().next().map_or("no tensors".to_owned(), |name| format!("`{name}` and so on"));
                UnusableWeights(format!(
                    "not the encoder of an online Paraformer: there is no tensor `{name}`; the file has {first}"
                ))
            };
            tensors.get(name).map(|tensor| tensor.dims().to_vec()).ok_or_else(missing)
        };
        let two = |name: &str| match shape(name)?.as_slice() {
            &[outputs, inputs] => Ok((outputs, inputs)),
            other => Err(UnusableWeights(format!("`{name}` has the shape {other:?}, not 2 axes"))),
        };
        let (_, inputs) = two("encoders0.0.self_attn.linear_q_k_v.weight")?;
        let (outputs, _) = two("encoders0.0.self_attn.linear_out.weight")?;
        let (units, _) = two("encoders0.0.feed_forward.w_1.weight")?;
        let taps = shape("encoders0.0.self_attn.fsmn_block.weight")?.last().copied().unwrap_or(0);
        let number = |name: &str| name.strip_prefix("encoders.")?.split('.').next()?.parse::<usize>().ok();
        let blocks = tensors.keys().filter_map(|name| number(name)).max().map_or(1, |last| last.saturating_add(2));
        if blocks > tensors.len() {
            return Err(UnusableWeights(format!("layers are numbered up to {}, and most are missing", blocks - 2)));
        }
        let dimensions = Self { inputs, outputs, heads, units, blocks, taps };
        dimensions.check()?;
        Ok(dimensions)
    }

    fn check(&self) -> Result<(), UnusableWeights> {
        let Self { inputs, outputs, heads, taps, .. } = *self;
        if heads == 0 || outputs == 0 || !outputs.is_multiple_of(heads) {
            let message = format!("{outputs} channels cannot be divided into {heads} heads; set `heads`");
            return Err(UnusableWeights(message));
        }
        if inputs == 0 || taps == 0 {
            return Err(UnusableWeights(format!("{inputs} values per frame and {taps} taps make no encoder")));
        }
        Ok(())
    }
}

/// The tensors of an encoder under the names of the public implementation's `state_dict`, none missing and none too many.
pub struct Checkpoint {
    dimensions: Dimensions,
    parameters: Parameters,
}

impl Checkpoint {
    /// Checks the tensors of a file.
    ///
    /// # Errors
    /// The tensor that is missing, superfluous, or of the wrong shape.
    pub fn from_tensors(heads: usize, tensors: &BTreeMap<String, Tensor>) -> Result<Self, UnusableWeights> {
        let dimensions = Dimensions::of(tensors, heads)?;
        let mut parameters = parameters(&dimensions, None)?;
        let report = parameters.load(tensors)?;
        if !report.is_exact() {
            return Err(UnusableWeights(format!("not the weights of an online Paraformer's encoder: {report}")));
        }
        Ok(Self { dimensions, parameters })
    }

    /// Random weights.
    ///
    /// # Errors
    /// When there can be no encoder of these sizes.
    pub fn random(dimensions: Dimensions, rng_key: RngKey) -> Result<Self, UnusableWeights> {
        dimensions.check()?;
        Ok(Self { parameters: parameters(&dimensions, Some(rng_key))?, dimensions })
    }

    /// Moves the weights to the device that the network shall run on.
    ///
    /// # Errors
    /// When they cannot be copied there.
    pub fn to_device(mut self, device: &Device) -> Result<Self, UnusableWeights> {
        self.parameters.to_device(device)?;
        Ok(self)
    }

    /// The sizes.
    pub fn dimensions(&self) -> &Dimensions {
        &self.dimensions
    }

    /// The weights by their names.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

/// The names of the layers, and of how many values each reads.
pub(super) fn layers(dimensions: &Dimensions) -> impl Iterator<Item = (String, usize)> {
    let Dimensions { inputs, outputs, blocks, .. } = *dimensions;
    let later = (1..blocks).map(move |layer| (format!("encoders.{}", layer - 1), outputs));
    std::iter::once(("encoders0.0".to_owned(), inputs)).chain(later)
}

/// The parameters of an encoder; without a `draw` they are zeros that wait to be loaded.
fn parameters(dimensions: &Dimensions, rng_key: Option<RngKey>) -> Result<Parameters, NnError> {
    let Dimensions { outputs, units, taps, .. } = *dimensions;
    let mut parameters = Parameters::new();
    let mut root = Builder::new(&mut parameters, rng_key.unwrap_or(RngKey::new(0)));
    let init = |fan_in: usize| if rng_key.is_some() { Init::default_for(fan_in) } else { Init::Constant(0.0) };
    for (name, inputs) in layers(dimensions) {
        let mut layer = root.scope(name);
        layer.add("self_attn.fsmn_block.weight", &[outputs, 1, taps], init(taps))?;
        for (name, inputs, outputs) in [
            ("self_attn.linear_out", outputs, outputs),
            ("self_attn.linear_q_k_v", inputs, 3 * outputs),
            ("feed_forward.w_1", outputs, units),
            ("feed_forward.w_2", units, outputs),
        ] {
            let mut linear = layer.scope(name);
            linear.add("weight", &[outputs, inputs], init(inputs))?;
            linear.add("bias", &[outputs], init(inputs))?;
        }
        add_norm(layer.scope("norm1"), inputs)?;
        add_norm(layer.scope("norm2"), outputs)?;
    }
    add_norm(root.scope("after_norm"), outputs)?;
    Ok(parameters)
}

fn add_norm(mut builder: Builder, channels: usize) -> Result<(), NnError> {
    builder.add("weight", &[channels], Init::Constant(1.0))?;
    builder.add("bias", &[channels], Init::Constant(0.0))?;
    Ok(())
}
