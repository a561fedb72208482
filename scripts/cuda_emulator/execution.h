// CUDA's execution model on the host.
//
// A .cu file compiles as C++ with `-include execution.h`, after transform.py has prepared it. Every thread of a block is a fiber, and
// blocks run one after another. __syncthreads and the operations of a warp suspend a fiber until its block or its warp has arrived.
// A deadlock or undefined behavior on a GPU ends the program here with a message. Memory that a GPU leaves undefined contains
// NaN (all bits set).
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector_types.h>
#include <vector_functions.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <cuda_fp8.h>

// What nvcc defines for a device of compute capability 8.0.
#define __CUDA_ARCH__ 800
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0

#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __shared__
#undef __forceinline__
#undef __launch_bounds__
#undef __restrict__
#ifdef CUDA_EMULATOR_LIST_KERNELS
#define __global__ cuda_emulator_kernel // Marks kernels in preprocessed sources.
#else
#define __global__
#endif
#define __device__
#define __host__
#define __constant__
#define __shared__ static // One block runs at a time, on one thread.
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict

namespace emulator {
// Place of a thread in its launch.
struct Position {
    uint3 thread, block;
    dim3 block_dim, grid_dim;
};
// Position of the running fiber.
extern Position *position;

void block_barrier();
void warp_barrier(unsigned mask);
// Lane of the running fiber in its warp.
unsigned lane();
// 16 bytes per lane of the running warp.
void *exchange_slot(unsigned lane);
// Fills a block's memory with NaN when the first thread of the block meets it.
void fresh(void *memory, size_t size);
// The memory of a block whose size a launch gives, at most MOST_SHARED_BYTES.
void *dynamic_shared();
static constexpr unsigned MOST_SHARED_BYTES = 163 << 10; // as on compute capability 8.0
[[noreturn]] void fail(const char *message);

using Thunk = void (*)(void **parameters);
// Adds a kernel to the newest module.
void add_kernel(const char *name, Thunk thunk);
// Begins a module; returns its number. Module 0 has candle's kernels.
size_t add_module();
// A kernel of a module by its name, or null.
Thunk find_kernel(size_t module, const char *name);
void launch(Thunk kernel, dim3 grid, dim3 block, unsigned shared_bytes, void **parameters);

// Calls a kernel with the parameters of a launch, which are pointers to the values.
template <class F> struct Caller;
template <class... A> struct Caller<void (*)(A...)> {
    template <void (*F)(A...), size_t... I> static void spread(void **p, std::index_sequence<I...>) {
        F(*(std::remove_const_t<A> *)p[I]...);
    }
    template <void (*F)(A...)> static void call(void **p) { spread<F>(p, std::index_sequence_for<A...>{}); }
};
struct Registration {
    Registration(const char *name, Thunk thunk) { add_kernel(name, thunk); }
};
#define CUDA_EMULATOR_KERNEL(name) \
    static emulator::Registration registration_of_##name(#name, &emulator::Caller<decltype(&name)>::call<&name>);

template <class T> T shuffle(unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= 16);
    if (!(mask >> lane() & 1)) fail("a lane outside of the mask takes part in a shuffle");
    memcpy(exchange_slot(lane()), &value, sizeof(T));
    warp_barrier(mask);
    T result = value;
    if (from < 32 && (mask >> from & 1)) memcpy(&result, exchange_slot(from), sizeof(T));
    else if (from < 32) memset(&result, 0xff, sizeof(T)); // A lane outside of the mask: undefined on a GPU.
    warp_barrier(mask);
    return result;
}
} // namespace emulator

#define threadIdx (emulator::position->thread)
#define blockIdx (emulator::position->block)
#define blockDim (emulator::position->block_dim)
#define gridDim (emulator::position->grid_dim)
#define warpSize 32

static inline void __syncthreads() { emulator::block_barrier(); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::warp_barrier(mask); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}

