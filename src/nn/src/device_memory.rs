//! Memory of devices that have their own: its size, and what tensors use.

use crate::devices::Memory;
use candle_core::Device;

/// Device memory used by the tensors of this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use now.
    pub now: u64,
    /// Largest number of bytes in use since the process began or since the last [`reset_peak`].
    pub peak: u64,
    /// Bytes that the process has reserved for tensors; other processes cannot use them.
    pub reserved: u64,
}

/// Returns the memory of a device that has its own; `None` for the CPU, or if the driver does not report it.
pub fn memory(device: &Device) -> Option<Memory> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => pool::memory(device),
        _ => None,
    }
}

/// Returns how much device memory tensors use; `None` for the CPU, or if the driver does not report it.
pub fn usage(device: &Device) -> Option<Usage> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => pool::usage(device),
        _ => None,
    }
}

/// Resets the peak of a device's [`usage`] to the current value. If the driver refuses, the peak remains that of the whole process.
pub fn reset_peak(device: &Device) {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => pool::reset_peak(device),
        _ => {}
    }
}

/// Makes a device keep freed memory for later tensors: a training step reuses the memory of the step before, and
/// getting it from the driver again would cost more than most operations.
pub(crate) fn keep(device: &Device) {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => pool::keep(device),
        _ => {}
    }
}

/// The memory pool of a CUDA device, through the driver.
#[cfg(feature = "cuda")]
mod pool {
    use super::{Memory, Usage};
    use candle_core::CudaDevice;
    use candle_core::backend::BackendDevice;
    use candle_core::cuda_backend::cudarc::driver::result::{device as driver, mem_pool};
    use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute, CUmemoryPool};

    /// Total and free memory of a device.
    pub(super) fn memory(device: &CudaDevice) -> Option<Memory> {
        // Memory counts as freed only after the work on it is done.
        device.synchronize().ok()?;
        let (free, total) = device.cuda_stream().context().mem_get_info().ok()?;
        Some(Memory { free: free as u64, total: total as u64 })
    }

    /// Reads the counters of the pool.
    pub(super) fn usage(device: &CudaDevice) -> Option<Usage> {
        device.synchronize().ok()?;
        let pool = of(device)?;
        Some(Usage {
            now: get(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
            peak: get(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
            reserved: get(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?,
        })
    }

    /// Resets the peak.
    pub(super) fn reset_peak(device: &CudaDevice) {
        let reset = || {
            device.synchronize().ok()?;
            set(of(device)?, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0)
        };
        let _refused: Option<()> = reset();
    }

    /// Raises the release threshold to all memory.
    pub(super) fn keep(device: &CudaDevice) {
        let keep = || set(of(device)?, CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX);
        // Without pools allocation works too, only slower.
        let _refused: Option<()> = keep();
    }

    /// The pool that candle allocates from: the device's own.
    fn of(device: &CudaDevice) -> Option<CUmemoryPool> {
        let stream = device.cuda_stream();
        let context = stream.context();
        context.bind_to_thread().ok()?;
        // SAFETY: the number is that of a device that was opened.
        unsafe { driver::get_default_mem_pool(context.cu_device()) }.ok()
    }

    fn get(pool: CUmemoryPool, attribute: CUmemPool_attribute) -> Option<u64> {
        let mut value = 0u64;
        // SAFETY: the pool is a device's own, and the attributes read here are 64-bit numbers.
        unsafe { mem_pool::get_attribute(pool, attribute, (&raw mut value).cast()) }.ok()?;
        Some(value)
    }

    fn set(pool: CUmemoryPool, attribute: CUmemPool_attribute, mut value: u64) -> Option<()> {
        // SAFETY: as for `get`.
        unsafe { mem_pool::set_attribute(pool, attribute, (&raw mut value).cast()) }.ok()
    }
}
