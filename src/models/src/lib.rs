//! The networks and extractors, one module per family, with the names of their papers.
//!
//! Built on `flowmill-nn` (layers, tape) and `flowmill-audio` (features). Does not depend on corpora, recipes, stages
//! or the training loop: a model here is a pure function of parameters, a batch and random draws.

pub mod dual_codebook;
pub mod extractors;
pub mod flow;
pub mod parity;
pub mod sfm;
pub mod token_lengths;
mod token_to_mel;

pub use token_to_mel::TokenToMel;
