// The softmax of attention scores with mask and relative positions, and its backward pass. A row is one query of one head of one item,
// computed by one warp; blockDim = (32, rows per block). Scores are [item x head][query][key].

__device__ inline float warp_max(float value) {
    for (int bits = 16; bits > 0; bits >>= 1) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, bits));
    return value;
}

// Row in [head][item][query] of a row in [item][head][query].
__device__ inline size_t by_head(unsigned row, unsigned rows, unsigned time, unsigned heads) {
    unsigned query = row % time, head = row / time % heads, item = row / time / heads;
    return (size_t(head) * (rows / time / heads) + item) * time + query;
}

// weights = softmax(scale * (scores + shifted distances) + mask), and 0 where a query sees no key. `distances` is
// [head][item][query][2 time - 1] or null: key j of query i is at time - 1 - i + j. `mask` is [item][query][key].
template <class T>
__device__ void forward(unsigned rows, unsigned time, unsigned heads, float scale, const T *scores, const T *distances, const float *mask,
                        float *weights) {
    unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return; // whole warps
    unsigned query = row % time, item = row / time / heads;
    scores += size_t(row) * time;
    weights += size_t(row) * time;
    mask += (size_t(item) * time + query) * time;
    if (distances) distances += by_head(row, rows, time, heads) * (2 * size_t(time) - 1) + (time - 1 - query);
    float most = -3e38f, sum = 0;
    for (unsigned key = threadIdx.x; key < time; key += 32) {
        float score = load(scores + key) + load_or(distances, key, 0);
        score = scale * score + mask[key];
        weights[key] = score;
        most = fmaxf(most, score);
    }
    most = warp_max(most);
    for (unsigned key = threadIdx.x; key < time; key += 32) {
        float exponential = most < -5e29f ? 0.0f : expf(weights[key] - most);
        weights[key] = exponential;
        sum += exponential;
    }
    sum = fmaxf(warp_sum(sum), 1.17549435e-38f);
    for (unsigned key = threadIdx.x; key < time; key += 32) weights[key] /= sum;
}

// slopes = scale * weights * (gradient - sum(gradient * weights)), the gradient of the scores. If `of_distances` is not null, the same
// values are also written at the places of the distances, [head][item][query][2 time - 1], with 0 elsewhere.
template <class T>
__device__ void backward(unsigned rows, unsigned time, unsigned heads, float scale, const float *weights, const float *gradient, T *slopes, T *of_distances) {
    unsigned row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return; // whole warps
    unsigned query = row % time;
    weights += size_t(row) * time;
    gradient += size_t(row) * time;
    float along = 0;
    for (unsigned key = threadIdx.x; key < time; key += 32) along += gradient[key] * weights[key];
    along = warp_sum(along);
    for (unsigned key = threadIdx.x; key < time; key += 32)
        store(slopes + size_t(row) * time + key, scale * weights[key] * (gradient[key] - along));
    if (!of_distances) return;
    unsigned distances = 2 * time - 1, first = time - 1 - query;
    of_distances += by_head(row, rows, time, heads) * distances;
    for (unsigned place = threadIdx.x; place < distances; place += 32) {
        bool met = place >= first && place - first < time;
        unsigned key = place - first;
        store(of_distances + place, met ? scale * weights[key] * (gradient[key] - along) : 0.0f);
    }
}

#define KERNELS(T, type) \
    extern "C" __global__ void forward_##type(unsigned rows, unsigned time, unsigned heads, float scale, const T *scores, const T *distances, \
                                              const float *mask, float *weights) { \
        forward(rows, time, heads, scale, scores, distances, mask, weights); \
    } \
    extern "C" __global__ void backward_##type(unsigned rows, unsigned time, unsigned heads, float scale, const float *weights, const float *gradient, \
                                               T *slopes, T *of_distances) { \
        backward(rows, time, heads, scale, weights, gradient, slopes, of_distances); \
    }
FOR_TYPES(KERNELS)
