//! The building blocks of the networks: named parameters, a differentiation tape over candle tensors, fused
//! multi-threaded kernels with their own backward passes, layers, objectives and ODE solvers.
//!
//! candle provides storage, devices and shapes. The differentiation is part of this crate, because an operation that is recorded here
//! has a backward pass by construction. This crate does not depend on audio, corpora, particular models or the training loop.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use flowmill_nn::{Context, Parameters, Tape, Value, random::RngKey};
//!
//! let mut parameters = Parameters::new();
//! let weight = parameters.add("weight", Tensor::new(&[[2f32, 3.0]], &Device::Cpu)?)?; // [output, input]
//! let tape = Tape::new();
//! let context = Context::training(&parameters, &tape, RngKey::new(7));
//! let input = Value::plain(Tensor::new(&[[1f32, 1.0]], &Device::Cpu)?)?;
//! let loss = input.linear(&context.parameter(weight), None)?.sum()?;
//! let gradients = tape.backward(&loss)?;
//! assert_eq!(gradients.get(weight).unwrap().to_vec2::<f32>()?, [[1.0, 1.0]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Results do not depend on the number of threads: work is cut into chunks of fixed size and every sum is taken in a
//! fixed order.

mod checkpoint;
pub mod context;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(all(feature = "cuda", target_os = "linux", target_arch = "x86_64"))]
mod cuda_libraries;
pub mod device;
pub mod device_memory;
pub mod devices;
pub mod error;
pub mod gradients;
pub mod host;
mod huge_pages;
pub mod inference;
pub mod init;
pub mod kernels;
pub mod layers;
mod load;
pub mod low_rank;
pub mod objectives;
pub mod ops;
pub mod parameters;
pub mod precision;
pub mod ragged;
pub mod random;
mod saved_tensor;
pub mod solvers;
mod stored;
pub mod tape;
pub mod testing;
#[cfg(all(feature = "cuda", target_os = "linux", target_arch = "x86_64"))]
mod unused_runtime;
pub mod value;

pub use context::Context;
pub use error::NnError;
pub use gradients::Gradients;
pub use huge_pages::HugePages;
pub use kernels::activation::Activation;
pub use kernels::attention::AttentionMask;
pub use load::LoadReport;
pub use parameters::{ParameterId, Parameters};
pub use precision::Precision;
pub use ragged::Ragged;
pub use tape::Tape;
pub use value::Value;

/// Result of every fallible function of this crate.
pub type Result<T> = std::result::Result<T, NnError>;
