//! The networks and extractors, one module per family, named as their papers name them.
//!
//! Built on `flowmill-nn` (layers, tape) and `flowmill-audio` (features). Knows nothing of corpora, recipes, stages or the training loop: a
//! model here is a pure function of parameters, a batch and random draws.

pub mod dual_codebook;
pub mod extractors;
pub mod flow;
pub mod parity;
pub mod sfm;
pub mod token_lengths;
mod token_to_mel;

pub use token_to_mel::TokenToMel;
