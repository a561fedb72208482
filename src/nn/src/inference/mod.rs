//! Kernels and layers for networks that only run forward, such as the front-ends; their weights are arranged once, when a
//! model is loaded.
//!
//! Transformers have channels innermost, as everywhere in this crate: [`Linear`], [`Convolution1d`] and [`LayerNorm`] return the same
//! results as the layers of the same names. [`KeyValueCache`] serves networks that continue a sequence row by row.
//!
//! Convolutional networks have time innermost and process one recording at a time. A signal is [`Rows`]: one row per channel (or per
//! channel and frequency), time along the row, zeros around it. Every layer is then the same product: an output row is a weighted sum of
//! input rows, each shifted in time by a tap's distance. [`Filters`] computes 8 output rows at a time with the time axis in vector
//! registers. Nothing is unfolded, and nothing is padded to the longest item of a batch; several recordings run in parallel on the
//! threads of their caller.

mod convolution1d;
mod convolution2d;
mod dot;
mod filters;
mod image_rows;
mod key_value_cache;
mod lanes;
mod layer_norm;
mod linear;
mod normalize;
mod packed;
mod rows;
mod winograd;

pub use convolution1d::Convolution1d;
pub use convolution2d::{Convolution2d, Plane};
pub use dot::Dot;
pub use filters::{Epilogue, Filters, TILE};
pub use image_rows::{binomial_rows, blend_row, join_row, leaky_row, mixed_rows, scale_row, split_row};
pub use key_value_cache::KeyValueCache;
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use normalize::{mean_and_deviation, normalize_tile, scale_rows, segment_sums, split_tile};
pub use rows::Rows;
