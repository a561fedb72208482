//! CUDA's libraries, loaded at the first call of one of their functions.
//!
//! candle links libcuda, libcublas, libcurand and libnvrtc, so a program would not start if one of them is missing. This module
//! defines the functions that candle and cudarc call, so the linker needs no library for them. The first call of a function
//! looks it up in its library. If the library or the function is missing, every call returns that library's code for "not
//! available". A program with CUDA support then runs on the CPU.
//!
//! A function that is not listed is linked as usual, which makes its library necessary again. `scripts/check_cuda` detects this.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

unsafe extern "C" {
    fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}
/// Resolves all references of a library when it is loaded.
const RTLD_NOW: c_int = 2;

/// A shared library that is loaded on demand.
pub(crate) struct Library {
    /// File names to try in order, newest version first.
    pub(crate) files: &'static [&'static str],
    /// The product that the library belongs to.
    pub(crate) part_of: &'static str,
    /// Return value of its functions if the library is missing.
    missing: extern "C" fn() -> c_int,
    handle: OnceLock<Option<Handle>>,
}

/// The handle of a loaded library.
struct Handle(*mut c_void);
// SAFETY: a handle is only passed to dlsym, which may be called from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Library {
    const fn new(files: &'static [&'static str], part_of: &'static str, missing: extern "C" fn() -> c_int) -> Self {
        Self { files, part_of, missing, handle: OnceLock::new() }
    }

    /// Returns whether the library is on this machine.
    pub(crate) fn is_found(&self) -> bool {
        self.handle().is_some()
    }

    fn handle(&self) -> Option<&Handle> {
        self.handle.get_or_init(|| self.files.iter().find_map(|file| load(file))).as_ref()
    }
}

/// Loads a library from the system's search path, or else from the usual folders of CUDA.
fn load(file: &str) -> Option<Handle> {
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let folders = homes.chain([PathBuf::from("/usr/local/cuda")]).map(|home| home.join("lib64").join(file));
    let places = std::iter::once(PathBuf::from(file)).chain(folders);
    places.into_iter().find_map(|place| {
        let name = CString::new(place.into_os_string().into_encoded_bytes()).ok()?;
        // SAFETY: `name` ends with a zero byte, and loading NVIDIA's libraries runs no foreign code.
        let handle = unsafe { dlopen(name.as_ptr(), RTLD_NOW) };
        (!handle.is_null()).then_some(Handle(handle))
    })
}

extern "C" fn no_driver() -> c_int {
    100 // CUDA_ERROR_NO_DEVICE
}
extern "C" fn no_cublas() -> c_int {
    1 // CUBLAS_STATUS_NOT_INITIALIZED
}
extern "C" fn no_curand() -> c_int {
    203 // CURAND_STATUS_INITIALIZATION_FAILED
}
extern "C" fn no_nvrtc() -> c_int {
    11 // NVRTC_ERROR_INTERNAL_ERROR
}

pub(crate) static DRIVER: Library = Library::new(&["libcuda.so.1"], "the NVIDIA driver", no_driver);
pub(crate) static CUBLAS: Library =
    Library::new(&["libcublas.so.13", "libcublas.so.12"], "the CUDA toolkit (cuBLAS)", no_cublas);
pub(crate) static CURAND: Library = Library::new(&["libcurand.so.10"], "the CUDA toolkit (cuRAND)", no_curand);
static NVRTC: Library = Library::new(&["libnvrtc.so.13", "libnvrtc.so.12"], "the CUDA toolkit (NVRTC)", no_nvrtc);

/// A function of a library and its address. The assembly below reads `found` at offset 0.
#[repr(C)]
struct Function {
    found: AtomicPtr<c_void>,
    name: &'static CStr,
    library: &'static Library,
}

/// Returns the address to call for a function: the function itself, or one that reports it as missing.
extern "C" fn look_up(function: &Function) -> *mut c_void {
    let of_library = |library: &Handle| {
        // SAFETY: the handle is of a library that is never closed, and the name ends with a zero byte.
        unsafe { dlsym(library.0, function.name.as_ptr()) }
    };
    let found = function.library.handle().map_or(std::ptr::null_mut(), of_library);
    let target = if found.is_null() { function.library.missing as *mut c_void } else { found };
    function.found.store(target, Ordering::Release);
    target
}

/// Looks up the function in r11 and continues there, with all argument registers unchanged.
#[unsafe(naked)]
unsafe extern "C" fn look_up_and_jump() {
    std::arch::naked_asm!(
        "push rdi; push rsi; push rdx; push rcx; push r8; push r9; push rax",
        "sub rsp, 128",
        "movups [rsp], xmm0; movups [rsp + 16], xmm1; movups [rsp + 32], xmm2; movups [rsp + 48], xmm3",
        "movups [rsp + 64], xmm4; movups [rsp + 80], xmm5; movups [rsp + 96], xmm6; movups [rsp + 112], xmm7",
        "mov rdi, r11",
        "call {look_up}",
        "mov r11, rax",
        "movups xmm0, [rsp]; movups xmm1, [rsp + 16]; movups xmm2, [rsp + 32]; movups xmm3, [rsp + 48]",
        "movups xmm4, [rsp + 64]; movups xmm5, [rsp + 80]; movups xmm6, [rsp + 96]; movups xmm7, [rsp + 112]",
        "add rsp, 128",
        "pop rax; pop r9; pop r8; pop rcx; pop rdx; pop rsi; pop rdi",
        "jmp r11",
        look_up = sym look_up,
    )
}

