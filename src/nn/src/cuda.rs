//! CUDA kernels of our own: sources that NVRTC compiles at their first use, on tensors of candle.

pub(crate) mod activation;
pub(crate) mod layer_norm;
pub(crate) mod softmax;

use crate::{Result, device};
use candle_core::cuda_backend::CudaDType;
use candle_core::cuda_backend::cudarc::driver::{
    CudaFunction, CudaSlice, CudaView, DeviceRepr, LaunchArgs, LaunchConfig, PushKernelArg,
};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Error, Shape, Storage, Tensor};
use std::ops::Deref;
use std::sync::OnceLock;

/// A source with kernels, compiled once in a process.
struct Kernels {
    name: &'static str,
    source: &'static str,
    ptx: OnceLock<std::result::Result<String, String>>,
}

impl Kernels {
    const fn new(name: &'static str, source: &'static str) -> Self {
        Self { name, source, ptx: OnceLock::new() }
    }

    /// The compiled source; an error where NVRTC is missing or refuses it.
    fn ptx(&self) -> std::result::Result<&str, &str> {
        let compile = || compile_ptx(self.source).map(|ptx| ptx.to_src()).map_err(|error| error.to_string());
        self.ptx.get_or_init(compile).as_ref().map(String::as_str).map_err(String::as_str)
    }

    /// Whether there are kernels for a tensor's device and element type. Where NVRTC is missing, compositions compute.
    fn serve(&self, tensor: &Tensor) -> bool {
        let served = tensor.device().is_cuda() && matches!(tensor.dtype(), DType::F32 | DType::BF16);
        served && device::kernels_allowed() && self.ptx().is_ok()
    }

    /// A kernel by its name, ready to be launched on a device.
    fn function(&self, device: &CudaDevice, kernel: &str) -> Result<CudaFunction> {
        let explain = |error| Error::msg(format!("the kernels of {} do not compile: {error}", self.name));
        let ptx = self.ptx().map_err(explain)?;
        Ok(device.get_or_load_custom_func(kernel, self.name, ptx)?.into_cuda_function())
    }
}

/// The CUDA device that a tensor is on.
fn device_of(tensor: &Tensor) -> Result<CudaDevice> {
    Ok(tensor.device().as_cuda_device()?.clone())
}

/// A contiguous tensor whose memory a kernel reads.
struct Read<'a> {
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    offset: usize,
}

impl<'a> Read<'a> {
    /// Opens tensors, some of which may be left out.
    fn all<const N: usize>(tensors: [Option<&'a Tensor>; N]) -> Result<Vec<Option<Self>>> {
        tensors.into_iter().map(|tensor| tensor.map(Self::new).transpose()).collect()
    }

    fn new(tensor: &'a Tensor) -> Result<Self> {
        let (storage, layout) = tensor.storage_and_layout();
        if !layout.is_contiguous() {
            return Err(Error::msg("a CUDA kernel reads contiguous tensors only").into());
        }
        let offset = layout.start_offset();
        Ok(Self { storage: Box::new(storage), offset })
    }

    /// The memory of tensors of one element type, from their first elements.
    fn views<'b, T: CudaDType>(reads: &'b [Option<Self>]) -> Result<Vec<Option<CudaView<'b, T>>>> {
        reads.iter().map(|read| read.as_ref().map(Self::view).transpose()).collect()
    }

    fn view<T: CudaDType>(&self) -> Result<CudaView<'_, T>> {
        match &**self.storage {
            Storage::Cuda(storage) => Ok(storage.as_cuda_slice::<T>()?.slice(self.offset..)),
            _ => Err(Error::msg("a CUDA kernel reads tensors of its device only").into()),
        }
    }
}

/// Memory for the result of a kernel that writes all of it.
fn memory<T: DeviceRepr>(device: &CudaDevice, elements: usize) -> Result<CudaSlice<T>> {
    // SAFETY: every kernel that is launched on it writes all elements before anything reads them; the stream keeps the order.
    Ok(unsafe { device.alloc::<T>(elements)? })
}

/// The tensor of a kernel's result.
fn tensor<T: CudaDType>(device: &CudaDevice, memory: CudaSlice<T>, shape: impl Into<Shape>) -> Tensor {
    let storage = CudaStorage::wrap_cuda_slice(memory, device.clone());
    Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false)
}

/// The number of rows or columns, as kernels count them.
fn count(size: usize) -> Result<u32> {
    u32::try_from(size).map_err(|_| Error::msg(format!("{size} rows are more than a kernel can count")).into())
}

/// A null pointer as an argument.
const NULL: &u64 = &0;

/// A view as an argument, or a null pointer.
fn pointer<'a, 'b: 'a, 'c: 'b, T>(launch: &mut LaunchArgs<'a>, view: &'b Option<CudaView<'c, T>>) {
    match view {
        Some(view) => launch.arg(view),
        None => launch.arg(NULL),
    };
}

/// A warp for each row, four to a block.
fn warp_per_row(rows: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (rows.div_ceil(4), 1, 1), block_dim: (32, 4, 1), shared_mem_bytes: 0 }
}
