//! Loops over `f32` slices: vectorized, multi-threaded, each element written by one task, sums taken in a fixed order.

pub mod activation;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod bf16_tiles;
pub mod convolution;
pub mod convolution2d;
pub mod cross_entropy;
pub mod depthwise;
pub mod dropout;
pub mod elementwise;
pub mod file_matrix;
pub mod functions;
pub mod gate;
pub mod gemm;
mod gemm_amx;
mod gemm_bf16;
pub mod group_norm;
pub mod item_tasks;
#[cfg(test)]
mod layouts;
pub mod norm;
pub mod reduce;
pub mod rms_norm;
pub(crate) mod shared;
pub(crate) mod vectorized;
