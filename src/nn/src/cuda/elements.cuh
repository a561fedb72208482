// Elements in f32, bf16 or fp16, computed on in f32. No header is included: NVRTC needs none.
struct Bf16 {
    unsigned short bits;
};
struct F16 {
    unsigned short bits;
};
typedef unsigned long long Count;
// Entry of a row map for a row of zeros.
constexpr unsigned NOTHING = 0xffffffffu;

__device__ inline float load(const float *at) { return *at; }
__device__ inline float load(const Bf16 *at) { return __uint_as_float(unsigned(at->bits) << 16); }
__device__ inline float load(const F16 *at) {
    unsigned magnitude = at->bits & 0x7fff;
    // The exponent's bias differs by 112; multiplying also converts numbers below the smallest normal one correctly.
    float value = magnitude < 0x7c00 ? __uint_as_float(magnitude << 13) * 5.192296858534828e33f : __uint_as_float(0x7f800000 | magnitude << 13);
    return at->bits & 0x8000 ? -value : value;
}
__device__ inline void store(float *at, float value) { *at = value; }
// To the nearest, ties to even; NaN stays NaN.
__device__ inline void store(Bf16 *at, float value) {
    unsigned bits = __float_as_uint(value);
    at->bits = value != value ? 0x7fc0 : (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
__device__ inline void store(F16 *at, float value) {
    unsigned sign = __float_as_uint(value) >> 16 & 0x8000, bits = __float_as_uint(value) & 0x7fffffff, half;
    if (bits > 0x7f800000) half = 0x7e00;
    else if (bits >= 0x477ff000) half = 0x7c00; // infinity from halfway beyond the largest number on
    else if (bits < 0x38800000) half = __float_as_uint(__uint_as_float(bits) + 0.5f) - 0x3f000000; // 1/2 has the steps of the smallest numbers
    else half = (bits - 0x38000000 + 0xfff + (bits >> 13 & 1)) >> 13;
    at->bits = (unsigned short)(sign | half);
}
template <class T> __device__ inline float load_or(const T *at, size_t index, float otherwise) { return at ? load(at + index) : otherwise; }

template <class T> __device__ inline T warp_sum(T value) {
    for (int bits = 16; bits > 0; bits >>= 1) value += __shfl_xor_sync(0xffffffffu, value, bits);
    return value;
}
// The sum over threadIdx.y, in a fixed order; valid in the threads with threadIdx.y = 0. All threads of the block call it;
// blockDim = (32, at most 32).
__device__ inline float column_sum(float value) {
    __shared__ float sums[32][33];
    __syncthreads();
    sums[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    if (threadIdx.y) return 0;
    float total = 0;
    for (unsigned i = 0; i < blockDim.y; i++) total += sums[i][threadIdx.x];
    return total;
}
// Loops over the `count` elements of a launch, one thread per element.
#define FOR_ELEMENTS(i, count) \
    for (Count i = (Count)blockIdx.x * blockDim.x + threadIdx.x, step = (Count)gridDim.x * blockDim.x; i < count; i += step)
#define FOR_TYPES(KERNELS) KERNELS(float, f32) KERNELS(Bf16, bf16) KERNELS(F16, f16)
