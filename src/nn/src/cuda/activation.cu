// Activation functions and their slopes, by the formulas of kernels/activation.rs.

enum Kind { Relu, LeakyRelu, Silu, Gelu, GeluTanh, Mish, Tanh, Sigmoid };

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ inline float normal_cdf(float x) { return 0.5f * (1.0f + erff(x * 0.70710678f)); }
__device__ inline float gelu_argument(float x) { return 0.7978846f * x * (1.0f + 0.044715f * x * x); }
// With e = e^x and n = e (e + 2), tanh(ln(1 + e)) = n / (n + 2); beyond 20 it is 1 in single precision. Returns 2 / (n + 2).
__device__ inline float mish_rest(float x) {
    float e = expf(fminf(x, 20.0f));
    return 2.0f / (e * (e + 2.0f) + 2.0f);
}

__device__ inline float value(int kind, float x) {
    switch (kind) {
    case Relu: return fmaxf(x, 0.0f);
    case LeakyRelu: return x > 0 ? x : 0.01f * x;
    case Silu: return x * sigmoid(x);
    case Gelu: return x * normal_cdf(x);
    case GeluTanh: return x * sigmoid(2.0f * gelu_argument(x));
    case Mish: return x * (1.0f - mish_rest(x));
    case Tanh: return tanhf(x);
    default: return sigmoid(x);
    }
}

__device__ inline float slope(int kind, float x) {
    switch (kind) {
    case Relu: return x > 0 ? 1.0f : 0.0f;
    case LeakyRelu: return x > 0 ? 1.0f : 0.01f;
    case Silu: {
        float gate = sigmoid(x);
        return gate * (1.0f + x * (1.0f - gate));
    }
    case Gelu: return normal_cdf(x) + x * 0.3989423f * expf(-0.5f * x * x);
    case GeluTanh: {
        float gate = sigmoid(2.0f * gelu_argument(x));
        return gate + x * gate * (1.0f - gate) * 2.0f * 0.7978846f * (1.0f + 3.0f * 0.044715f * x * x);
    }
    case Mish: {
        // d gate / dx = (1 - gate^2) sigmoid(x), and 1 - gate is the rest.
        float rest = mish_rest(x), gate = 1.0f - rest;
        return gate + x * rest * (1.0f + gate) * sigmoid(x);
    }
    case Tanh: {
        float y = tanhf(x);
        return 1.0f - y * y;
    }
    default: {
        float y = sigmoid(x);
        return y * (1.0f - y);
    }
    }
}

// The steps after a product: product += bias + residual, and after = f(product) if requested.
template <class T>
__device__ void finish(Count count, unsigned width, int kind, const T *bias, const T *residual, T *product, T *after) {
    FOR_ELEMENTS(i, count) {
        float sum = load(product + i) + load_or(bias, i % width, 0) + load_or(residual, i, 0);
        store(product + i, sum);
        if (after) store(after + i, value(kind, sum));
    }
}

#define KERNELS(T, type) \
    extern "C" __global__ void value_##type(Count count, int kind, const T *x, T *y) { \
        FOR_ELEMENTS(i, count) store(y + i, value(kind, load(x + i))); \
    } \
    extern "C" __global__ void slope_##type(Count count, int kind, const T *x, const T *dy, T *dx) { \
        FOR_ELEMENTS(i, count) store(dx + i, load(dy + i) * slope(kind, load(x + i))); \
    } \
    extern "C" __global__ void finish_##type(Count count, unsigned width, int kind, const T *bias, const T *residual, T *product, T *after) { \
        finish(count, width, kind, bias, residual, product, after); \
    }
FOR_TYPES(KERNELS)
