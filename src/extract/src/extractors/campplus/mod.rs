//! The `campplus` embedding: the CAM++ speaker encoder (Wang et al. 2023), 192 values from Kaldi filter banks.
//!
//! Inference only. A head of 2-D convolutions, then dense time-delay blocks whose layers mask their output by the context (the mean
//! over the whole recording plus that over 100 columns), then mean and deviation over time. Batch norms are folded when the weights
//! are loaded; the kernels are those of `flowmill_nn::inference`. Weights come from `.safetensors` and `.pt` by the names of the
//! public `state_dict`, and from `.onnx` by their place in the graph.

mod composition;
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

use candle_core::{Device, Tensor};
use flowmill_nn::{NnError, device};
use flowmill_weights::{Archive, Format};
use rayon::prelude::*;

use self::{
    composition::Composition,
    graph::Graph,
    network::Network,
    random::Random,
    state_dict::StateDict,
    weights::{Source, Weights},
};
pub use self::{
    config::{CampplusConfig, RandomSize},
    error::CampplusError,
    extractor::CampplusExtractor,
    weights::Dimensions,
};

/// The extractor's kind.
pub const KIND: &str = "campplus";

/// An encoder, ready to be run from any thread.
pub struct Campplus {
    form: Form,
}

/// The implementation that computes an encoder.
enum Form {
    /// The CPU kernels, one recording at a time.
    Kernels(Box<Network>),
    /// The operations of the tape, on any device, many recordings at a time.
    Composition(Box<Composition>),
}

impl Campplus {
    /// The encoder with the weights of a `state_dict`, to run on a device; its sizes are those of the weights.
    ///
    /// # Errors
    /// The weight that is missing, of another shape, or too many; when they cannot be copied to the device.
    pub fn from_state_dict(tensors: BTreeMap<String, Tensor>, device: &Device) -> Result<Self, CampplusError> {
        Self::from_source(&mut StateDict::new(tensors), device)
    }

    /// An encoder with weights drawn at random.
    ///
    /// # Errors
    /// When a size is zero.
    pub fn random(dimensions: Dimensions, seed: u64) -> Result<Self, CampplusError> {
        Self::from_source(&mut Random::new(dimensions, seed), &Device::Cpu)
    }

    fn from_source(source: &mut dyn Source, device: &Device) -> Result<Self, CampplusError> {
        let weights = Weights::read(source)?;
        let form = match device::has_kernels(device) {
            true => Form::Kernels(Box::new(Network::new(&weights))),
            false => Form::Composition(Box::new(Composition::new(&weights, device)?)),
        };
        Ok(Self { form })
    }

    /// The sizes.
    pub fn dimensions(&self) -> &Dimensions {
        match &self.form {
            Form::Kernels(network) => network.dimensions(),
            Form::Composition(composition) => composition.dimensions(),
        }
    }

    /// The fewest frames of features that have an embedding.
    pub const FEWEST_FRAMES: usize = network::FEWEST_FRAMES;

    /// The embedding of mean-normalized filter banks, `[frame][band]`; `None` when they are no whole frames or fewer than
    /// [`Self::FEWEST_FRAMES`].
    ///
    /// # Errors
    /// When a device cannot compute it, such as for lack of memory there.
    pub fn embed(&self, features: &[f32]) -> Result<Option<Vec<f32>>, NnError> {
        Ok(self.embed_all(&[features])?.pop().flatten())
    }

    /// The embedding of each of several recordings, as [`embed`](Self::embed) gives it. The kernels take one recording per thread, those
    /// that come first before the others; a device takes all together.
    ///
    /// # Errors
    /// The errors of [`embed`](Self::embed).
    pub fn embed_all(&self, recordings: &[&[f32]]) -> Result<Vec<Option<Vec<f32>>>, NnError> {
        let bands = self.dimensions().feat_dim;
        let usable =
            |features: &&[f32]| features.len().is_multiple_of(bands) && features.len() / bands >= Self::FEWEST_FRAMES;
        match &self.form {
            Form::Kernels(network) => {
                let embed = |features: &&[f32]| usable(features).then(|| network.embed(features));
                Ok(recordings.par_iter().with_max_len(1).map(embed).collect())
            }
            Form::Composition(composition) => {
                let items: Vec<&[f32]> = recordings.iter().copied().filter(usable).collect();
                let mut embeddings = composition.embed(&items)?.into_iter();
                Ok(recordings.iter().map(|features| if usable(features) { embeddings.next() } else { None }).collect())
            }
        }
    }
}

/// The weights of a file.
fn open(path: &Path) -> Result<Box<dyn Source>, CampplusError> {
    if Archive::open(path)?.format == Format::Onnx {
        return Ok(Box::new(Graph::open(path)?));
    }
    Ok(Box::new(StateDict::new(flowmill_weights::read(path)?.tensors)))
}
