// cuBLAS and cuRAND on the host: the functions that candle's CUDA backend calls. The headers of these libraries come only with packages of
// hundreds of megabytes, so the few types and constants that are needed are declared here.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <library_types.h>
#include "driver.h"
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <type_traits>
#include <vector>

namespace {
enum BlasStatus { BLAS_SUCCESS = 0, BLAS_INVALID_VALUE = 7, BLAS_NOT_SUPPORTED = 15 };
constexpr int OPERATION_NONE = 0;
constexpr int COMPUTE_32F = 68, COMPUTE_64F = 70, COMPUTE_64F_PEDANTIC = 71, COMPUTE_32F_FAST_TF32 = 77;

template <class T> T load(const void *at, cudaDataType_t type, size_t index) {
    switch (type) {
    case CUDA_R_64F: return T(((const double *)at)[index]);
    case CUDA_R_32F: return T(((const float *)at)[index]);
    case CUDA_R_16F: return T(__half2float(((const __half *)at)[index]));
    default: return T(__bfloat162float(((const __nv_bfloat16 *)at)[index]));
    }
}
template <class T> void store(void *at, cudaDataType_t type, size_t index, T value) {
    switch (type) {
    case CUDA_R_64F: ((double *)at)[index] = value; break;
    case CUDA_R_32F: ((float *)at)[index] = float(value); break;
    case CUDA_R_16F: ((__half *)at)[index] = __float2half(float(value)); break;
    default: ((__nv_bfloat16 *)at)[index] = __float2bfloat16(float(value));
    }
}
bool is_float(cudaDataType_t type) { return type == CUDA_R_64F || type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF; }

// A number with the 11 significant bits that tensor cores read of single precision.
template <class T> T rounded_to_tf32(T value) {
    float single = float(value);
    uint32_t bits;
    memcpy(&bits, &single, sizeof bits);
    bits = (bits + 0x1000) & ~0x1fffu;
    memcpy(&single, &bits, sizeof bits);
    return std::isfinite(value) ? T(single) : value;
}

// A column-major matrix in the memory of the device.
struct Matrix {
    char *at;
    cudaDataType_t type;
    int stride;
};

// C = alpha A B + beta C, with A as `depth` packed rows of length m and B as n packed columns of length `depth`; sums in T.
template <class T> void multiply(int m, int n, int depth, T alpha, T beta, const T *a, const T *b, const Matrix &c, size_t offset) {
    constexpr int COLUMNS = 4;
    std::vector<T> sums(size_t(m) * COLUMNS);
    for (int j = 0; j < n; j += COLUMNS) {
        int columns = std::min(COLUMNS, n - j);
        std::fill(sums.begin(), sums.end(), T(0));
        T *__restrict s0 = sums.data(), *__restrict s1 = s0 + m, *__restrict s2 = s1 + m, *__restrict s3 = s2 + m;
        for (int l = 0; l < depth; l++) {
            const T *__restrict row = a + size_t(l) * m;
            auto factor = [&](int column) { return column < columns ? b[size_t(j + column) * depth + l] : T(0); };
            T f0 = factor(0), f1 = factor(1), f2 = factor(2), f3 = factor(3);
            for (int i = 0; i < m; i++) s0[i] += f0 * row[i], s1[i] += f1 * row[i], s2[i] += f2 * row[i], s3[i] += f3 * row[i];
        }
        for (int column = 0; column < columns; column++)
            for (int i = 0; i < m; i++) {
                size_t at = offset + i + size_t(j + column) * c.stride;
                T before = beta == 0 ? T(0) : beta * load<T>(c.at, c.type, at);
                store(c.at, c.type, at, alpha * sums[size_t(column) * m + i] + before);
            }
    }
}

template <class T>
BlasStatus products(int operation_a, int operation_b, int m, int n, int depth, const void *alpha, const Matrix &a, long long step_a,
                    const Matrix &b, long long step_b, const void *beta, const Matrix &c, long long step_c, int batch, bool tf32 = false) {
    // What the real library refuses.
    bool transpose_a = operation_a != OPERATION_NONE, transpose_b = operation_b != OPERATION_NONE;
    if (m < 0 || n < 0 || depth < 0 || batch < 0) return BLAS_INVALID_VALUE;
    if (a.stride < std::max(1, transpose_a ? depth : m) || b.stride < std::max(1, transpose_b ? n : depth)) return BLAS_INVALID_VALUE;
    if (c.stride < std::max(1, m)) return BLAS_INVALID_VALUE;
    if (!emulated_product()) return BLAS_SUCCESS;
    std::vector<T> packed_a(size_t(m) * depth), packed_b(size_t(depth) * n);
    for (int item = 0; item < batch; item++) {
        for (int l = 0; l < depth; l++)
            for (int i = 0; i < m; i++) {
                size_t at = transpose_a ? l + size_t(i) * a.stride : i + size_t(l) * a.stride;
                packed_a[size_t(l) * m + i] = load<T>(a.at, a.type, item * step_a + at);
            }
        for (int j = 0; j < n; j++)
            for (int l = 0; l < depth; l++) {
                size_t at = transpose_b ? j + size_t(l) * b.stride : l + size_t(j) * b.stride;
                packed_b[size_t(j) * depth + l] = load<T>(b.at, b.type, item * step_b + at);
            }
        if (tf32) {
            for (T &value : packed_a) value = rounded_to_tf32(value);
            for (T &value : packed_b) value = rounded_to_tf32(value);
        }
        multiply(m, n, depth, *(const T *)alpha, *(const T *)beta, packed_a.data(), packed_b.data(), c, item * step_c);
    }
    return BLAS_SUCCESS;
}
} // namespace

