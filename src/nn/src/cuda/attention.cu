// Rows of heads to matrices of heads and back: the steps between the projections of attention and its products.
// "By item" is [item][head][time][channel], "by head" [head][item][time][channel]. A map holds the row of each position of each item, or
// the position of each row; without a map both are in the same order.

struct Sizes {
    unsigned items, heads, time, channels;
};
__device__ inline size_t by_item(Sizes s, unsigned position, unsigned head) {
    return ((size_t(position / s.time) * s.heads + head) * s.time + position % s.time) * s.channels;
}
__device__ inline size_t by_head(Sizes s, unsigned position, unsigned head) {
    return (size_t(head) * s.items * s.time + position) * s.channels;
}

// Up to three inputs (gridDim.y), [row][head x channel] to by item. The first may get a bias per head and channel, and a second output by
// head with another bias. Positions without a row are 0 before a bias.
template <class T>
__device__ void split(Count count, Sizes s, const unsigned *query_map, const unsigned *key_map, const T *const (&x)[3], const T *bias,
                      const T *second_bias, T *const (&y)[3], T *second) {
    const unsigned *map = blockIdx.y ? key_map : query_map;
    const T *from = x[blockIdx.y];
    T *to = y[blockIdx.y];
    if (blockIdx.y) bias = nullptr, second = nullptr;
    unsigned width = s.heads * s.channels;
    FOR_ELEMENTS(i, count) {
        unsigned position = i / width, column = i % width, head = column / s.channels, channel = column % s.channels;
        unsigned row = map ? map[position] : position;
        float value = row == NOTHING ? 0 : load(from + size_t(row) * width + column);
        store(to + by_item(s, position, head) + channel, value + load_or(bias, column, 0));
        if (second) store(second + by_head(s, position, head) + channel, value + load(second_bias + column));
    }
}

// The inverse, for up to three inputs; the first may have a second part by head, which is added. Rows of no item are 0.
template <class T>
__device__ void merge(Count query_count, Count key_count, Sizes s, const unsigned *query_map, const unsigned *key_map, const T *const (&x)[3],
                      const T *second, T *const (&y)[3]) {
    const unsigned *map = blockIdx.y ? key_map : query_map;
    const T *from = x[blockIdx.y];
    T *to = y[blockIdx.y];
    Count count = blockIdx.y ? key_count : query_count;
    if (blockIdx.y) second = nullptr;
    unsigned width = s.heads * s.channels;
    FOR_ELEMENTS(i, count) {
        unsigned row = i / width, column = i % width, head = column / s.channels, channel = column % s.channels;
        unsigned position = map ? map[row] : row;
        float value = 0;
        if (position != NOTHING) {
            value = load(from + by_item(s, position, head) + channel);
            if (second) value += load(second + by_head(s, position, head) + channel);
        }
        store(to + i, value);
    }
}

// The gradients of the biases of `split`: sums over all positions, of the first by item and of the second by head (blockIdx.y).
// blockDim = (32, at most 32), gridDim = (columns / 32, 2); out is [2][head x channel].
template <class T> __device__ void sum_positions(Sizes s, const T *first, const T *second, float *out) {
    unsigned width = s.heads * s.channels, column = blockIdx.x * 32 + threadIdx.x, head = column / s.channels, channel = column % s.channels;
    float sum = 0;
    if (column < width)
        for (unsigned position = threadIdx.y; position < s.items * s.time; position += blockDim.y)
            sum += load((blockIdx.y ? second + by_head(s, position, head) : first + by_item(s, position, head)) + channel);
    sum = column_sum(sum);
    if (threadIdx.y == 0 && column < width) out[blockIdx.y * width + column] = sum;
}

#define KERNELS(T, type) \
    extern "C" __global__ void split_##type(Count count, unsigned items, unsigned heads, unsigned time, unsigned channels, \
                                            const unsigned *query_map, const unsigned *key_map, const T *x, const T *x1, const T *x2, \
                                            const T *bias, const T *second_bias, T *y, T *y1, T *y2, T *second) { \
        split<T>(count, {items, heads, time, channels}, query_map, key_map, {x, x1, x2}, bias, second_bias, {y, y1, y2}, second); \
    } \
    extern "C" __global__ void merge_##type(Count query_count, Count key_count, unsigned items, unsigned heads, unsigned time, \
                                            unsigned channels, const unsigned *query_map, const unsigned *key_map, const T *x, const T *x1, \
                                            const T *x2, const T *second, T *y, T *y1, T *y2) { \
        merge<T>(query_count, key_count, {items, heads, time, channels}, query_map, key_map, {x, x1, x2}, second, {y, y1, y2}); \
    } \
    extern "C" __global__ void sum_positions_##type(unsigned items, unsigned heads, unsigned time, unsigned channels, const T *first, \
                                                    const T *second, float *out) { \
        sum_positions<T>({items, heads, time, channels}, first, second, out); \
    }
FOR_TYPES(KERNELS)
