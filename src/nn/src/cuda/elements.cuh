// Elements in f32 or bf16, computed on in f32. No header is included: NVRTC needs none.
struct Bf16 {
    unsigned short bits;
};
__device__ inline float load(const float *at) { return *at; }
__device__ inline float load(const Bf16 *at) { return __uint_as_float(unsigned(at->bits) << 16); }
__device__ inline void store(float *at, float value) { *at = value; }
__device__ inline void store(Bf16 *at, float value) {
    unsigned bits = __float_as_uint(value);
    // To the nearest, ties to even; NaN stays NaN.
    at->bits = value != value ? 0x7fc0 : (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
template <class T> __device__ inline float load_or(const T *at, size_t index, float otherwise) { return at ? load(at + index) : otherwise; }

__device__ inline float warp_sum(float value) {
    for (int bits = 16; bits > 0; bits >>= 1) value += __shfl_xor_sync(0xffffffffu, value, bits);
    return value;
}