extern "C" {
int cublasCreate_v2(void **handle) { return *handle = (void *)16, BLAS_SUCCESS; }
int cublasDestroy_v2(void *) { return BLAS_SUCCESS; }
int cublasSetStream_v2(void *, void *) { return BLAS_SUCCESS; }
int cublasSetMathMode(void *, int) { return BLAS_SUCCESS; }

int cublasGemmStridedBatchedEx(void *, int operation_a, int operation_b, int m, int n, int depth, const void *alpha, const void *a,
                               cudaDataType_t type_a, int stride_a, long long step_a, const void *b, cudaDataType_t type_b, int stride_b,
                               long long step_b, const void *beta, void *c, cudaDataType_t type_c, int stride_c, long long step_c,
                               int batch, int compute, int) {
    // Sums in half precision would need factors in half precision; candle asks for them only with its reduced-precision switch.
    if (!is_float(type_a) || !is_float(type_b) || !is_float(type_c) || compute < COMPUTE_32F) return BLAS_NOT_SUPPORTED;
    bool wide = compute == COMPUTE_64F || compute == COMPUTE_64F_PEDANTIC;
    auto run = wide ? products<double> : products<float>;
    return run(operation_a, operation_b, m, n, depth, alpha, {(char *)a, type_a, stride_a}, step_a, {(char *)b, type_b, stride_b}, step_b,
               beta, {(char *)c, type_c, stride_c}, step_c, batch, compute == COMPUTE_32F_FAST_TF32);
}
int cublasSgemmStridedBatched(void *, int operation_a, int operation_b, int m, int n, int depth, const float *alpha, float *a, int stride_a,
                              long long step_a, float *b, int stride_b, long long step_b, const float *beta, float *c, int stride_c,
                              long long step_c, int batch) {
    return products<float>(operation_a, operation_b, m, n, depth, alpha, {(char *)a, CUDA_R_32F, stride_a}, step_a,
                           {(char *)b, CUDA_R_32F, stride_b}, step_b, beta, {(char *)c, CUDA_R_32F, stride_c}, step_c, batch);
}
int cublasDgemmStridedBatched(void *, int operation_a, int operation_b, int m, int n, int depth, const double *alpha, double *a,
                              int stride_a, long long step_a, double *b, int stride_b, long long step_b, const double *beta, double *c,
                              int stride_c, long long step_c, int batch) {
    return products<double>(operation_a, operation_b, m, n, depth, alpha, {(char *)a, CUDA_R_64F, stride_a}, step_a,
                            {(char *)b, CUDA_R_64F, stride_b}, step_b, beta, {(char *)c, CUDA_R_64F, stride_c}, step_c, batch);
}

using Generator = std::mt19937_64;
int curandCreateGenerator(Generator **generator, int) { return *generator = new Generator, 0; }
int curandDestroyGenerator(Generator *generator) { return delete generator, 0; }
int curandSetStream(Generator *, void *) { return 0; }
int curandSetGeneratorOffset(Generator *, unsigned long long) { return 0; }
int curandSetPseudoRandomGeneratorSeed(Generator *generator, unsigned long long seed) { return generator->seed(seed), 0; }
} // extern "C"

template <class T, class Distribution> static int generate(Generator &generator, T *at, size_t count, Distribution distribution) {
    for (size_t i = 0; i < count; i++) at[i] = distribution(generator);
    return 0;
}
extern "C" {
int curandGenerateUniform(Generator *g, float *at, size_t count) { return generate(*g, at, count, std::uniform_real_distribution<float>()); }
int curandGenerateUniformDouble(Generator *g, double *at, size_t count) { return generate(*g, at, count, std::uniform_real_distribution<double>()); }
int curandGenerateNormal(Generator *g, float *at, size_t count, float mean, float deviation) {
    return generate(*g, at, count, std::normal_distribution<float>(mean, deviation));
}
int curandGenerateNormalDouble(Generator *g, double *at, size_t count, double mean, double deviation) {
    return generate(*g, at, count, std::normal_distribution<double>(mean, deviation));
}
} // extern "C"
