//! Loops over `f32` slices: multi-threaded, each element written by one task, sums taken in a fixed order.

pub mod elementwise;
pub mod gemm;
