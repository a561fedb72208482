//! Gradient norms, updates and moving averages of all parameters by CUDA kernels, in one launch each.

use candle_core::Tensor;
use flowmill_nn::NnError;
use flowmill_nn::cuda::Kernels;
use flowmill_nn::cuda::lists::{self, Entry};

use super::slot::Figures;

static KERNELS: Kernels = Kernels::new("the optimizer", &[lists::PRELUDE, include_str!("multi_tensor.cu")]);

/// Returns whether the kernels can process the tensors.
pub(crate) fn serve<'a>(tensors: impl Iterator<Item = &'a Tensor>) -> bool {
    lists::serve(&KERNELS, tensors)
}

/// Returns the sum of squares of each tensor, in one copy.
pub(super) fn sums_of_squares(tensors: &[&Tensor]) -> Result<Vec<f64>, NnError> {
    let entries = tensors.iter().map(|tensor| Entry { tensors: vec![*tensor], numbers: Vec::new() });
    let entries = entries.collect::<Vec<_>>();
    // SAFETY: the kernel reads one tensor of each entry.
    let sums = unsafe { lists::launch(&KERNELS, "squares", &entries, 1)? };
    Ok(sums.into_iter().map(|sums| sums[0]).collect())
}

/// Updates all parameters by a kernel; returns the norms of the weights before the update and of the update, zeros if they are not
/// measured.
pub(super) fn update(kernel: &str, entries: &[Entry<'_>], measure: bool) -> Result<Vec<Figures>, NnError> {
    // SAFETY: a rule's entries match the parameters of its kernel; weights and state are changed in place, as on the CPU.
    let sums = unsafe { lists::launch(&KERNELS, kernel, entries, if measure { 2 } else { 0 })? };
    if !measure {
        return Ok(vec![[0.0; 2]; entries.len()]);
    }
    Ok(sums.into_iter().map(|sums| [sums[0].sqrt(), sums[1].sqrt()]).collect())
}

/// Moves averages towards weights by a share of the difference, in place.
pub(crate) fn average(pairs: &[[&Tensor; 2]], share: f32) -> Result<(), NnError> {
    let entries = pairs.iter().map(|pair| Entry { tensors: pair.to_vec(), numbers: vec![share] }).collect::<Vec<_>>();
    // SAFETY: the kernel takes two tensors and a number, and changes the first in place, as on the CPU.
    unsafe { lists::launch(&KERNELS, "average", &entries, 0)? };
    Ok(())
}
