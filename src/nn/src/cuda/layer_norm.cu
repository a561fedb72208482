// Layer normalization (Ba et al., arXiv 1607.06450) and its backward pass. Statistics, sums and the gradients of weight and bias are in
// single precision. Sums have a fixed order.
//
// Weight and bias are one row for all, or one per item (adaptive normalization) in rows `stride` apart: `map` holds the item of each row.
// Rows of no item become 0. `offset` is added to each weight.

// One warp per row; blockDim = (32, rows per block). Also returns (x - mean) / deviation and 1 / deviation.
template <class T>
__device__ void forward(unsigned rows, unsigned width, unsigned stride, float epsilon, float offset, const unsigned *map, const T *x,
                        const T *weight, const T *bias, T *y, float *normal, float *scale) {
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
    unsigned item = map ? map[row] : 0;
    size_t vectors = item == NOTHING ? 0 : size_t(item) * stride;
    for (unsigned i = threadIdx.x; i < width; i += 32) {
        float value = (load(x + start + i) - mean) * factor;
        normal[start + i] = value;
        float gain = weight ? offset + load(weight + vectors + i) : 1;
        store(y + start + i, item == NOTHING ? 0 : value * gain + load_or(bias, vectors + i, 0));
    }
    if (threadIdx.x == 0) scale[row] = factor;
}

// The gradient of x, added to the gradient that has already arrived, if any; one warp per row; blockDim = (32, rows per block).
template <class T>
__device__ void input_gradient(unsigned rows, unsigned width, unsigned stride, float offset, const unsigned *map, const T *dy,
                               const float *normal, const float *scale, const T *weight, const T *arrived, T *dx) {
    unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return; // whole warps
    size_t start = size_t(row) * width;
    unsigned item = map ? map[row] : 0;
    if (item != NOTHING && weight) weight += size_t(item) * stride;
    float mean = 0, along = 0;
    for (unsigned i = threadIdx.x; i < width; i += 32) {
        float inner = load(dy + start + i) * (weight ? offset + load(weight + i) : 1);
        mean += inner;
        along += inner * normal[start + i];
    }
    mean = warp_sum(mean) / width;
    along = warp_sum(along) / width;
    for (unsigned i = threadIdx.x; i < width; i += 32) {
        float inner = load(dy + start + i) * (weight ? offset + load(weight + i) : 1);
        float gradient = item == NOTHING ? 0 : (inner - mean - normal[start + i] * along) * scale[row];
        store(dx + start + i, load_or(arrived, start + i, 0) + gradient);
    }
}

// The sums of dy x normal and of dy over the rows of each item, or over all rows without ranges: of_weight and of_bias, in rows
// `stride` apart. blockDim = (32, at most 32), gridDim = (columns / 32, items).
template <class T>
__device__ void parameter_gradients(unsigned rows, unsigned width, unsigned stride, const unsigned *ranges, const T *dy, const float *normal,
                                    float *of_weight, float *of_bias) {
    unsigned column = blockIdx.x * 32 + threadIdx.x;
    unsigned start = ranges ? ranges[2 * blockIdx.y] : 0, end = ranges ? ranges[2 * blockIdx.y + 1] : rows;
    float weight = 0, bias = 0;
    if (column < width)
        for (unsigned row = start + threadIdx.y; row < end; row += blockDim.y) {
            size_t at = size_t(row) * width + column;
            float d = load(dy + at);
            weight += d * normal[at];
            bias += d;
        }
    weight = column_sum(weight);
    bias = column_sum(bias);
    if (threadIdx.y || column >= width) return;
    of_weight[size_t(blockIdx.y) * stride + column] = weight;
    of_bias[size_t(blockIdx.y) * stride + column] = bias;
}

#define KERNELS(T, type) \
    extern "C" __global__ void forward_##type(unsigned rows, unsigned width, unsigned stride, float epsilon, float offset, const unsigned *map, \
                                              const T *x, const T *weight, const T *bias, T *y, float *normal, float *scale) { \
        forward(rows, width, stride, epsilon, offset, map, x, weight, bias, y, normal, scale); \
    } \
    extern "C" __global__ void input_gradient_##type(unsigned rows, unsigned width, unsigned stride, float offset, const unsigned *map, \
                                                     const T *dy, const float *normal, const float *scale, const T *weight, const T *arrived, \
                                                     T *dx) { \
        input_gradient(rows, width, stride, offset, map, dy, normal, scale, weight, arrived, dx); \
    } \
    extern "C" __global__ void parameter_gradients_##type(unsigned rows, unsigned width, unsigned stride, const unsigned *ranges, const T *dy, \
                                                          const float *normal, float *of_weight, float *of_bias) { \
        parameter_gradients(rows, width, stride, ranges, dy, normal, of_weight, of_bias); \
    }
FOR_TYPES(KERNELS)
