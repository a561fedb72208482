//! Launches over lists of tensors, such as all parameters of a network with their gradients: one launch and one copy of the addresses to
//! the device, whatever the number of tensors.

use super::{Kernels, Launch, address, uninitialized};
use crate::{NnError, Result};
use candle_core::{DType, Device, Tensor};

/// Common source code of kernels over lists.
pub const PRELUDE: &str = concat!(include_str!("elements.cuh"), include_str!("lists.cuh"));

/// Elements per block.
const CHUNK: usize = 1 << 14;
/// Threads per block.
const THREADS: usize = 256;

/// An entry of a kernel's list: tensors of equal size, and numbers.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Contiguous tensors in single precision on one device.
    pub tensors: Vec<&'a Tensor>,
    /// Further inputs of the kernel.
    pub numbers: Vec<f32>,
}

/// Returns whether a kernel of the source can work on tensors.
pub fn serve<'a>(kernels: &Kernels, mut tensors: impl Iterator<Item = &'a Tensor>) -> bool {
    tensors.all(|tensor| tensor.dtype() == DType::F32 && tensor.is_contiguous() && kernels.serve(tensor))
}

/// Launches a kernel over entries that [`serve`] allows. Its parameters are `entries`, `words`, `table` (see `lists.cuh`) and `figures`,
/// the address of `figures` double-precision numbers per block, null for none. Returns the sums of the figures of each entry over its
/// blocks, summed in order and read back in one copy.
///
/// # Safety
/// The kernel takes the tensors and numbers of every entry, in their order. No other owner relies on the tensors that it writes to.
///
/// # Errors
/// When the entries differ in their numbers of tensors or numbers, or CUDA rejects the launch.
pub unsafe fn launch(kernels: &Kernels, kernel: &str, entries: &[Entry<'_>], figures: usize) -> Result<Vec<Vec<f64>>> {
    let Some(first) = entries.first().and_then(|entry| entry.tensors.first()) else { return Ok(Vec::new()) };
    let stream = first.device().as_cuda_device()?.cuda_stream();
    let (tensors, numbers) = (entries[0].tensors.len(), entries[0].numbers.len());
    let words = 2 + tensors + numbers;
    let (mut table, mut blocks) = (Vec::with_capacity(entries.len() * words), Vec::with_capacity(entries.len()));
    let mut total = 0;
    for entry in entries {
        let elements = entry.tensors.first().map_or(0, |tensor| tensor.elem_count());
        let fits = |tensor: &&Tensor| {
            tensor.elem_count() == elements && tensor.dtype() == DType::F32 && tensor.is_contiguous()
        };
        if (entry.tensors.len(), entry.numbers.len()) != (tensors, numbers) || !entry.tensors.iter().all(fits) {
            return Err(NnError::invalid("list of tensors", "an entry differs from the others, or its tensors do"));
        }
        table.extend([total as u64, elements as u64]);
        for tensor in &entry.tensors {
            table.push(address(tensor, &stream)?);
        }
        table.extend(entry.numbers.iter().map(|number| u64::from(number.to_bits())));
        blocks.push(elements.div_ceil(CHUNK));
        total += elements.div_ceil(CHUNK);
    }
    // candle has no unsigned 64-bit words.
    let table: Vec<i64> = table.into_iter().map(u64::cast_signed).collect();
    let table = Tensor::from_slice(&table, table.len(), first.device())?;
    let launch = Launch::new(kernels, kernel, first)?.count(entries.len())?.count(words)?.tensor(&table)?;
    // SAFETY: the table describes existing tensors; every block writes its figures; the rest is the caller's promise.
    let found = unsafe {
        let found = (figures > 0).then(|| uninitialized(total * figures, DType::F64, first)).transpose()?;
        launch.tensor(found.as_ref())?.run([total, 1], [THREADS, 1])?;
        found
    };
    let Some(found) = found else { return Ok(Vec::new()) };
    let found: Vec<f64> = found.to_device(&Device::Cpu)?.to_vec1()?;
    let mut rows = found.chunks_exact(figures);
    let sum = |blocks: &usize| {
        let mut sums = vec![0.0; figures];
        for row in rows.by_ref().take(*blocks) {
            sums.iter_mut().zip(row).for_each(|(sum, figure)| *sum += figure);
        }
        sums
    };
    Ok(blocks.iter().map(sum).collect())
}
