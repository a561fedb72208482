// A CUDA driver whose device is the host, with only the functions that candle's CUDA backend and Flowmill call. Work is done before a call
// returns, so streams and events have nothing to order. See README.md for the environment variables.
#include <cuda.h>
#undef cuDeviceTotalMem // cuda.h renames functions to their versions; the versions are spelled out here.
#include "execution.h"
#include "driver.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#include <algorithm>
#include <cinttypes>
#include <dlfcn.h>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {
uint64_t environment(const char *name, uint64_t otherwise) {
    const char *value = getenv(name);
    if (!value) return otherwise;
    char *end;
    uint64_t number = strtoull(value, &end, 10);
    if (*value && !*end) return number;
    fprintf(stderr, "CUDA emulator: %s=%s is not a number\n", name, value);
    abort();
}
const int device_count = int(environment("CUDA_EMULATOR_DEVICES", 1));
const size_t device_memory = size_t(environment("CUDA_EMULATOR_MEMORY", 16384)) << 20; // MiB
const bool execute = !environment("CUDA_EMULATOR_NO_EXECUTION", 0);

std::mutex lock; // over everything below, and over launches: kernels run one at a time
struct Allocation {
    size_t size;
    int device;
};
std::map<CUdeviceptr, Allocation> allocations;
struct Copies {
    uint64_t count = 0, bytes = 0;
    void add(size_t size) { count++, bytes += size; }
};
struct {
    uint64_t launches = 0, products = 0, allocations = 0, fills = 0;
    Copies to_device, from_device, on_device;
    std::map<std::string, uint64_t> kernels;
} counted;
struct {
    size_t used = 0, peak = 0;
    size_t pool_peak = 0; // since it was last reset
} memory_of[16];

void report() {
    uint64_t level = environment("CUDA_EMULATOR_REPORT", 0);
    if (!level) return;
    auto line = [](const char *what, uint64_t count, uint64_t bytes, bool sized) {
        if (sized) fprintf(stderr, "  %-28s %12" PRIu64 "  %14" PRIu64 " bytes\n", what, count, bytes);
        else fprintf(stderr, "  %-28s %12" PRIu64 "\n", what, count);
    };
    fprintf(stderr, "CUDA emulator:\n");
    line("kernel launches", counted.launches, 0, false);
    line("matrix products (cuBLAS)", counted.products, 0, false);
    line("allocations", counted.allocations, 0, false);
    line("fills", counted.fills, 0, false);
    line("copies, host to device", counted.to_device.count, counted.to_device.bytes, true);
    line("copies, device to host", counted.from_device.count, counted.from_device.bytes, true);
    line("copies on the device", counted.on_device.count, counted.on_device.bytes, true);
    for (int device = 0; device < device_count; device++)
        fprintf(stderr, "  device %d: peak memory %zu bytes, %zu bytes at the end\n", device, memory_of[device].peak, memory_of[device].used);
    if (level < 2) return;
    std::vector<std::pair<uint64_t, std::string>> sorted;
    for (auto &[name, count] : counted.kernels) sorted.emplace_back(count, name);
    std::sort(sorted.rbegin(), sorted.rend());
    fprintf(stderr, "  launches by kernel:\n");
    for (auto &[count, name] : sorted) fprintf(stderr, "  %12" PRIu64 "  %s\n", count, name.c_str());
}

thread_local CUcontext current_context; // the number of the device, plus one
int current_device() { return current_context ? int(intptr_t(current_context)) - 1 : 0; }

// Bytes of a pattern around every allocation, which show writes out of bounds when it is released.
constexpr size_t GUARD = 256;
constexpr unsigned char GUARD_PATTERN = 0xa5;
char *guards(CUdeviceptr at) { return (char *)at - GUARD; }

