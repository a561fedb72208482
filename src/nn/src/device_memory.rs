//! The memory of devices that have their own: how much there is, and what tensors take.

use crate::devices::Memory;
use candle_core::Device;

/// What the tensors of this process take of a device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Now.
    pub now: u64,
    /// At the most, since the process began or the last [`reset_peak`].
    pub peak: u64,
    /// What the process has reserved for tensors: it is not free for others.
    pub reserved: u64,
}

/// The memory of a device that has its own; `None` for the CPU, and where the driver does not say.
pub fn memory(device: &Device) -> Option<Memory> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => pool::memory(device),
        _ => None,
    }
}

/// What tensors take of a device that has its own memory; `None` for the CPU, and where the driver does not say.
pub fn usage(device: &Device) -> Option<Usage> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => pool::usage(device),
        _ => None,
    }
}

/// Makes the peak of a device's [`usage`] what it is now. Where the driver refuses, the peak stays that of the whole process: no less.
pub fn reset_peak(device: &Device) {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => pool::reset_peak(device),
        _ => {}
    }
}

/// Has a device keep the memory that tensors give back, for the next ones: a training step takes what the step before gave back, and
/// getting it from the driver again would cost more than most operations.
pub(crate) fn keep(device: &Device) {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => pool::keep(device),
        _ => {}
    }
}

/// The memory pool of a CUDA device, by the driver.
#[cfg(feature = "cuda")]
mod pool {
    use super::{Memory, Usage};
    use candle_core::CudaDevice;
    use candle_core::backend::BackendDevice;
    use candle_core::cuda_backend::cudarc::driver::result::{device as driver, mem_pool};
    use candle_core::cuda_backend::cudarc::driver::sys::{CUmemPool_attribute, CUmemoryPool};

    /// All memory of a device, and what is free.
    pub(super) fn memory(device: &CudaDevice) -> Option<Memory> {
        // Memory counts as given back once the work on it is done.
        device.synchronize().ok()?;
        let (free, total) = device.cuda_stream().context().mem_get_info().ok()?;
        Some(Memory { free: free as u64, total: total as u64 })
    }

    /// The counters of the pool.
    pub(super) fn usage(device: &CudaDevice) -> Option<Usage> {
        device.synchronize().ok()?;
        let pool = of(device)?;
        Some(Usage {
            now: get(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?,
            peak: get(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?,
            reserved: get(pool, CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?,
        })
    }

    /// Begins the peak anew.
    pub(super) fn reset_peak(device: &CudaDevice) {
        let reset = || {
            device.synchronize().ok()?;
            set(of(device)?, CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH, 0)
        };
        let _refused: Option<()> = reset();
    }

    /// Sets the release threshold to all memory.
    pub(super) fn keep(device: &CudaDevice) {
        let keep = || set(of(device)?, CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, u64::MAX);
        // Without pools it works, only slower.
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
        // SAFETY: the pool is a device's own, and the attributes that are asked for are 64-bit numbers.
        unsafe { mem_pool::get_attribute(pool, attribute, (&raw mut value).cast()) }.ok()?;
        Some(value)
    }

    fn set(pool: CUmemoryPool, attribute: CUmemPool_attribute, mut value: u64) -> Option<()> {
        // SAFETY: as for `get`.
        unsafe { mem_pool::set_attribute(pool, attribute, (&raw mut value).cast()) }.ok()
    }
}
