//! The `campplus` embedding: the CAM++ speaker encoder (Wang et al. 2023), 192 values from Kaldi filter banks.
//!
//! Inference only. A head of 2-D convolutions, then dense time-delay blocks whose layers mask their output by the context (the mean
//! over the whole recording plus that over 100 columns), then mean and deviation over time. Batch norms are folded when the weights
//! are loaded; the kernels are those of `flowmill_nn::inference`. Weights come from `.safetensors` and `.pt` by the names of the
//! public `state_dict`, and from `.onnx` by their place in the graph.

mod config;
mod error;
mod extractor;
mod graph;
mod head;
mod network;
mod random;
mod state_dict;
mod stored;
mod weights;

use std::{collections::BTreeMap, path::Path};

use candle_core::Tensor;
use flowmill_nn::weights::{Archive, Format};

pub use self::{
    config::{CampplusConfig, RandomSize},
    error::CampplusError,
    extractor::CampplusExtractor,
    weights::Dimensions,
};
use self::{
    graph::Graph,
    network::Network,
    random::Random,
    state_dict::StateDict,
    weights::{Source, Weights},
};

/// The extractor's kind.
pub const KIND: &str = "campplus";

/// An encoder, ready to be run from any thread.
pub struct Campplus {
    network: Network,
}

impl Campplus {
    /// The encoder with the weights of a `state_dict`; its sizes are those of the weights.
    ///
    /// # Errors
    /// The weight that is missing, of another shape, or too many.
    pub fn from_state_dict(tensors: BTreeMap<String, Tensor>) -> Result<Self, CampplusError> {
        Self::from_source(&mut StateDict::new(tensors))
    }

    /// An encoder with weights drawn at random.
    ///
    /// # Errors
    /// When a size is zero.
    pub fn random(dimensions: Dimensions, seed: u64) -> Result<Self, CampplusError> {
        Self::from_source(&mut Random::new(dimensions, seed))
    }

    fn from_source(source: &mut dyn Source) -> Result<Self, CampplusError> {
        Ok(Self { network: Network::new(&Weights::read(source)?) })
    }

    /// Its sizes.
    pub fn dimensions(&self) -> &Dimensions {
        self.network.dimensions()
    }

    /// The fewest frames of features that have an embedding.
    pub const FEWEST_FRAMES: usize = network::FEWEST_FRAMES;

    /// The embedding of mean-normalised filter banks, `[frame][band]`; `None` when they are no whole frames or fewer than
    /// [`Self::FEWEST_FRAMES`].
    pub fn embed(&self, features: &[f32]) -> Option<Vec<f32>> {
        let bands = self.dimensions().feat_dim;
        let usable = features.len().is_multiple_of(bands) && features.len() / bands >= Self::FEWEST_FRAMES;
        usable.then(|| self.network.embed(features))
    }
}

/// The weights of a file.
fn open(path: &Path) -> Result<Box<dyn Source>, CampplusError> {
    if Archive::open(path)?.format == Format::Onnx {
        return Ok(Box::new(Graph::open(path)?));
    }
    Ok(Box::new(StateDict::new(flowmill_nn::weights::read(path)?.tensors)))
}
