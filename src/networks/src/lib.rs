//! The networks, one module per family, named as their papers name them, and their comparison with public implementations.
//!
//! Built on `flowmill-nn` (layers, tape), `flowmill-audio` (features) and `flowmill-extract` (the form of its tokens). Knows nothing of corpora,
//! recipes, stages or the training loop: a model here is a pure function of parameters, a batch and random draws.

pub mod clip;
pub mod extractors;
pub mod float;
pub mod flow;
pub mod llama;
pub mod lpips;
pub mod parity;
pub mod pmg;
pub mod pretrained;
pub mod sfm;
pub mod single_file;
pub mod stable_diffusion;
pub mod token_lengths;
mod token_to_mel;
pub mod vall_e;
pub mod vocoders;
mod windows;

pub use token_to_mel::TokenToMel;
pub use windows::{Window, Windows, generate_in_windows};
