// Moves, scales and sums rows. A map holds for each row its source row, or NOTHING.

// out[row] = source[map[row]].
template <class T> __device__ void gather(Count count, unsigned width, const unsigned *map, const T *source, T *out) {
    FOR_ELEMENTS(i, count) {
        unsigned from = map[i / width];
        store(out + i, from == NOTHING ? 0 : load(source + size_t(from) * width + i % width));
    }
}

// The windows of a convolution, [row'][channel][tap]: x[map[row' x taps + tap]][channel].
template <class T>
__device__ void unfold(Count count, unsigned width, unsigned taps, const unsigned *map, const T *x, T *seen) {
    FOR_ELEMENTS(i, count) {
        Count row = i / taps / width;
        unsigned channel = i / taps % width, from = map[row * taps + i % taps];
        store(seen + i, from == NOTHING ? 0 : load(x + size_t(from) * width + channel));
    }
}

// The transpose: the map holds for each row and tap the place row' x taps + tap that read the row.
template <class T>
__device__ void fold(Count count, unsigned width, unsigned taps, const unsigned *map, const T *seen, T *x) {
    FOR_ELEMENTS(i, count) {
        Count row = i / width, channel = i % width;
        float sum = 0;
        for (unsigned tap = 0; tap < taps; tap++) {
            unsigned place = map[row * taps + tap];
            if (place != NOTHING) sum += load(seen + (size_t(place / taps) * width + channel) * taps + place % taps);
        }
        store(x + i, sum);
    }
}

// [outer][a][b][inner] to [outer][b][a][inner].
template <class T> __device__ void swap(Count count, unsigned a, unsigned b, unsigned inner, const T *x, T *y) {
    FOR_ELEMENTS(i, count) {
        Count at = i / inner, outer = at / a / b;
        unsigned place_a = at % a, place_b = at / a % b;
        store(y + i, load(x + ((outer * a + place_a) * b + place_b) * inner + i % inner));
    }
}

// y = base + x gain + shift, with gain and shift of the row's item, in rows `stride` apart; y = base on rows of no item. Absent inputs
// are 0, but without a gain x is not scaled.
template <class T>
__device__ void modulate(Count count, unsigned width, unsigned stride, const unsigned *map, const T *base, const T *x, const T *gain,
                         const T *shift, T *y) {
    FOR_ELEMENTS(i, count) {
        unsigned item = map[i / width];
        float value = load_or(base, i, 0);
        if (item != NOTHING) {
            size_t at = size_t(item) * stride + i % width;
            if (x) value += load(x + i) * load_or(gain, at, 1);
            value += load_or(shift, at, 0);
        }
        store(y + i, value);
    }
}

// out[item x stride + column] = the sum of x (or x y) over the rows of the item, or over all rows without ranges.
// blockDim = (32, at most 32), gridDim = (columns / 32, items).
template <class T>
__device__ void sum_items(unsigned rows, unsigned width, unsigned stride, const unsigned *ranges, const T *x, const T *y, float *out) {
    unsigned column = blockIdx.x * 32 + threadIdx.x;
    unsigned start = ranges ? ranges[2 * blockIdx.y] : 0, end = ranges ? ranges[2 * blockIdx.y + 1] : rows;
    float sum = 0;
    if (column < width)
        for (unsigned row = start + threadIdx.y; row < end; row += blockDim.y) {
            size_t at = size_t(row) * width + column;
            sum += load(x + at) * load_or(y, at, 1);
        }
    sum = column_sum(sum);
    if (threadIdx.y == 0 && column < width) out[size_t(blockIdx.y) * stride + column] = sum;
}

// table[entries[i]] = the sum of dy[places[j]] over j from starts[i] to before starts[i + 1]; one thread per channel.
template <class T>
__device__ void sum_places(Count count, unsigned width, const unsigned *entries, const unsigned *starts, const unsigned *places, const T *dy,
                           float *table) {
    FOR_ELEMENTS(i, count) {
        Count entry = i / width, column = i % width;
        float sum = 0;
        for (unsigned j = starts[entry]; j < starts[entry + 1]; j++) sum += load(dy + size_t(places[j]) * width + column);
        table[size_t(entries[entry]) * width + column] = sum;
    }
}

#define KERNELS(T, type) \
    extern "C" __global__ void gather_##type(Count count, unsigned width, const unsigned *map, const T *source, T *out) { \
        gather(count, width, map, source, out); \
    } \
    extern "C" __global__ void unfold_##type(Count count, unsigned width, unsigned taps, const unsigned *map, const T *x, T *seen) { \
        unfold(count, width, taps, map, x, seen); \
    } \
    extern "C" __global__ void fold_##type(Count count, unsigned width, unsigned taps, const unsigned *map, const T *seen, T *x) { \
        fold(count, width, taps, map, seen, x); \
    } \
    extern "C" __global__ void swap_##type(Count count, unsigned a, unsigned b, unsigned inner, const T *x, T *y) { \
        swap(count, a, b, inner, x, y); \
    } \
    extern "C" __global__ void modulate_##type(Count count, unsigned width, unsigned stride, const unsigned *map, const T *base, const T *x, \
                                               const T *gain, const T *shift, T *y) { \
        modulate(count, width, stride, map, base, x, gain, shift, y); \
    } \
    extern "C" __global__ void sum_items_##type(unsigned rows, unsigned width, unsigned stride, const unsigned *ranges, const T *x, \
                                                const T *y, float *out) { \
        sum_items(rows, width, stride, ranges, x, y, out); \
    } \
    extern "C" __global__ void sum_places_##type(Count count, unsigned width, const unsigned *entries, const unsigned *starts, \
                                                 const unsigned *places, const T *dy, float *table) { \
        sum_places(count, width, entries, starts, places, dy, table); \
    }
FOR_TYPES(KERNELS)
