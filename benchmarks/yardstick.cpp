// The selective scan as a C++ programmer would write it for one machine: the yardstick of the CPU kernels.
// Channels are the vector lane, 64 of them a tile; states of a tile stay in the first cache; exponentials are powers of
// two by a polynomial, which vectorises where std::exp does not; the backward pass recomputes the states of 256 steps at
// a time from saved ones, and keeps their decays. Arrays are dense, row-major, float32:
// x, delta, z, y (L, D); A (D, N); B, C (L, N); skip (D); checkpoints (L / SEGMENT, D / TILE, N, TILE).

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {
constexpr long TILE = 64, SEGMENT = 256, MOST_STATES = 64;
constexpr float LOG2_E = 1.44269504f;

struct Inputs {
    const float *x, *delta, *A, *B, *C, *skip, *z;
    long L, D, N;
};

inline float exp2_of(float x) {  // 2^x to a few units in the last place; 2^-126 below that
    x = x < -126.0f ? -126.0f : x;
    const float whole = __builtin_rintf(x), part = x - whole;
    float p = 1.5403530e-4f;
    p = p * part + 1.3333558e-3f;
    p = p * part + 9.6181291e-3f;
    p = p * part + 5.5504109e-2f;
    p = p * part + 2.4022651e-1f;
    p = p * part + 6.9314718e-1f;
    p = p * part + 1.0f;
    union {
        float value;
        int32_t bits;
    } scale;
    scale.bits = (static_cast<int32_t>(whole) + 127) << 23;
    return p * scale.value;
}

inline float gate_of(float z) { return 1.0f / (1.0f + exp2_of(-LOG2_E * z)); }

void turned(const Inputs &in, long first, float *a) {  // A of a tile, states by channels, for powers of two
    for (long n = 0; n < in.N; ++n)
        for (long d = 0; d < TILE; ++d) a[n * TILE + d] = LOG2_E * in.A[(first + d) * in.N + n];
}

void forward_tile(const Inputs &in, long first, float *y, float *checkpoints) {
    float a[MOST_STATES * TILE], h[MOST_STATES * TILE] = {};
    turned(in, first, a);
    const long tiles = in.D / TILE;
    for (long t = 0; t < in.L; ++t) {
        if (checkpoints && t % SEGMENT == 0)
            std::memcpy(checkpoints + ((t / SEGMENT) * tiles + first / TILE) * in.N * TILE, h, in.N * TILE * 4);
        const long at = t * in.D + first;
        const float *delta = in.delta + at, *x = in.x + at, *z = in.z + at, *B = in.B + t * in.N, *C = in.C + t * in.N;
        float sum[TILE] = {}, input[TILE];
        for (long d = 0; d < TILE; ++d) input[d] = delta[d] * x[d];
        for (long n = 0; n < in.N; ++n) {
            const float b = B[n], c = C[n];
            float *hn = h + n * TILE;
            const float *an = a + n * TILE;
#pragma GCC ivdep
            for (long d = 0; d < TILE; ++d) {
                const float next = exp2_of(delta[d] * an[d]) * hn[d] + input[d] * b;
                hn[d] = next;
                sum[d] += next * c;
            }
        }
        for (long d = 0; d < TILE; ++d) y[at + d] = (sum[d] + in.skip[first + d] * x[d]) * z[d] * gate_of(z[d]);
    }
}

struct Gradients {
    float *x, *delta, *A, *B, *C, *skip, *z;
};

void backward_tile(const Inputs &in, long first, const float *grad, const float *checkpoints, const Gradients &out,
                   float *dB, float *dC) {
    const long size = in.N * TILE, tiles = in.D / TILE;
    std::vector<float> states((SEGMENT + 1) * size), decays(SEGMENT * size);
    float a[MOST_STATES * TILE], carried[MOST_STATES * TILE] = {}, dA[MOST_STATES * TILE] = {}, dskip[TILE] = {};
    turned(in, first, a);
    for (long segment = (in.L - 1) / SEGMENT; segment >= 0; --segment) {
        const long begin = segment * SEGMENT, end = std::min(begin + SEGMENT, in.L);
        std::memcpy(states.data(), checkpoints + (segment * tiles + first / TILE) * size, size * 4);
        for (long t = begin; t < end; ++t) {
            const float *delta = in.delta + t * in.D + first, *x = in.x + t * in.D + first, *B = in.B + t * in.N;
            const float *before = states.data() + (t - begin) * size;
            float *h = states.data() + (t - begin + 1) * size, *decay = decays.data() + (t - begin) * size;
            for (long n = 0; n < in.N; ++n)
#pragma GCC ivdep
                for (long d = 0; d < TILE; ++d) {
                    const long i = n * TILE + d;
                    decay[i] = exp2_of(delta[d] * a[i]);
                    h[i] = decay[i] * before[i] + delta[d] * x[d] * B[n];
                }
        }
        for (long t = end - 1; t >= begin; --t) {
            const long at = t * in.D + first;
            const float *delta = in.delta + at, *x = in.x + at, *z = in.z + at, *g = grad + at;
            const float *B = in.B + t * in.N, *C = in.C + t * in.N;
            const float *h = states.data() + (t - begin + 1) * size, *decay = decays.data() + (t - begin) * size;
            float sum[TILE] = {}, dinput[TILE] = {}, ddelta[TILE] = {}, dy[TILE], gate[TILE], input[TILE];
            for (long d = 0; d < TILE; ++d) {
                gate[d] = gate_of(z[d]);
                dy[d] = g[d] * z[d] * gate[d];
                input[d] = delta[d] * x[d];
            }
            for (long n = 0; n < in.N; ++n) {
                float db = 0, dc = 0;
                const float b = B[n], c = C[n];
#pragma GCC ivdep
                for (long d = 0; d < TILE; ++d) {
                    const long i = n * TILE + d;
                    const float dh = carried[i] + dy[d] * c, through = dh * decay[i] * h[i - size];
                    sum[d] += h[i] * c;
                    dc += dy[d] * h[i];
                    db += dh * input[d];
                    dinput[d] += dh * b;
                    ddelta[d] += through * a[i];
                    dA[i] += through * delta[d];
                    carried[i] = dh * decay[i];
                }
                dB[t * in.N + n] += db;
                dC[t * in.N + n] += dc;
            }
            for (long d = 0; d < TILE; ++d) {
                const float skip = in.skip[first + d];
                out.x[at + d] = dinput[d] * delta[d] + dy[d] * skip;
                out.delta[at + d] = ddelta[d] / LOG2_E + dinput[d] * x[d];
                out.z[at + d] = g[d] * (sum[d] + skip * x[d]) * gate[d] * (1.0f + z[d] * (1.0f - gate[d]));
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