template <class T> T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    unsigned self = emulator::lane();
    return emulator::shuffle(mask, value, (self & ~(width - 1u)) + (unsigned(from) & (width - 1u)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    unsigned self = emulator::lane(), from = self ^ unsigned(bits);
    return emulator::shuffle(mask, value, from / width > self / width ? self : from);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    unsigned self = emulator::lane(), from = self + distance;
    return emulator::shuffle(mask, value, from / width != self / width ? self : from);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
    unsigned self = emulator::lane();
    return emulator::shuffle(mask, value, self % width < distance ? self : self - distance);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned result = 0;
    for (unsigned i = 0; i < 32; i++)
        if (mask >> i & 1) result |= unsigned(emulator::shuffle(mask, predicate != 0, i)) << i;
    return result;
}

// Atomic operations: fibers change only at barriers.
template <class T> T plain_atomic_add(T *at, T value) { T old = *at; *at = T(old + value); return old; }
static inline float atomicAdd(float *at, float value) { return plain_atomic_add(at, value); }
static inline double atomicAdd(double *at, double value) { return plain_atomic_add(at, value); }
static inline int atomicAdd(int *at, int value) { return plain_atomic_add(at, value); }
static inline unsigned atomicAdd(unsigned *at, unsigned value) { return plain_atomic_add(at, value); }
static inline unsigned long long atomicAdd(unsigned long long *at, unsigned long long value) { return plain_atomic_add(at, value); }
static inline __half atomicAdd(__half *at, __half value) {
    __half old = *at;
    *at = __float2half(__half2float(old) + __half2float(value));
    return old;
}
static inline __nv_bfloat16 atomicAdd(__nv_bfloat16 *at, __nv_bfloat16 value) {
    __nv_bfloat16 old = *at;
    *at = __float2bfloat16(__bfloat162float(old) + __bfloat162float(value));
    return old;
}
template <class T> T atomicCAS(T *at, T expected, T value) { T old = *at; if (old == expected) *at = value; return old; }
template <class T, class V> T atomicMax(T *at, V value) { T old = *at; if (T(value) > old) *at = T(value); return old; }
template <class T, class V> T atomicMin(T *at, V value) { T old = *at; if (T(value) < old) *at = T(value); return old; }

// Functions of device code that the host's headers lack.
using std::isinf;
using std::isnan;
using std::signbit;
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678118654752440f); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
#define __expf expf
static inline float __fdividef(float a, float b) { return a / b; }
template <class To, class From> To reinterpret_bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}
static inline float __uint_as_float(unsigned x) { return reinterpret_bits<float>(x); }
static inline unsigned __float_as_uint(float x) { return reinterpret_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return reinterpret_bits<float>(x); }
static inline int __float_as_int(float x) { return reinterpret_bits<int>(x); }
static inline double __longlong_as_double(long long x) { return reinterpret_bits<double>(x); }
static inline long long __double_as_longlong(double x) { return reinterpret_bits<long long>(x); }
#define HALF_FUNCTION(name, function) \
    static inline __half name(__half x) { return __float2half(function(__half2float(x))); } \
    static inline __nv_bfloat16 name(__nv_bfloat16 x) { return __float2bfloat16(function(__bfloat162float(x))); }
HALF_FUNCTION(hexp, expf)
HALF_FUNCTION(hlog, logf)
HALF_FUNCTION(hsin, sinf)
HALF_FUNCTION(hcos, cosf)
HALF_FUNCTION(hsqrt, sqrtf)
HALF_FUNCTION(hrsqrt, rsqrtf)
template <class T> T __ldg(const T *at) { return *at; }
template <class A, class B> constexpr std::common_type_t<A, B> min(A a, B b) {
    using T = std::common_type_t<A, B>;
    return T(b) < T(a) ? T(b) : T(a);
}
template <class A, class B> constexpr std::common_type_t<A, B> max(A a, B b) {
    using T = std::common_type_t<A, B>;
    return T(a) < T(b) ? T(b) : T(a);
}
