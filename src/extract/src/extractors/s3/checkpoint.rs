//! The weights of a tokenizer before it runs.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};
use flowmill_nn::{
    NnError, Parameters, Value,
    init::{Builder, Init},
    random::RngKey,
};

use super::{
    LayerNormEpsilon,
    dimensions::{Dimensions, FSQ_DIGITS, Version},
};
use crate::{UnusableWeights, sinusoids::Sinusoids};

/// Taps of the FSMN memory.
const MEMORY_TAPS: usize = 31;

/// The tensors of a tokenizer under the names of the public implementation's `state_dict`, none missing and none too many.
pub struct Checkpoint {
    version: Version,
    dimensions: Dimensions,
    /// Epsilons: one for all blocks, or one for each.
    epsilons: Vec<LayerNormEpsilon>,
    parameters: Parameters,
}

impl Checkpoint {
    /// Checks the tensors of a file, whose normalizations have these epsilons: one for all blocks, or one for each.
    ///
    /// # Errors
    /// The tensor that is missing, superfluous, or of the wrong shape.
    pub fn from_tensors(
        version: Version,
        heads: Option<usize>,
        epsilons: &[LayerNormEpsilon],
        tensors: &BTreeMap<String, Tensor>,
    ) -> Result<Self, UnusableWeights> {
        let dimensions = Dimensions::of(version, tensors, heads)?;
        let mut parameters = parameters(version, &dimensions, None)?;
        let report = parameters.load(tensors)?;
        if !report.is_exact() {
            return Err(UnusableWeights(format!("not the weights of an S3 tokenizer {}: {report}", version.name())));
        }
        let (layers, count) = (dimensions.layers, epsilons.len());
        if count != 1 && count != layers {
            return Err(UnusableWeights(format!("epsilons of {count} blocks for {layers}")));
        }
        let mut epsilons = epsilons.to_vec();
        if epsilons.iter().all(|epsilon| *epsilon == epsilons[0]) {
            epsilons.truncate(1);
        }
        Ok(Self { version, dimensions, epsilons, parameters })
    }

    /// Random weights: the tokens that come of them mean nothing.
    ///
    /// # Errors
    /// When there can be no model of these sizes.
    pub fn random(version: Version, dimensions: Dimensions, rng_key: RngKey) -> Result<Self, UnusableWeights> {
        dimensions.check(version)?;
        let mut parameters = parameters(version, &dimensions, Some(rng_key))?;
        if let Some(id) = parameters.find("encoder.positional_embedding") {
            let table = Sinusoids::new(dimensions.state).table(0, dimensions.positions);
            let table = Value::from_vec(table, &[dimensions.positions, dimensions.state])?;
            parameters.set(id, table.tensor().clone())?;
        }
        Ok(Self { version, dimensions, epsilons: vec![LayerNormEpsilon::default()], parameters })
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
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

    /// The epsilons of the normalizations: one for all blocks, or one for each.
    pub fn epsilons(&self) -> &[LayerNormEpsilon] {
        &self.epsilons
    }

    /// The weights by their names.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }
}

/// The parameters of a model; without a `draw` they are zeros that wait to be loaded.
fn parameters(version: Version, dimensions: &Dimensions, rng_key: Option<RngKey>) -> Result<Parameters, NnError> {
    let Dimensions { n_mels, state, layers, entries, positions, .. } = *dimensions;
    let mut parameters = Parameters::new();
    let mut root = Builder::new(&mut parameters, rng_key.unwrap_or(RngKey::new(0)));
    let start = Start { random: rng_key.is_some() };
    let mut encoder = root.scope("encoder");
    for (name, inputs) in [("conv1", n_mels), ("conv2", state)] {
        start.add(encoder.scope(name), &[state, inputs, 3], true)?;
    }
    if version == Version::V1 {
        encoder.add("positional_embedding", &[positions, state], Init::Constant(0.0))?;
    }
    let mut blocks = encoder.scope("blocks");
    for block in 0..layers {
        add_block(blocks.scope(block), version, state, start)?;
    }
    let mut quantizer = root.scope("quantizer");
    let mut codebook = quantizer.scope("_codebook");
    match version {
        Version::V1 => drop(codebook.add("embed", &[entries, state], start.init(1))?),
        Version::V2 | Version::V3 => start.add(codebook.scope("project_down"), &[FSQ_DIGITS, state], true)?,
    }
    Ok(parameters)
}

fn add_block(mut builder: Builder, version: Version, state: usize, start: Start) -> Result<(), NnError> {
    let mut attention = builder.scope("attn");
    if version != Version::V1 {
        attention.scope("fsmn_block").add("weight", &[state, 1, MEMORY_TAPS], start.init(MEMORY_TAPS))?;
    }
    for name in ["query", "key", "value", "out"] {
        start.add(attention.scope(name), &[state, state], name != "key")?;
    }
    start.add(builder.scope("mlp.0"), &[4 * state, state], true)?;
    start.add(builder.scope("mlp.2"), &[state, 4 * state], true)?;
    for name in ["attn_ln", "mlp_ln"] {
        let mut norm = builder.scope(name);
        norm.add("weight", &[state], Init::Constant(1.0))?;
        norm.add("bias", &[state], Init::Constant(0.0))?;
    }
    Ok(())
}

/// The initial values of weights.
#[derive(Clone, Copy)]
struct Start {
    random: bool,
}

impl Start {
    fn init(self, fan_in: usize) -> Init {
        if self.random { Init::default_for(fan_in) } else { Init::Constant(0.0) }
    }

    /// A weight whose first axis are the outputs, and a bias.
    fn add(self, mut builder: Builder, shape: &[usize], bias: bool) -> Result<(), NnError> {
        let init = self.init(shape[1..].iter().product());
        builder.add("weight", shape, init)?;
        if bias {
            builder.add("bias", &shape[..1], init)?;
        }
        Ok(())
    }
}
