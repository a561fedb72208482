// Kernels over lists of tensors: one block of 256 threads per CHUNK elements of an entry. The table has `words` words per entry: its
// first block, its number of elements, the addresses of its tensors, its numbers.
constexpr unsigned CHUNK = 16384; // as in lists.rs

struct Piece {
    const Count *addresses;
    Count start, end;
    __device__ float *tensor(unsigned index) const { return (float *)addresses[index]; }
    __device__ float number(unsigned tensors, unsigned index) const { return __uint_as_float((unsigned)addresses[tensors + index]); }
};

// The part of an entry that this block works on.
__device__ inline Piece piece(unsigned entries, unsigned words, const Count *table) {
    unsigned found = 0, beyond = entries;
    while (beyond - found > 1) {
        unsigned middle = (found + beyond) / 2;
        if (table[size_t(middle) * words] <= blockIdx.x) found = middle;
        else beyond = middle;
    }
    const Count *entry = table + size_t(found) * words;
    Count start = (blockIdx.x - entry[0]) * CHUNK, end = start + CHUNK;
    return {entry + 2, start, end < entry[1] ? end : entry[1]};
}
#define FOR_PIECE(i, piece) for (Count i = piece.start + threadIdx.x; i < piece.end; i += blockDim.x)

// The sum over the block, in a fixed order; valid in the first thread.
__device__ inline double block_sum(double value) {
    __shared__ double sums[8];
    value = warp_sum(value);
    __syncthreads();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
    __syncthreads();
    double total = 0;
    for (int warp = 0; warp < 8; warp++) total += sums[warp];
    return total;
}
