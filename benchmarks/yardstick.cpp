// The selective scan as a C++ programmer would write it for one machine: the yardstick of the CPU kernels.
// Channels are the vector lane, 64 of them a tile; states of a tile stay in the first cache; the backward pass
// recomputes the states of 256 steps at a time from saved ones. Arrays are dense, row-major, float32:
// x, delta, z, y (L, D); A (D, N); B, C (L, N); skip (D); checkpoints (L / SEGMENT, D / TILE, N, TILE).

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace {
constexpr long TILE = 64, SEGMENT = 256, MOST_STATES = 64;

struct Inputs {
    const float *x, *delta, *A, *B, *C, *skip, *z;
    long L, D, N;
};

void turned(const Inputs &in, long first, float *a) {  // A of a tile, states by channels
    for (long n = 0; n < in.N; ++n)
        for (long d = 0; d < TILE; ++d) a[n * TILE + d] = in.A[(first + d) * in.N + n];
}

void step(const Inputs &in, long t, long first, const float *a, float *h) {
    const float *delta = in.delta + t * in.D + first, *x = in.x + t * in.D + first, *B = in.B + t * in.N;
    for (long n = 0; n < in.N; ++n)
        for (long d = 0; d < TILE; ++d)
            h[n * TILE + d] = std::exp(delta[d] * a[n * TILE + d]) * h[n * TILE + d] + delta[d] * x[d] * B[n];
}

void forward_tile(const Inputs &in, long first, float *y, float *checkpoints) {
    float a[MOST_STATES * TILE], h[MOST_STATES * TILE] = {};
    turned(in, first, a);
    const long tiles = in.D / TILE;
    for (long t = 0; t < in.L; ++t) {
        if (checkpoints && t % SEGMENT == 0)
            std::memcpy(checkpoints + ((t / SEGMENT) * tiles + first / TILE) * in.N * TILE, h, in.N * TILE * 4);
        const float *delta = in.delta + t * in.D + first, *x = in.x + t * in.D + first, *z = in.z + t * in.D + first;
        const float *B = in.B + t * in.N, *C = in.C + t * in.N;
        float sum[TILE] = {};
        for (long n = 0; n < in.N; ++n)
            for (long d = 0; d < TILE; ++d) {
                float next = std::exp(delta[d] * a[n * TILE + d]) * h[n * TILE + d] + delta[d] * x[d] * B[n];
                h[n * TILE + d] = next;
                sum[d] += next * C[n];
            }
        for (long d = 0; d < TILE; ++d)
            y[t * in.D + first + d] = (sum[d] + in.skip[first + d] * x[d]) * z[d] / (1.0f + std::exp(-z[d]));
    }
}

struct Gradients {
    float *x, *delta, *A, *B, *C, *skip, *z;
};

void backward_tile(const Inputs &in, long first, const float *grad, const float *checkpoints, const Gradients &out,
                   float *dB, float *dC) {
    const long size = in.N * TILE, tiles = in.D / TILE;
    std::vector<float> states((SEGMENT + 1) * size);
    float a[MOST_STATES * TILE], carried[MOST_STATES * TILE] = {}, dA[MOST_STATES * TILE] = {}, dskip[TILE] = {};
    turned(in, first, a);
    for (long segment = (in.L - 1) / SEGMENT; segment >= 0; --segment) {
        const long begin = segment * SEGMENT, end = std::min(begin + SEGMENT, in.L);
        std::memcpy(states.data(), checkpoints + (segment * tiles + first / TILE) * size, size * 4);
        for (long t = begin; t < end; ++t) {
            float *h = states.data() + (t - begin + 1) * size;
            std::memcpy(h, h - size, size * 4);
            step(in, t, first, a, h);
        }
        for (long t = end - 1; t >= begin; --t) {
            const long at = t * in.D + first;
            const float *delta = in.delta + at, *x = in.x + at, *z = in.z + at, *g = grad + at;
            const float *B = in.B + t * in.N, *C = in.C + t * in.N, *h = states.data() + (t - begin + 1) * size;
            float sum[TILE] = {}, dx[TILE] = {}, ddelta[TILE] = {}, dy[TILE];
            for (long d = 0; d < TILE; ++d) dy[d] = g[d] * z[d] / (1.0f + std::exp(-z[d]));
            for (long n = 0; n < in.N; ++n) {
                float db = 0, dc = 0;
                for (long d = 0; d < TILE; ++d) {
                    const long i = n * TILE + d;
                    const float decay = std::exp(delta[d] * a[i]), dh = carried[i] + dy[d] * C[n];
                    const float through = dh * decay * h[i - size];
                    sum[d] += h[i] * C[n];
                    dc += dy[d] * h[i];
                    db += dh * delta[d] * x[d];
                    dx[d] += dh * delta[d] * B[n];
                    ddelta[d] += through * a[i] + dh * x[d] * B[n];
                    dA[i] += through * delta[d];
                    carried[i] = dh * decay;
                }
                dB[t * in.N + n] += db;
                dC[t * in.N + n] += dc;
            }
            for (long d = 0; d < TILE; ++d) {
                const float skip = in.skip[first + d], gate = 1.0f / (1.0f + std::exp(-z[d]));
                out.x[at + d] = dx[d] + dy[d] * skip;
                out.delta[at + d] = ddelta[d];
                out.z[at + d] = g[d] * (sum[d] + skip * x[d]) * gate * (1.0f + z[d] * (1.0f - gate));
                dskip[d] += dy[d] * x[d];
            }
        }
    }
    for (long d = 0; d < TILE; ++d) {
        out.skip[first + d] = dskip[d];
        for (long n = 0; n < in.N; ++n) out.A[(first + d) * in.N + n] = dA[n * TILE + d];
    }
}
}  // namespace

extern "C" void forward(const Inputs *in, float *y, float *checkpoints) {
#pragma omp parallel for
    for (long first = 0; first < in->D; first += TILE) forward_tile(*in, first, y, checkpoints);
}

extern "C" void backward(const Inputs *in, const float *grad, const float *checkpoints, const Gradients *out) {
    const long tiles = in->D / TILE, size = in->L * in->N;
    std::vector<float> partial(2 * tiles * size);
#pragma omp parallel for
    for (long tile = 0; tile < tiles; ++tile)
        backward_tile(*in, tile * TILE, grad, checkpoints, *out, partial.data() + 2 * tile * size,
                      partial.data() + (2 * tile + 1) * size);
    for (long i = 0; i < size; ++i) {
        float db = 0, dc = 0;
        for (long tile = 0; tile < tiles; ++tile) {
            db += partial[2 * tile * size + i];
            dc += partial[(2 * tile + 1) * size + i];
        }
        out->B[i] = db;
        out->C[i] = dc;
    }
}