CUresult allocate(CUdeviceptr *at, size_t size) {
    std::lock_guard guard(lock);
    auto &memory = memory_of[current_device()];
    if (size > device_memory - memory.used) return CUDA_ERROR_OUT_OF_MEMORY;
    char *whole = (char *)aligned_alloc(256, (size + 255) / 256 * 256 + 2 * GUARD);
    if (!whole) return CUDA_ERROR_OUT_OF_MEMORY;
    *at = (CUdeviceptr)(whole + GUARD);
    memset(whole, GUARD_PATTERN, GUARD);
    memset((void *)*at, 0xff, size); // New memory holds anything.
    memset((char *)*at + size, GUARD_PATTERN, GUARD);
    allocations[*at] = {size, current_device()};
    counted.allocations++;
    memory.used += size;
    memory.peak = std::max(memory.peak, memory.used);
    memory.pool_peak = std::max(memory.pool_peak, memory.used);
    return CUDA_SUCCESS;
}

CUresult release(CUdeviceptr at) {
    std::lock_guard guard(lock);
    if (!at) return CUDA_SUCCESS;
    auto found = allocations.find(at);
    if (found == allocations.end()) return CUDA_ERROR_INVALID_VALUE;
    size_t size = found->second.size;
    const unsigned char *before = (unsigned char *)guards(at), *after = (unsigned char *)at + size;
    for (size_t i = 0; i < GUARD; i++)
        if (before[i] != GUARD_PATTERN || after[i] != GUARD_PATTERN) {
            fprintf(stderr, "CUDA emulator: something wrote out of the bounds of an allocation of %zu bytes\n", size);
            abort();
        }
    memory_of[found->second.device].used -= size;
    allocations.erase(found);
    memset((void *)at, 0xff, size); // What is read after the release shows as NaN, until the memory is used again.
    free(guards(at));
    return CUDA_SUCCESS;
}

// Whether `size` bytes from `at` lie in one live allocation; the lock is held.
bool is_live(CUdeviceptr at, size_t size) {
    if (!size) return true;
    auto next = allocations.upper_bound(at);
    if (next == allocations.begin()) return false;
    auto &[start, allocation] = *std::prev(next);
    return at - start <= allocation.size && size <= allocation.size - (at - start);
}

CUresult copy_to_device(CUdeviceptr to, const void *from, size_t size) {
    std::lock_guard guard(lock);
    if (!is_live(to, size)) return CUDA_ERROR_INVALID_VALUE;
    counted.to_device.add(size);
    memcpy((void *)to, from, size);
    return CUDA_SUCCESS;
}
CUresult copy_from_device(void *to, CUdeviceptr from, size_t size) {
    std::lock_guard guard(lock);
    if (!is_live(from, size)) return CUDA_ERROR_INVALID_VALUE;
    counted.from_device.add(size);
    memcpy(to, (void *)from, size);
    return CUDA_SUCCESS;
}
CUresult copy_on_device(CUdeviceptr to, CUdeviceptr from, size_t size) {
    std::lock_guard guard(lock);
    if (!is_live(to, size) || !is_live(from, size)) return CUDA_ERROR_INVALID_VALUE;
    counted.on_device.add(size);
    memmove((void *)to, (void *)from, size);
    return CUDA_SUCCESS;
}
CUresult fill(CUdeviceptr at, unsigned char value, size_t size) {
    std::lock_guard guard(lock);
    if (!is_live(at, size)) return CUDA_ERROR_INVALID_VALUE;
    counted.fills++;
    memset((void *)at, value, size);
    return CUDA_SUCCESS;
}

// What stands for a compiled module in place of PTX: this and its number.
constexpr char MODULE_IMAGE[] = "// emulated module ";

struct Function {
    emulator::Thunk kernel;
    std::string name;
};

