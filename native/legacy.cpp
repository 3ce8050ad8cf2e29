// Types with blocks of 32 weights and one scale: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1.
#include "batch.hpp"
#include "kernels.hpp"
#include "search.hpp"

namespace terazi::TERAZI_ISA {
namespace {

constexpr int N = 32;

// Bytes of a block: float16 scale, float16 minimum (affine types), 32 high bits (5-bit types), 16 bytes of low bits.
template <int BITS, bool AFFINE>
struct Layout {
    static constexpr int HIGH = AFFINE ? 4 : 2;
    static constexpr int LOW = HIGH + (BITS == 5 ? 4 : 0);
    static constexpr int BYTES = LOW + 16;
};

template <int BITS, bool AFFINE>
TERAZI_INLINE void put_codes(const Batch& batch, const I* codes) {
    using L = Layout<BITS, AFFINE>;
    for (int j = 0; j < 16; j += 4) {
        I bytes[4];
        for (int b = 0; b < 4; ++b) bytes[b] = (codes[j + b] & 15) | (codes[j + b + 16] & 15) << 4;
        put_word(batch, L::LOW + j, pack_bytes(bytes[0], bytes[1], bytes[2], bytes[3]));
    }
    if constexpr (BITS == 5) {
        I high = splat(0);
        for (int j = 0; j < N; ++j) high |= (codes[j] >> 4 & 1) << j;
        put_word(batch, L::HIGH, high);
    }
}

// Without importance: the scale that maps the extreme values to the ends of the code range.
template <int BITS, bool AFFINE>
TERAZI_INLINE void encode_plain(const Batch& batch) {
    constexpr int LEVELS = 1 << BITS;
    F x[N];
    load_transposed(x, batch.x, N);
    F scale, origin, offset;
    if constexpr (AFFINE) {
        F low = x[0], high = x[0];
        for (int i = 1; i < N; ++i) {
            low = min(x[i], low);
            high = max(x[i], high);
        }
        scale = (high - low) / splat(LEVELS - 1.f);
        origin = low;
        offset = splat(0.5f);
        put_half(batch, 2, low);
    } else {
        F magnitude;
        scale = signed_peak(x, N, magnitude) / splat(-LEVELS / 2.f);
        origin = splat(0.f);
        offset = splat(LEVELS / 2.f + 0.5f);
    }
    put_half(batch, 0, scale);
    const F inverse = select(differ(scale, splat(0.f)), splat(1.f) / scale, splat(0.f));
    I codes[N];
    for (int i = 0; i < N; ++i) {
        const I code = truncate((AFFINE ? x[i] - origin : x[i]) * inverse + offset);
        // The reference converts to int8 (Q5_1: uint8) before it clamps.
        codes[i] = BITS == 5 && AFFINE ? code & 0xff : min(splat(LEVELS - 1), code << 24 >> 24);
    }
    put_codes<BITS, AFFINE>(batch, codes);
}

// With importance: a search that weighs each error by importance * sqrt(mean square of the row + x^2).
template <int BITS, bool AFFINE>
TERAZI_INLINE void encode_weighted(const Batch& batch, const float* mean_square) {
    F x[N], w[N], square;
    load_transposed(x, batch.x, N);
    load_transposed(w, batch.importance, N);
    for (int k = 0; k < W; ++k) square[k] = mean_square[batch.row[k]];
    for (int i = 0; i < N; ++i) w[i] *= sqrt(square + x[i] * x[i]);
    I codes[N];
    if constexpr (AFFINE) {
        constexpr int NMAX = (1 << BITS) - 1;
        Affine fit;
        fit_affine<1, N, NMAX, 36>(&fit, x, w, -0.9f, 0.05f);
        for (int i = 0; i < N; ++i) codes[i] = Affine::stored<NMAX>(fit, x[i]);
        put_half(batch, 0, fit.scale);
        put_half(batch, 2, fit.low);
    } else {
        constexpr int NMAX = 1 << (BITS - 1);
        const Symmetric fit = fit_symmetric<N, NMAX>(x, w);
        for (int i = 0; i < N; ++i) codes[i] = Symmetric::stored<NMAX>(fit, x[i]);
        put_half(batch, 0, fit.scale);
    }
    put_codes<BITS, AFFINE>(batch, codes);
}

template <int BITS, bool AFFINE>
void quantize(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float* importance) {
    constexpr int BYTES = Layout<BITS, AFFINE>::BYTES;
    if (!importance) {
        for_batches(x, out, rows, columns, nullptr, N, BYTES, [](const Batch& b) { encode_plain<BITS, AFFINE>(b); });
        return;
    }
    // W rows at a time: first their mean squares, then their blocks.
    for (int64_t row = 0; row < rows; row += W) {
        const int64_t count = rows - row < W ? rows - row : W;
        const float* start[W];
        for (int k = 0; k < W; ++k) start[k] = x + (row + (k < count ? k : count - 1)) * columns;
        float mean_square[W];
        store(mean_square, sum_of_squares(start, columns) / splat(float(columns)));
        for_batches(x + row * columns, out + row * (columns / N * BYTES), count, columns, importance, N, BYTES,
                    [&](const Batch& b) { encode_weighted<BITS, AFFINE>(b, mean_square); });
    }
}

template <int BITS, bool AFFINE>
void dequantize(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    using L = Layout<BITS, AFFINE>;
    constexpr int ZERO = AFFINE ? 0 : 1 << (BITS - 1);
    for (int64_t blocks = rows * columns / N; blocks > 0; --blocks, q += L::BYTES, out += N) {
        const float scale = load_half(q), low = AFFINE ? load_half(q + 2) : 0.f;
        const uint32_t high = BITS == 5 ? load<uint32_t>(q + L::HIGH) : 0;
        for (int j = 0; j < 16; ++j) {
            int a = q[L::LOW + j] & 15, b = q[L::LOW + j] >> 4;
            if constexpr (BITS == 5) {
                a |= (high >> j & 1) << 4;
                b |= (high >> (j + 16) & 1) << 4;
            }
            out[j] = AFFINE ? float(a) * scale + low : float(a - ZERO) * scale;
            out[j + 16] = AFFINE ? float(b) * scale + low : float(b - ZERO) * scale;
        }
    }
}

typedef int8_t B __attribute__((vector_size(W)));

// Q8_0 needs no search, so vectors run along the block; a maximum does not depend on its order.
void quantize_q8_0(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    for (int64_t blocks = rows * columns / N; blocks > 0; --blocks, x += N, out += 34) {
        F v[N / W], top = splat(0.f);
        for (int i = 0; i < N / W; ++i) {
            v[i] = load<F>(x + i * W);
            top = max(top, abs(v[i]));
        }
        float peak = 0.f;
        for (int k = 0; k < W; ++k) peak = top[k] > peak ? top[k] : peak;
        const float scale = peak / 127.f;
        const F inverse = splat(scale != 0.f ? 1.f / scale : 0.f);
        store_half(out, scale);
        for (int i = 0; i < N / W; ++i)
            store(out + 2 + i * W, __builtin_convertvector(round_away(v[i] * inverse), B));
    }
}

// Q8_1 keeps float16 scale * sum(codes) after the scale, which decoding does not need.
template <int HEADER>
void dequantize_q8(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for (int64_t blocks = rows * columns / N; blocks > 0; --blocks, q += HEADER + N, out += N) {
        const float scale = load_half(q);
        for (int j = 0; j < N; ++j) out[j] = float(int8_t(q[HEADER + j])) * scale;
    }
}

constexpr Kernel KERNELS[] = {
    {2, N, Layout<4, false>::BYTES, quantize<4, false>, dequantize<4, false>},
    {3, N, Layout<4, true>::BYTES, quantize<4, true>, dequantize<4, true>},
    {6, N, Layout<5, false>::BYTES, quantize<5, false>, dequantize<5, false>},
    {7, N, Layout<5, true>::BYTES, quantize<5, true>, dequantize<5, true>},
    {8, N, 34, quantize_q8_0, dequantize_q8<2>},
    {9, N, 36, nullptr, dequantize_q8<4>},
};

}  // namespace

extern const Family legacy = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
