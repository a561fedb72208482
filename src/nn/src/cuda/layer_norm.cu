// Layer normalization (Ba et al., arXiv 1607.06450) and its backward pass. Statistics, sums and the gradients of weight and bias are in
// single precision; elements are f32 or bf16. Sums are taken in a fixed order.

// One warp per row; blockDim = (32, rows of a block). Also gives (x - mean) / deviation and 1 / deviation.
template <class T>
__device__ void forward(unsigned rows, unsigned width, float epsilon, const T *x, const T *weight, const T *bias, T *y, float *normal,
                        float *scale) {
    unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return; // whole warps
    size_t start = size_t(row) * width;
    float mean = 0, variance = 0;
    for (unsigned i = threadIdx.x; i < width; i += 32) mean += load(x + start + i);
    mean = warp_sum(mean) / width;
    for (unsigned i = threadIdx.x; i < width; i += 32) {
        float centered = load(x + start + i) - mean;
        variance += centered * centered;
    }
    float factor = 1.0f / sqrtf(warp_sum(variance) / width + epsilon);
    for (unsigned i = threadIdx.x; i < width; i += 32) {
        float value = (load(x + start + i) - mean) * factor;
        normal[start + i] = value;
        store(y + start + i, value * load_or(weight, i, 1) + load_or(bias, i, 0));
    }
    if (threadIdx.x == 0) scale[row] = factor;
}

// The gradient of x; one warp per row; blockDim = (32, rows of a block).
template <class T>
__device__ void input_gradient(unsigned rows, unsigned width, const T *dy, const float *normal, const float *scale, const T *weight, T *dx) {
    unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return; // whole warps
    size_t start = size_t(row) * width;
    float mean = 0, along = 0;
    for (unsigned i = threadIdx.x; i < width; i += 32) {
        float inner = load(dy + start + i) * load_or(weight, i, 1);
        mean += inner;
        along += inner * normal[start + i];
    }
    mean = warp_sum(mean) / width;
    along = warp_sum(along) / width;
    for (unsigned i = threadIdx.x; i < width; i += 32) {
        float inner = load(dy + start + i) * load_or(weight, i, 1);
        store(dx + start + i, (inner - mean - normal[start + i] * along) * scale[row]);
    }
}

// Sums of dy * normal and of dy over a share of the rows, for 32 columns; blockDim = (32, 8), gridDim = (columns / 32, shares).
// `partial` is [share][2][width].
template <class T>
__device__ void parameter_gradients(unsigned rows, unsigned width, const T *dy, const float *normal, float *partial) {
    __shared__ float sums[2][8][33];
    unsigned column = blockIdx.x * 32 + threadIdx.x, share = (rows + gridDim.y - 1) / gridDim.y;
    unsigned start = min(blockIdx.y * share, rows), end = min(start + share, rows);
    float weight = 0, bias = 0;
    if (column < width)
        for (unsigned row = start + threadIdx.y; row < end; row += 8) {
            size_t at = size_t(row) * width + column;
            float d = load(dy + at);
            weight += d * normal[at];
            bias += d;
        }
    sums[0][threadIdx.y][threadIdx.x] = weight;
    sums[1][threadIdx.y][threadIdx.x] = bias;
    __syncthreads();
    if (threadIdx.y < 2 && column < width) {
        float total = 0;
        for (int i = 0; i < 8; i++) total += sums[threadIdx.y][i][threadIdx.x];
        partial[(size_t(blockIdx.y) * 2 + threadIdx.y) * width + column] = total;
    }
}

// out[i] = the sum of partial[share][i] over the shares.
extern "C" __global__ void sum_shares(unsigned shares, unsigned size, const float *partial, float *out) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    float total = 0;
    for (unsigned share = 0; share < shares; share++) total += partial[size_t(share) * size + i];
    out[i] = total;
}

#define KERNELS(T, type) \
    extern "C" __global__ void forward_##type(unsigned rows, unsigned width, float epsilon, const T *x, const T *weight, const T *bias, T *y, \
                                              float *normal, float *scale) { \
        forward(rows, width, epsilon, x, weight, bias, y, normal, scale); \
    } \
    extern "C" __global__ void input_gradient_##type(unsigned rows, unsigned width, const T *dy, const float *normal, const float *scale, \
                                                     const T *weight, T *dx) { \
        input_gradient(rows, width, dy, normal, scale, weight, dx); \
    } \
    extern "C" __global__ void parameter_gradients_##type(unsigned rows, unsigned width, const T *dy, const float *normal, float *partial) { \
        parameter_gradients(rows, width, dy, normal, partial); \
    }
KERNELS(float, f32)
KERNELS(Bf16, bf16)
