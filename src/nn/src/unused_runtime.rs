//! Functions of the CUDA runtime (libcudart) that do nothing, so that the program does not need the library to start.
//!
//! candle-kernels links kernels for quantized weights into the program. They are the only ones that are not loaded as PTX: when the
//! program starts, they register with the runtime. Flowmill has no quantized weights, so nothing ever launches them, and nothing else
//! uses the runtime. The registration functions defined here therefore do nothing, and the launch functions fail.

use std::ffi::c_int;

/// Defines functions that fail, whatever their arguments.
macro_rules! failing {
    ($($name:ident)*) => { $(
        #[allow(non_snake_case, reason = "the names are those of C")]
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> c_int {
            3 // cudaErrorInitializationError
        }
    )* };
}

failing! {
    __cudaGetKernel __cudaInitModule __cudaLaunchKernel __cudaLaunchKernel_ptsz __cudaPopCallConfiguration
    __cudaPushCallConfiguration __cudaRegisterFatBinary __cudaRegisterFatBinaryEnd __cudaRegisterFunction
    __cudaRegisterVar __cudaUnregisterFatBinary cudaDeviceGetAttribute cudaFree cudaFreeAsync cudaFreeAsync_ptsz
    cudaFuncGetAttributes cudaFuncSetAttribute cudaGetDevice cudaGetDeviceCount cudaGetErrorName cudaGetErrorString
    cudaGetLastError cudaLaunchKernel cudaLaunchKernel_ptsz cudaMalloc cudaMallocAsync cudaMallocAsync_ptsz
    cudaMemsetAsync cudaMemsetAsync_ptsz cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cudaPeekAtLastError
    cudaSetDevice cudaStreamSynchronize cudaStreamSynchronize_ptsz
}
