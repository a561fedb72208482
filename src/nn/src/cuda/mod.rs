//! Flowmill's own CUDA kernels: sources that NVRTC compiles at their first use, on candle's tensors.
//!
//! All work on a device is queued on its single stream, so neither launches nor the release of their inputs need events in
//! between.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod layer_norm;
pub mod lists;
pub(crate) mod rows;
pub(crate) mod softmax;

use crate::{NnError, Result, device};
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaStream, DevicePtr, LaunchConfig, PushKernelArg};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDType, WrapErr};
use candle_core::op::BackpropOp;
use candle_core::{CudaDevice, CudaStorage, DType, Error, Shape, Storage, Tensor};
use half::{bf16, f16};
use std::sync::{Arc, OnceLock};

/// Threads per block of a launch over elements.
const BLOCK: usize = 256;
/// The largest number of blocks of a launch over elements; with more elements, each thread handles several.
const MOST_BLOCKS: usize = 1 << 20;

/// Source code of kernels, compiled once per process.
#[derive(Debug)]
pub struct Kernels {
    name: &'static str,
    /// The parts of the source, concatenated in order.
    sources: &'static [&'static str],
    ptx: OnceLock<std::result::Result<String, String>>,
}

impl Kernels {
    /// Creates kernels from their source parts. `name` appears in error messages and must be unique.
    pub const fn new(name: &'static str, sources: &'static [&'static str]) -> Self {
        Self { name, sources, ptx: OnceLock::new() }
    }

    /// Returns the compiled source, or an error if NVRTC is missing or rejects it.
    fn ptx(&self) -> std::result::Result<&str, &str> {
        let compile = || compile_ptx(self.sources.concat()).map(|ptx| ptx.to_src()).map_err(|error| error.to_string());
        self.ptx.get_or_init(compile).as_ref().map(String::as_str).map_err(String::as_str)
    }

    /// Returns whether there are kernels for a tensor: it is on a CUDA device, has a supported element type and at least one element.
    /// Without NVRTC the answer is no, and compositions compute instead.
    pub fn serve(&self, tensor: &Tensor) -> bool {
        let known = matches!(tensor.dtype(), DType::F32 | DType::BF16 | DType::F16) && tensor.elem_count() > 0;
        known && tensor.device().is_cuda() && device::kernels_allowed() && self.ptx().is_ok()
    }

    /// Looks up a kernel by name, ready to be launched on a device.
    fn function(&self, device: &CudaDevice, kernel: &str) -> Result<CudaFunction> {
        let explain = |error| Error::msg(format!("the CUDA kernels of {} do not compile: {error}", self.name));
        let ptx = self.ptx().map_err(explain)?;
        Ok(device.get_or_load_custom_func(kernel, self.name, ptx)?.into_cuda_function())
    }
}

/// A launch under construction: a kernel and its arguments so far, each in a 64-bit word.
pub struct Launch {
    function: CudaFunction,
    stream: Arc<CudaStream>,
    arguments: Vec<u64>,
}

impl Launch {
    /// Begins a launch of a kernel on the device of a tensor.
    ///
    /// # Errors
    /// When the tensor is not on a CUDA device, or the kernels do not compile.
    pub fn new(kernels: &Kernels, kernel: &str, like: &Tensor) -> Result<Self> {
        let device = like.device().as_cuda_device()?;
        Ok(Self { function: kernels.function(device, kernel)?, stream: device.cuda_stream(), arguments: Vec::new() })
    }

    /// Begins a launch of the kernel for a tensor's element type: `NAME_f32`, `NAME_bf16` or `NAME_f16`.
    fn typed(kernels: &Kernels, name: &str, like: &Tensor) -> Result<Self> {
        let suffix = match like.dtype() {
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            _ => "f32",
        };
        Self::new(kernels, &format!("{name}_{suffix}"), like)
    }

    /// Adds a 64-bit count.
    #[must_use]
    pub fn long(mut self, count: usize) -> Self {
        self.arguments.push(count as u64);
        self
    }

    /// Adds a 32-bit count.
    ///
    /// # Errors
    /// When it does not fit into 32 bits.
    pub fn count(self, count: usize) -> Result<Self> {
        let counted = u32::try_from(count);
        let counted = counted.map_err(|_| Error::msg(format!("{count} rows are more than a kernel can count")))?;
        Ok(self.long(counted as usize))
    }

    /// Adds a number in single precision.
    #[must_use]
    pub fn number(self, number: f32) -> Self {
        self.long(number.to_bits() as usize)
    }

    /// Adds the address of a contiguous tensor's elements, or a null pointer.
    ///
    /// # Errors
    /// When the tensor is not contiguous or not on a CUDA device.
    pub fn tensor<'a>(self, tensor: impl Into<Option<&'a Tensor>>) -> Result<Self> {
        let tensor = tensor.into();
        if tensor.is_some_and(|tensor| !tensor.is_contiguous()) {
            return Err(Error::msg("a CUDA kernel reads contiguous tensors only").into());
        }
        self.strided(tensor)
    }

