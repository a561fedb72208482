//! Loops over `f32` slices: vectorised, multi-threaded, each element written by one task, sums taken in a fixed order.

pub mod activation;
pub mod attention;
pub mod convolution;
pub mod elementwise;
pub mod functions;
pub mod gemm;
pub mod norm;
pub mod reduce;
pub mod shared;

/// Runs a loop compiled for the widest vector instructions of this machine. Functions that the loop calls must be
/// `#[inline(always)]` to be compiled with it.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}