const char *error_name(CUresult error) {
    switch (error) {
    case CUDA_SUCCESS: return "CUDA_SUCCESS";
    case CUDA_ERROR_INVALID_VALUE: return "CUDA_ERROR_INVALID_VALUE";
    case CUDA_ERROR_OUT_OF_MEMORY: return "CUDA_ERROR_OUT_OF_MEMORY";
    case CUDA_ERROR_NO_DEVICE: return "CUDA_ERROR_NO_DEVICE";
    case CUDA_ERROR_INVALID_DEVICE: return "CUDA_ERROR_INVALID_DEVICE";
    case CUDA_ERROR_NOT_FOUND: return "CUDA_ERROR_NOT_FOUND";
    default: return "an error that the CUDA emulator has no name for";
    }
}
} // namespace

std::string add_module(const char *path) {
    std::lock_guard guard(lock);
    size_t number = emulator::add_module();
    if (dlopen(path, RTLD_NOW)) return MODULE_IMAGE + std::to_string(number);
    fprintf(stderr, "CUDA emulator: %s\n", dlerror());
    return {};
}

// A matrix product by the stand-in for cuBLAS; returns whether to compute it.
bool emulated_product() {
    std::lock_guard guard(lock);
    counted.products++;
    return execute;
}

extern "C" {
CUresult cuInit(unsigned) {
    static const bool once = !atexit(report);
    if (!once || device_count > 16) return CUDA_ERROR_UNKNOWN;
    return device_count ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}
CUresult cuDriverGetVersion(int *version) { return *version = 13000, CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult error, const char **text) { return *text = error_name(error), CUDA_SUCCESS; }
CUresult cuGetErrorName(CUresult error, const char **text) { return *text = error_name(error), CUDA_SUCCESS; }

CUresult cuDeviceGetCount(int *count) { return *count = device_count, CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < device_count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDeviceGetName(char *name, int size, CUdevice) { return snprintf(name, size, "emulated on the host"), CUDA_SUCCESS; }
CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device) {
    memset(uuid, 0, sizeof *uuid);
    uuid->bytes[0] = char(device);
    return CUDA_SUCCESS;
}
CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice) { return *bytes = device_memory, CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice) {
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 0; break;
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: *value = 1; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 1; break;
    default: *value = 0;
    }
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { return *context = CUcontext(intptr_t(device) + 1), CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRelease_v2(CUdevice) { return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext *context) { return *context = current_context, CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { return current_context = context, CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *device) { return *device = current_device(), CUDA_SUCCESS; }
CUresult cuCtxSynchronize() { return CUDA_SUCCESS; }

CUresult cuStreamCreate(CUstream *stream, unsigned) { return *stream = CUstream(16), CUDA_SUCCESS; }
CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned, int) { return *stream = CUstream(16), CUDA_SUCCESS; }
CUresult cuStreamDestroy_v2(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamSynchronize(CUstream) { return CUDA_SUCCESS; }
CUresult cuStreamWaitEvent(CUstream, CUevent, unsigned) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus *status) { return *status = CU_STREAM_CAPTURE_STATUS_NONE, CUDA_SUCCESS; }
CUresult cuEventCreate(CUevent *event, unsigned) { return *event = CUevent(16), CUDA_SUCCESS; }
CUresult cuEventDestroy_v2(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventRecord(CUevent, CUstream) { return CUDA_SUCCESS; }
CUresult cuEventSynchronize(CUevent) { return CUDA_SUCCESS; }
CUresult cuEventQuery(CUevent) { return CUDA_SUCCESS; }

// Nothing can be allocated from a pool only.
CUresult cuMemAlloc_v2(CUdeviceptr *at, size_t size) { return size ? allocate(at, size) : CUDA_ERROR_INVALID_VALUE; }
CUresult cuMemAllocAsync(CUdeviceptr *at, size_t size, CUstream) { return size ? allocate(at, size) : (*at = 0, CUDA_SUCCESS); }
CUresult cuMemFree_v2(CUdeviceptr at) { return release(at); }
CUresult cuMemFreeAsync(CUdeviceptr at, CUstream) { return release(at); }
CUresult cuMemGetInfo_v2(size_t *available, size_t *total) {
    std::lock_guard guard(lock);
    *total = device_memory;
    *available = device_memory - memory_of[current_device()].used;
    return CUDA_SUCCESS;
}
// The pool of a device keeps nothing: memory returns to the host at once.
CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device) { return *pool = CUmemoryPool(intptr_t(device) + 1), CUDA_SUCCESS; }
CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device) { return cuDeviceGetDefaultMemPool(pool, device); }
CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
    std::lock_guard guard(lock);
    auto &memory = memory_of[intptr_t(pool) - 1];
    switch (attribute) {
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT: return *(cuuint64_t *)value = memory.used, CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: return *(cuuint64_t *)value = memory.pool_peak, CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
}
CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value) {
    std::lock_guard guard(lock);
    auto &memory = memory_of[intptr_t(pool) - 1];
    switch (attribute) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD: return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: // can be reset, to nothing but the present
        if (*(cuuint64_t *)value) return CUDA_ERROR_INVALID_VALUE;
        return memory.pool_peak = memory.used, CUDA_SUCCESS;
    default: return CUDA_ERROR_INVALID_VALUE;
    }
}
CUresult cuMemPoolTrimTo(CUmemoryPool, size_t) { return CUDA_SUCCESS; }

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size) { return copy_to_device(to, from, size); }
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream) { return copy_to_device(to, from, size); }
CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size) { return copy_from_device(to, from, size); }
CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream) { return copy_from_device(to, from, size); }
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t size) { return copy_on_device(to, from, size); }
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream) { return copy_on_device(to, from, size); }
CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t size, CUstream) { return copy_on_device(to, from, size); }
CUresult cuMemsetD8_v2(CUdeviceptr at, unsigned char value, size_t size) { return fill(at, value, size); }
CUresult cuMemsetD8Async(CUdeviceptr at, unsigned char value, size_t size, CUstream) { return fill(at, value, size); }

