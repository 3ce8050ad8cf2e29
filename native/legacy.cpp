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
constexpr int GROUPS = 4;  // batches that are searched together

template <int BITS, bool AFFINE>
TERAZI_INLINE void encode_weighted(const Batch* batches, const float* mean_square) {
    F x[GROUPS * N], w[GROUPS * N];
    for (int g = 0; g < GROUPS; ++g) {
        F square;
        for (int k = 0; k < W; ++k) square[k] = mean_square[batches[g].row[k]];
        load_transposed(x + g * N, batches[g].x, N);
        load_transposed(w + g * N, batches[g].importance, N);
        for (int i = g * N; i < (g + 1) * N; ++i) w[i] *= sqrt(square + x[i] * x[i]);
    }
    I codes[N];
    if constexpr (AFFINE) {
        constexpr int NMAX = (1 << BITS) - 1;
        Affine fits[GROUPS];
        fit_affine<GROUPS / 2, 2, N, NMAX>(fits, x, w, -0.9f, 0.05f, 36);
        for (int g = 0; g < GROUPS; ++g) {
            for (int i = 0; i < N; ++i) codes[i] = Affine::stored<NMAX>(fits[g], x[g * N + i]);
            put_half(batches[g], 0, fits[g].scale);
            put_half(batches[g], 2, fits[g].low);
            put_codes<BITS, AFFINE>(batches[g], codes);
        }
    } else {
        constexpr int NMAX = 1 << (BITS - 1);
        for (int g = 0; g < GROUPS; ++g) {
            const Symmetric fit = fit_symmetric<N, NMAX>(x + g * N, w + g * N);
            for (int i = 0; i < N; ++i) codes[i] = Symmetric::stored<NMAX>(fit, x[g * N + i]);
            put_half(batches[g], 0, fit.scale);
            put_codes<BITS, AFFINE>(batches[g], codes);
        }
    }
}

template <int BITS, bool AFFINE>
void quantize(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float* importance) {
    constexpr int BYTES = Layout<BITS, AFFINE>::BYTES;
    if (!importance) {
        for_batches<1>(x, out, rows, columns, nullptr, N, BYTES,
                       [](const Batch* batch) { encode_plain<BITS, AFFINE>(*batch); });
        return;
    }
    // W rows at a time: first their mean squares, then their blocks.
    for (int64_t row = 0; row < rows; row += W) {
        const int64_t count = rows - row < W ? rows - row : W;
        const float* start[W];
        for (int k = 0; k < W; ++k) start[k] = x + (row + (k < count ? k : count - 1)) * columns;
        float mean_square[W];
        store(mean_square, sum_of_squares(start, columns) / splat(float(columns)));
        for_batches<GROUPS>(x + row * columns, out + row * (columns / N * BYTES), count, columns, importance, N, BYTES,
                            [&](const Batch* batches) { encode_weighted<BITS, AFFINE>(batches, mean_square); });
    }
}

// A vector of single bits: 1 << (start + lane).
TERAZI_INLINE I lane_bits(int start) {
    I result;
    for (int k = 0; k < W; ++k) result[k] = int32_t(1u << (start + k));
    return result;
}

template <int BITS, bool AFFINE>
void dequantize(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    using L = Layout<BITS, AFFINE>;
    constexpr int ZERO = AFFINE ? 0 : 1 << (BITS - 1);
    for (int64_t blocks = rows * columns / N; blocks > 0; --blocks, q += L::BYTES, out += N) {
        const F scale = splat(load_half(q)), low = splat(AFFINE ? load_half(q + 2) : 0.f);
        const I high = splat(BITS == 5 ? load<int32_t>(q + L::HIGH) : 0);
        for (int j = 0; j < 16; j += W) {
            const I bytes = widen(q + L::LOW + j);
            I codes[2] = {bytes & 15, bytes >> 4};
            for (int k = 0; k < 2; ++k) {
                if constexpr (BITS == 5)
                    codes[k] |= select(equal(high & lane_bits(j + 16 * k), splat(0)), splat(0), splat(16));
                const F value = to_float(codes[k] - ZERO) * scale;
                store(out + j + 16 * k, AFFINE ? value + low : value);
            }
        }
    }
}

// Q8_0 needs no search, so vectors run along the block: a maximum does not depend on its order. Scales are made for W
// blocks together, since a vector divides as fast as a scalar.
void quantize_q8_0(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    constexpr int BYTES = 34;
    for (int64_t left = rows * columns / N; left > 0; left -= W) {
        const int count = left < W ? int(left) : W;
        float peaks[W] = {}, inverses[W];
        for (int b = 0; b < count; ++b) {
            F top = splat(0.f);
            for (int i = 0; i < N; i += W) top = max(top, abs(load<F>(x + b * N + i)));
            peaks[b] = largest_lane(top);
        }
        const F scale = load<F>(peaks) / splat(127.f);
        const H halves = float_to_half(scale);
        store(inverses, select(differ(scale, splat(0.f)), splat(1.f) / scale, splat(0.f)));
        for (int b = 0; b < count; ++b, x += N, out += BYTES) {
            I codes[N / W];
            for (int i = 0; i < N / W; ++i) codes[i] = round_away(load<F>(x + i * W) * splat(inverses[b]));
            store<uint16_t>(out, halves[b]);
            store_low_bytes(out + 2, codes);
        }
    }
}

// Q8_1 keeps float16 scale * sum(codes) after the scale, which decoding does not need.
template <int HEADER>
void dequantize_q8(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for (int64_t blocks = rows * columns / N; blocks > 0; --blocks, q += HEADER + N, out += N) {
        const F scale = splat(load_half(q));
        prepare_writing(out);
        prepare_writing(out + 16);
        for (int j = 0; j < N; j += W) store(out + j, to_float(widen_signed(q + HEADER + j)) * scale);
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