/// Defines functions of a library, whatever their arguments: each jumps to the address that was looked up.
macro_rules! functions {
    ($library:ident: $($name:ident)*) => { $(
        #[allow(non_snake_case, reason = "the names are those of C")]
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            static FUNCTION: Function = Function {
                found: AtomicPtr::new(std::ptr::null_mut()),
                // The concatenation ends with its only zero byte.
                name: match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a name of a function holds a zero byte"),
                },
                library: &$library,
            };
            std::arch::naked_asm!(
                "mov r11, [rip + {function}]",
                "test r11, r11",
                "jz 2f",
                "jmp r11",
                "2: lea r11, [rip + {function}]",
                "jmp {look_up_and_jump}",
                function = sym FUNCTION,
                look_up_and_jump = sym look_up_and_jump,
            )
        }
    )* };
}

functions! {
    DRIVER:
    cuCtxCreate_v4 cuCtxDestroy_v2 cuCtxGetCacheConfig cuCtxGetCurrent cuCtxGetLimit cuCtxGetStreamPriorityRange
    cuCtxSetCacheConfig cuCtxSetCurrent cuCtxSetFlags cuCtxSetLimit cuCtxSynchronize cuDestroyExternalMemory
    cuDeviceGet cuDeviceGetAttribute cuDeviceGetCount cuDeviceGetDefaultMemPool cuDeviceGetMemPool cuDeviceGetName
    cuDeviceGetUuid_v2 cuDevicePrimaryCtxRelease_v2 cuDevicePrimaryCtxRetain cuDeviceSetMemPool cuDeviceTotalMem_v2
    cuDriverGetVersion cuEventCreate cuEventDestroy_v2 cuEventElapsedTime_v2 cuEventQuery cuEventRecord
    cuEventSynchronize cuExternalMemoryGetMappedBuffer cuFuncGetAttribute cuFuncSetAttribute cuFuncSetCacheConfig
    cuGetErrorName cuGetErrorString cuGraphDestroy cuGraphExecDestroy cuGraphInstantiateWithFlags cuGraphLaunch
    cuGraphUpload cuImportExternalMemory cuInit cuLaunchCooperativeKernel cuLaunchHostFunc cuLaunchKernel
    cuMemAdvise_v2 cuMemAlloc_v2 cuMemAllocAsync cuMemAllocFromPoolAsync cuMemAllocManaged cuMemcpyDtoD_v2
    cuMemcpyDtoDAsync_v2 cuMemcpyDtoH_v2 cuMemcpyDtoHAsync_v2 cuMemcpyHtoD_v2 cuMemcpyHtoDAsync_v2 cuMemcpyPeerAsync
    cuMemFree_v2 cuMemFreeAsync cuMemFreeHost cuMemGetInfo_v2 cuMemHostAlloc cuMemPoolCreate cuMemPoolDestroy
    cuMemPoolGetAttribute cuMemPoolSetAttribute cuMemPoolTrimTo cuMemPrefetchAsync_v2 cuMemsetD8_v2 cuMemsetD8Async
    cuModuleGetFunction cuModuleGetGlobal_v2 cuModuleLoad cuModuleLoadData cuModuleUnload
    cuOccupancyAvailableDynamicSMemPerBlock cuOccupancyMaxActiveBlocksPerMultiprocessor
    cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags cuOccupancyMaxActiveClusters cuOccupancyMaxPotentialBlockSize
    cuOccupancyMaxPotentialBlockSizeWithFlags cuOccupancyMaxPotentialClusterSize cuProfilerStart cuProfilerStop
    cuStreamAttachMemAsync cuStreamBeginCapture_v2 cuStreamCreate cuStreamCreateWithPriority cuStreamDestroy_v2
    cuStreamEndCapture cuStreamIsCapturing cuStreamSynchronize cuStreamWaitEvent
}
functions! {
    CUBLAS:
    cublasCreate_v2 cublasDasum_v2 cublasDestroy_v2 cublasDgemmStridedBatched cublasDgemm_v2 cublasDgemv_v2
    cublasGemmEx cublasGemmGroupedBatchedEx cublasGemmStridedBatchedEx cublasGetPointerMode_v2 cublasSasum_v2
    cublasSetPointerMode_v2 cublasSetStream_v2 cublasSgemmStridedBatched cublasSgemm_v2 cublasSgemv_v2
}
functions! {
    CURAND:
    curandCreateGenerator curandDestroyGenerator curandGenerate curandGenerateLogNormal curandGenerateLogNormalDouble
    curandGenerateLongLong curandGenerateNormal curandGenerateNormalDouble curandGeneratePoisson curandGenerateUniform
    curandGenerateUniformDouble curandSetGeneratorOffset curandSetPseudoRandomGeneratorSeed curandSetStream
}
functions! {
    NVRTC:
    nvrtcCompileProgram nvrtcCreateProgram nvrtcDestroyProgram nvrtcGetPTX nvrtcGetPTXSize nvrtcGetProgramLog
    nvrtcGetProgramLogSize
}
