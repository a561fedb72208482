// Gradient norms, updates and moving averages of all parameters, in one launch each.

// figures[block] = the sum of squares.
extern "C" __global__ void squares(unsigned entries, unsigned words, const Count *table, double *figures) {
    Piece p = piece(entries, words, table);
    const float *x = p.tensor(0);
    double sum = 0;
    FOR_PIECE(i, p) sum += double(x[i]) * x[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) figures[blockIdx.x] = sum;
}

// Tensors: average, weights. Numbers: the share of the weights.
extern "C" __global__ void average(unsigned entries, unsigned words, const Count *table, double *) {
    Piece p = piece(entries, words, table);
    float *average = p.tensor(0), share = p.number(2, 0);
    const float *weights = p.tensor(1);
    FOR_PIECE(i, p) average[i] += share * (weights[i] - average[i]);
}

// A gradient after scaling, limiting and adding a penalty on the weights.
struct Taken {
    float scale, limit, penalty;
    __device__ float operator()(float gradient, float weight) const {
        gradient *= scale;
        return (gradient > limit ? limit : gradient < -limit ? -limit : gradient) + penalty * weight;
    }
};

// Squares of the weights before an update and of the update, if they are measured.
struct Measure {
    double weights = 0, change = 0;
    __device__ void add(float before, float after) {
        float difference = after - before;
        weights += double(before) * before;
        change += double(difference) * difference;
    }
    __device__ void give(double *figures) {
        if (!figures) return; // all threads
        weights = block_sum(weights);
        change = block_sum(change);
        if (threadIdx.x) return;
        figures[2 * blockIdx.x] = weights;
        figures[2 * blockIdx.x + 1] = change;
    }
};

// Tensors: weights, gradient, mean, mean square. Numbers: those of `Kernel` in adam.rs.
extern "C" __global__ void adam(unsigned entries, unsigned words, const Count *table, double *figures) {
    Piece p = piece(entries, words, table);
    float *weights = p.tensor(0), *mean = p.tensor(2), *square = p.tensor(3);
    const float *gradients = p.tensor(1);
    Taken taken = {p.number(4, 0), p.number(4, 1), p.number(4, 2)};
    float keep = p.number(4, 3), mean_weight = p.number(4, 4), square_keep = p.number(4, 5), square_weight = p.number(4, 6);
    float root_correction = p.number(4, 7), eps = p.number(4, 8), step_size = p.number(4, 9);
    Measure measure;
    FOR_PIECE(i, p) {
        float before = weights[i], gradient = taken(gradients[i], before);
        float m = mean[i] + mean_weight * (gradient - mean[i]);
        float v = square[i] * square_keep + square_weight * gradient * gradient;
        float after = before * keep - step_size * m / (sqrtf(v) / root_correction + eps);
        mean[i] = m;
        square[i] = v;
        weights[i] = after;
        if (figures) measure.add(before, after);
    }
    measure.give(figures);
}

// Tensors: weights, gradient and, with momentum, the running sum. Numbers: scale, limit, penalty, rate, momentum, the share of the
// gradient in the sum, and whether to look ahead.
__device__ inline void descend(Piece p, unsigned tensors, double *figures) {
    float *weights = p.tensor(0), *sum = tensors > 2 ? p.tensor(2) : nullptr;
    const float *gradients = p.tensor(1);
    Taken taken = {p.number(tensors, 0), p.number(tensors, 1), p.number(tensors, 2)};
    float rate = p.number(tensors, 3), momentum = p.number(tensors, 4), share = p.number(tensors, 5);
    bool ahead = p.number(tensors, 6) != 0;
    Measure measure;
    FOR_PIECE(i, p) {
        float before = weights[i], gradient = taken(gradients[i], before);
        if (sum) {
            float buffer = sum[i] * momentum + share * gradient;
            sum[i] = buffer;
            gradient = ahead ? gradient + momentum * buffer : buffer;
        }
        float after = before - rate * gradient;
        weights[i] = after;
        if (figures) measure.add(before, after);
    }
    measure.give(figures);
}
extern "C" __global__ void sgd(unsigned entries, unsigned words, const Count *table, double *figures) {
    descend(piece(entries, words, table), 2, figures);
}
extern "C" __global__ void sgd_momentum(unsigned entries, unsigned words, const Count *table, double *figures) {
    descend(piece(entries, words, table), 3, figures);
}