// The image of a module is a number in a comment; candle's PTX files have none, for their kernels are module 0. Handles are numbers plus one.
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
    constexpr size_t prefix = sizeof MODULE_IMAGE - 1;
    bool compiled = !strncmp((const char *)image, MODULE_IMAGE, prefix);
    *module = CUmodule(compiled ? strtoul((const char *)image + prefix, nullptr, 10) + 1 : 1);
    return CUDA_SUCCESS;
}
CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned, CUjit_option *, void **) { return cuModuleLoadData(module, image); }
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
    std::lock_guard guard(lock);
    emulator::Thunk kernel = emulator::find_kernel(size_t(module) - 1, name);
    if (!kernel) {
        fprintf(stderr, "CUDA emulator: there is no kernel %s\n", name);
        return CUDA_ERROR_NOT_FOUND;
    }
    static std::map<emulator::Thunk, Function> functions;
    *function = (CUfunction)&functions.emplace(kernel, Function{kernel, name}).first->second;
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
CUresult cuLaunchKernel(CUfunction handle, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared_bytes, CUstream, void **parameters, void **) {
    // What a GPU refuses.
    uint64_t threads = uint64_t(bx) * by * bz;
    if (!gx || !gy || !gz || gx > 0x7fffffff || gy > 65535 || gz > 65535) return CUDA_ERROR_INVALID_VALUE;
    if (!threads || threads > 1024 || bz > 64 || shared_bytes > emulator::MOST_SHARED_BYTES) return CUDA_ERROR_INVALID_VALUE;
    std::lock_guard guard(lock);
    const Function &function = *(const Function *)handle;
    counted.launches++;
    counted.kernels[function.name]++;
    if (execute) emulator::launch(function.kernel, dim3(gx, gy, gz), dim3(bx, by, bz), shared_bytes, parameters);
    return CUDA_SUCCESS;
}
} // extern "C"