    /// Adds the address of the first element of a tensor that is part of another one's rows, or a null pointer.
    fn strided<'a>(self, tensor: impl Into<Option<&'a Tensor>>) -> Result<Self> {
        let address = tensor.into().map(|tensor| address(tensor, &self.stream)).transpose()?;
        Ok(self.long(address.unwrap_or(0) as usize))
    }

    /// Launches the kernel.
    ///
    /// # Safety
    /// The arguments are those of the kernel, and every pointer points to memory of the elements that the kernel reads or writes there.
    ///
    /// # Errors
    /// When CUDA rejects the launch.
    pub unsafe fn run(self, grid: [usize; 2], block: [usize; 2]) -> Result<()> {
        let axis = |size: usize| u32::try_from(size).map_err(|_| Error::msg(format!("{size} blocks are too many")));
        let config = LaunchConfig {
            grid_dim: (axis(grid[0])?, axis(grid[1])?, 1),
            block_dim: (axis(block[0])?, axis(block[1])?, 1),
            shared_mem_bytes: 0,
        };
        let mut launch = self.stream.launch_builder(&self.function);
        for argument in &self.arguments {
            launch.arg(argument);
        }
        // SAFETY: as the caller promises.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
    }

    /// Launches a kernel over elements, in `groups` groups of blocks.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn over(self, elements: usize, groups: usize) -> Result<()> {
        let blocks = elements.div_ceil(BLOCK).min(MOST_BLOCKS);
        // SAFETY: as the caller promises.
        unsafe { self.run([blocks, groups], [BLOCK, 1]) }
    }

    /// Launches a kernel with a warp for each row, four to a block.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn over_rows(self, rows: usize) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.run([rows.div_ceil(4), 1], [32, 4]) }
    }

    /// Launches a kernel that sums at most `rows` rows, with one block per 32 columns of each of `groups`.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn over_columns(self, width: usize, groups: usize, rows: usize) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe { self.run([width.div_ceil(32), groups], [32, rows.div_ceil(4).clamp(1, 32)]) }
    }
}

/// Calls a generic function with the element type of a tensor.
macro_rules! for_dtype {
    ($dtype:expr, $function:ident($($argument:expr),*)) => {
        match $dtype {
            DType::F32 => $function::<f32>($($argument),*),
            DType::F64 => $function::<f64>($($argument),*),
            DType::BF16 => $function::<bf16>($($argument),*),
            DType::F16 => $function::<f16>($($argument),*),
            DType::U32 => $function::<u32>($($argument),*),
            DType::I64 => $function::<i64>($($argument),*),
            other => Err(Error::msg(format!("no CUDA kernel supports {other:?} elements")).into()),
        }
    };
}

/// The address of the first element of a tensor.
pub(crate) fn address(tensor: &Tensor, stream: &CudaStream) -> Result<u64> {
    fn of<T: CudaDType>(storage: &CudaStorage, stream: &CudaStream) -> Result<u64> {
        Ok(storage.as_cuda_slice::<T>()?.device_ptr(stream).0)
    }
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        return Err(Error::msg("a CUDA kernel reads tensors of its device only").into());
    };
    let start = for_dtype!(tensor.dtype(), of(storage, stream))?;
    Ok(start + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}

/// Allocates a tensor for the result of a kernel that writes all of it, on the device of another one.
///
/// # Safety
/// A kernel must write every element before anything reads one.
pub(crate) unsafe fn uninitialized(shape: impl Into<Shape>, dtype: DType, like: &Tensor) -> Result<Tensor> {
    fn memory<T>(device: &CudaDevice, elements: usize) -> Result<CudaStorage>
    where
        T: CudaDType + candle_core::cuda_backend::cudarc::driver::DeviceRepr,
    {
        // SAFETY: as the caller promises.
        Ok(CudaStorage::wrap_cuda_slice(unsafe { device.alloc::<T>(elements)? }, device.clone()))
    }
    let (shape, device) = (shape.into(), like.device().as_cuda_device()?);
    let storage = for_dtype!(dtype, memory(device, shape.elem_count()))?;
    Ok(Tensor::from_storage(Storage::Cuda(storage), shape, BackpropOp::none(), false))
}

/// Allocates a matrix `[item, n x channel]` in single precision for a kernel's sums over the rows of each item. The kernel writes
/// `written` of the n vectors of every item; the others are 0.
///
/// # Safety
/// A kernel must write that many vectors, all different, before anything reads one.
unsafe fn sums([items, vectors, width]: [usize; 3], written: usize, like: &Tensor) -> Result<Tensor> {
    let shape = (items, vectors * width);
    if written == vectors {
        // SAFETY: as the caller promises.
        return unsafe { uninitialized(shape, DType::F32, like) };
    }
    Ok(Tensor::zeros(shape, DType::F32, like.device())?)
}

/// Checks that a tensor has the shape and element type that a kernel takes.
fn expect(operation: &'static str, tensor: &Tensor, dims: &[usize], dtype: DType) -> Result<()> {
    if tensor.dims() == dims && tensor.dtype() == dtype {
        return Ok(());
    }
    Err(NnError::shape(operation, format!("{dims:?} in {dtype:?}"), tensor.dims()))
}
