// Types with super-blocks of 256 weights whose block scales are codes themselves: Q2_K to Q6_K, Q8_K.
// One lane holds one super-block.
#include "batch.hpp"
#include "kernels.hpp"
#include "search.hpp"

namespace terazi::TERAZI_ISA {
namespace {

constexpr int QK = 256;

TERAZI_INLINE F squares(const F* x, int n) {
    F sum = splat(0.f);
    for (int i = 0; i < n; ++i) sum += x[i] * x[i];
    return sum;
}

// importance * sqrt(spread + x^2)
TERAZI_INLINE void weigh(F* w, const Batch& batch, int start, const F* x, F spread, int n) {
    const float* from[W];
    for (int k = 0; k < W; ++k) from[k] = batch.importance[k] + start;
    load_transposed(w, from, n);
    for (int i = 0; i < n; ++i) w[i] *= sqrt(spread + x[i] * x[i]);
}

// Largest of values that are not below zero, as `if (v > top) top = v` from 0.
TERAZI_INLINE F largest(const F* values, int n) {
    F top = splat(0.f);
    for (int i = 0; i < n; ++i) top = select(less(top, values[i]), values[i], top);
    return top;
}

// ---------------------------------------------------------------- affine types: Q2_K, Q4_K, Q5_K

// What differs between the affine types.
template <int BITS_, int N_, int SCALE_BITS, bool CLAMPED>
struct AffineType {
    static constexpr int BITS = BITS_, N = N_, BLOCKS = QK / N_;
    static constexpr int NMAX = (1 << BITS) - 1;
    static constexpr int SCALE_MAX = (1 << SCALE_BITS) - 1;
    static constexpr bool CLAMPED_SCALES = CLAMPED;
};
using Q2 = AffineType<2, 16, 4, false>;
using Q4 = AffineType<4, 32, 6, false>;
using Q5 = AffineType<5, 32, 6, true>;

// The scales of a super-block: value ~ step * code.
template <int BLOCKS>
struct Scales {
    F step;  // as float16 stores it
    I codes[BLOCKS];
};

// Without importance, the largest scale becomes the largest code.
template <class T>
TERAZI_INLINE void spread_scales(Scales<T::BLOCKS>& scales, const F* values) {
    const F top = largest(values, T::BLOCKS);
    const Mask some = less(splat(0.f), top);
    const F inverse = select(some, splat(float(T::SCALE_MAX)) / top, splat(0.f));
    for (int j = 0; j < T::BLOCKS; ++j)
        scales.codes[j] = select(some, nearest_int(inverse * values[j]) & 0xff, splat(0));
    scales.step = top / splat(float(T::SCALE_MAX));
}

constexpr int GROUP = 4;  // blocks of a super-block that are searched together

template <class T>
TERAZI_INLINE void fit_blocks(Affine* fits, F* w, const Batch& batch, const F* x) {
    constexpr int N = T::N;
    if (batch.importance[0]) {
        const F spread = (T::BITS == 2 ? squares(x, QK) : splat(2.f) * squares(x, QK)) / splat(float(QK));
        for (int j = 0; j < T::BLOCKS; j += GROUP) {
            weigh(w, batch, j * N, x + j * N, spread, GROUP * N);
            fit_affine<2, 2, N, T::NMAX>(fits + j, x + j * N, w, -0.9f, 0.05f, 36);
        }
        return;
    }
    constexpr Loss LOSS = T::BITS == 2 ? Loss::ABSOLUTE : Loss::SQUARE;
    for (int j = 0; j < T::BLOCKS; j += GROUP) {
        for (int g = 0; g < GROUP; ++g) {
            const F* block = x + (j + g) * N;
            const F mean = T::BITS == 2 ? splat(0.f) : sqrt(squares(block, N) / splat(float(N)));
            for (int i = 0; i < N; ++i) w[g * N + i] = mean + abs(block[i]);
        }
        if constexpr (T::BITS == 4)
            fit_affine<2, 2, N, T::NMAX, LOSS>(fits + j, x + j * N, w, -1.f, 0.1f, 20);
        else
            fit_affine<2, 2, N, T::NMAX, LOSS>(fits + j, x + j * N, w, -0.5f, 0.1f, 15);
    }
}

// The scale and minimum codes as the block's bytes hold them. Only the reference's own bytes count: codes that are
// too wide spill into their neighbours' high bits there, so they must here.
TERAZI_INLINE void pack_six_bits(I* bytes, const I* scale, const I* low) {
    for (int j = 0; j < 4; ++j) {
        bytes[j] = (scale[j] | scale[j + 4] >> 4 << 6) & 0xff;
        bytes[j + 4] = (low[j] | low[j + 4] >> 4 << 6) & 0xff;
        bytes[j + 8] = (scale[j + 4] & 15) | (low[j + 4] & 15) << 4;
    }
}
TERAZI_INLINE void unpack_six_bits(const I* bytes, I* scale, I* low) {
    for (int j = 0; j < 4; ++j) {
        scale[j] = bytes[j] & 63;
        low[j] = bytes[j + 4] & 63;
        scale[j + 4] = (bytes[j + 8] & 15) | bytes[j] >> 6 << 4;
        low[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
    }
}

template <class T>
TERAZI_INLINE void put_scales(const Batch& batch, Scales<T::BLOCKS>& scale, Scales<T::BLOCKS>& low) {
    constexpr bool TWO = T::BITS == 2;
    constexpr int STEPS = TWO ? 80 : 0, CODES = TWO ? 0 : 4, COUNT = TWO ? 16 : 12;
    put_half(batch, STEPS, scale.step);
    put_half(batch, STEPS + 2, low.step);
    scale.step = through_half(scale.step);
    low.step = through_half(low.step);
    I bytes[COUNT];
    if constexpr (TWO) {
        for (int j = 0; j < 16; ++j) {
            bytes[j] = (scale.codes[j] | low.codes[j] << 4) & 0xff;
            scale.codes[j] = bytes[j] & 15;
            low.codes[j] = bytes[j] >> 4;
        }
    } else {
        pack_six_bits(bytes, scale.codes, low.codes);
        unpack_six_bits(bytes, scale.codes, low.codes);
    }
    for (int j = 0; j < COUNT; j += 4)
        put_word(batch, CODES + j, pack_bytes(bytes[j], bytes[j + 1], bytes[j + 2], bytes[j + 3]));
}

// Two-bit planes as Q2_K and Q3_K store them: byte l of each half has the codes l, l + 32, l + 64, l + 96.
TERAZI_INLINE void put_two_bits(const Batch& batch, int offset, const I* codes) {
    for (int half = 0; half < 2; ++half)
        for (int l = 0; l < 32; l += 4) {
            I word = splat(0);
            for (int b = 0; b < 4; ++b)
                for (int k = 0; k < 4; ++k) word |= (codes[128 * half + 32 * k + l + b] & 3) << (8 * b + 2 * k);
            put_word(batch, offset + 32 * half + l, word);
        }
}

template <class T>
TERAZI_INLINE void put_affine_codes(const Batch& batch, const I* codes) {
    if constexpr (T::BITS == 2) {
        put_two_bits(batch, 16, codes);
        return;
    }
    constexpr int HIGH = 16, LOW = T::BITS == 5 ? 48 : 16;
    for (int l = 0; l < 32; l += 4) {
        for (int pair = 0; pair < 4; ++pair) {
            I word = splat(0);
            for (int b = 0; b < 4; ++b) {
                word |= (codes[64 * pair + l + b] & 15) << (8 * b);
                word |= (codes[64 * pair + 32 + l + b] & 15) << (8 * b + 4);
            }
            put_word(batch, LOW + 32 * pair + l, word);
        }
        if constexpr (T::BITS == 5) {
            I word = splat(0);
            for (int b = 0; b < 4; ++b)
                for (int j = 0; j < 8; ++j) word |= (codes[32 * j + l + b] >> 4) << (8 * b + j);
            put_word(batch, HIGH + l, word);
        }
    }
}

template <class T>
TERAZI_INLINE void encode_affine(const Batch& batch) {
    constexpr int N = T::N;
    F x[QK], w[GROUP * N];
    load_transposed(x, batch.x, QK);
    Affine fits[T::BLOCKS];
    fit_blocks<T>(fits, w, batch, x);

    Scales<T::BLOCKS> scale, low;
    F scales[T::BLOCKS], lows[T::BLOCKS], weights[T::BLOCKS];
    for (int j = 0; j < T::BLOCKS; ++j) {
        scales[j] = fits[j].scale;
        lows[j] = -fits[j].low;
        weights[j] = fits[j].sum_w;
    }
    if (batch.importance[0]) {
        scale.step = fit_positive<T::BLOCKS, T::SCALE_MAX>(scale.codes, scales, weights);
        low.step = fit_positive<T::BLOCKS, T::SCALE_MAX>(low.codes, lows, weights);
    } else {
        spread_scales<T>(scale, scales);
        spread_scales<T>(low, lows);
    }
    // Only some of the reference's functions clamp the scale codes.
    if (T::CLAMPED_SCALES || (T::BITS == 4 && !batch.importance[0]))
        for (int j = 0; j < T::BLOCKS; ++j) {
            scale.codes[j] = min(splat(T::SCALE_MAX), scale.codes[j]);
            low.codes[j] = min(splat(T::SCALE_MAX), low.codes[j]);
        }
    put_scales<T>(batch, scale, low);

    I codes[QK];
    for (int j = 0; j < T::BLOCKS; ++j) {
        const F step = scale.step * to_float(scale.codes[j]), offset = low.step * to_float(low.codes[j]);
        const Mask none = equal(step, splat(0.f));
        for (int i = j * N; i < (j + 1) * N; ++i)
            codes[i] = clamp(nearest_int((x[i] + offset) / step), 0, T::NMAX);
        if (any(none))  // the scale vanished: what the search left is stored
            for (int i = j * N; i < (j + 1) * N; ++i)
                codes[i] = select(none, Affine::stored<T::NMAX>(fits[j], x[i]), codes[i]);
    }
    put_affine_codes<T>(batch, codes);
}

// ---------------------------------------------------------------- symmetric types: Q3_K, Q6_K

// Rounds block j again with its stored scale; where that vanished, `left` from the search stays.
template <int NMAX>
TERAZI_INLINE void round_symmetric(I* codes, const F* x, F step, int n) {
    const Mask none = equal(step, splat(0.f));
    for (int i = 0; i < n; ++i) {
        const I code = clamp(nearest_int(x[i] / step), -NMAX, NMAX - 1) + NMAX;
        codes[i] = select(none, codes[i], code);
    }
}

// Q3_K without importance (`make_q3_quants`): changes one code at a time while that helps. Fits BLOCKS blocks side by
// side, since each change waits for a division; fills the stored codes.
template <int BLOCKS>
TERAZI_INLINE void descend(I* codes, F* scales, const F* x) {
    constexpr int N = 16, NMAX = 4;
    F w[BLOCKS * N], wx[BLOCKS * N], lx[BLOCKS], l2[BLOCKS];
    Mask zero[BLOCKS];
    for (int b = 0; b < BLOCKS; ++b) {
        F magnitude;
        const F peak = signed_peak(x + b * N, N, magnitude);
        zero[b] = less(magnitude, splat(SMALLEST_PEAK));
        const F inverse = splat(-float(NMAX)) / select(zero[b], splat(1.f), peak);
        lx[b] = l2[b] = splat(0.f);
        for (int i = b * N; i < (b + 1) * N; ++i) {
            codes[i] = clamp(nearest_int(inverse * x[i]), -NMAX, NMAX - 1);
            w[i] = x[i] * x[i];
            wx[i] = w[i] * x[i];
            lx[b] += wx[i] * to_float(codes[i]);
            l2[b] += w[i] * to_float(codes[i]) * to_float(codes[i]);
        }
    }
    bool changed = true;
    for (int sweep = 0; sweep < 5 && changed; ++sweep) {
        changed = false;
        for (int place = 0; place < N; ++place)
            for (int b = 0; b < BLOCKS; ++b) {
                const int i = b * N + place;
                const F code = to_float(codes[i]);
                F new_lx = lx[b] - wx[i] * code, new_l2 = l2[b] - w[i] * code * code;
                const Mask usable = less(splat(0.f), new_lx);
                const I new_code = clamp(nearest_int(x[i] * new_l2 / new_lx), -NMAX, NMAX - 1);
                const F value = to_float(new_code);
                new_lx += wx[i] * value;
                new_l2 += w[i] * value * value;
                const Mask better = usable & invert(equal(new_code, codes[i])) & less(splat(0.f), new_l2) &
                                    less(lx[b] * lx[b] * new_l2, new_lx * new_lx * l2[b]);
                codes[i] = select(better, new_code, codes[i]);
                lx[b] = select(better, new_lx, lx[b]);
                l2[b] = select(better, new_l2, l2[b]);
                changed |= any(better);
            }
    }
    for (int b = 0; b < BLOCKS; ++b) {
        for (int i = b * N; i < (b + 1) * N; ++i) codes[i] = select(zero[b], splat(0), codes[i] + NMAX);
        const Mask fitted = less(splat(0.f), l2[b]) & invert(zero[b]);
        scales[b] = select(fitted, lx[b] / l2[b], splat(0.f));
    }
}

TERAZI_INLINE void encode_q3_k(const Batch& batch) {
    constexpr int N = 16, BLOCKS = 16, NMAX = 4;
    F x[QK], w[N], scales[BLOCKS], weights[BLOCKS], step;
    I codes[QK], scale_codes[BLOCKS];
    load_transposed(x, batch.x, QK);
    if (batch.importance[0]) {
        const F spread = splat(2.f) * squares(x, QK) / splat(float(QK));
        for (int j = 0; j < BLOCKS; ++j) {
            weigh(w, batch, j * N, x + j * N, spread, N);
            weights[j] = splat(0.f);
            for (int i = 0; i < N; ++i) weights[j] += w[i];
            const Symmetric fit = fit_symmetric<N, NMAX>(x + j * N, w);
            scales[j] = fit.scale;
            for (int i = j * N; i < (j + 1) * N; ++i) codes[i] = Symmetric::stored<NMAX>(fit, x[i]);
        }
        const Symmetric fit = fit_symmetric<BLOCKS, 32>(scales, weights);
        for (int j = 0; j < BLOCKS; ++j) scale_codes[j] = Symmetric::stored<32>(fit, scales[j]);
        step = fit.scale;
    } else {
        for (int j = 0; j < BLOCKS; j += GROUP) descend<GROUP>(codes + j * N, scales + j, x + j * N);
        F magnitude;
        const F peak = signed_peak(scales, BLOCKS, magnitude);
        const Mask some = differ(peak, splat(0.f));
        const F inverse = splat(-32.f) / peak;
        for (int j = 0; j < BLOCKS; ++j) {
            const I code = nearest_int(inverse * scales[j]) << 24 >> 24;  // through int8
            scale_codes[j] = select(some, clamp(code, -32, 31) + 32, splat(0));
        }
        step = select(some, splat(1.f) / inverse, splat(0.f));
    }
    put_half(batch, 108, step);
    step = through_half(step);

    I bytes[12];
    for (int j = 0; j < 8; ++j) bytes[j] = (scale_codes[j] & 15) | (scale_codes[j + 8] & 15) << 4;
    for (int j = 0; j < 4; ++j) {
        bytes[j + 8] = splat(0);
        for (int k = 0; k < 4; ++k) bytes[j + 8] |= scale_codes[j + 4 * k] >> 4 << (2 * k);
    }
    for (int j = 0; j < 12; j += 4)
        put_word(batch, 96 + j, pack_bytes(bytes[j], bytes[j + 1], bytes[j + 2], bytes[j + 3]));

    for (int j = 0; j < BLOCKS; ++j)
        round_symmetric<NMAX>(codes + j * N, x + j * N, step * to_float(scale_codes[j] - 32), N);
    put_two_bits(batch, 32, codes);
    for (int l = 0; l < 32; l += 4) {
        I word = splat(0);
        for (int b = 0; b < 4; ++b)
            for (int k = 0; k < 8; ++k) word |= (codes[32 * k + l + b] >> 2) << (8 * b + k);
        put_word(batch, l, word);
    }
}

TERAZI_INLINE void encode_q6_k(const Batch& batch) {
    constexpr int N = 16, BLOCKS = 16, NMAX = 32, BYTES = 210;
    F x[QK], w[N], scales[BLOCKS];
    I codes[QK];
    load_transposed(x, batch.x, QK);
    for (int j = 0; j < BLOCKS; ++j) {
        const F* block = x + j * N;
        if (batch.importance[0]) {
            const float* from[W];
            for (int k = 0; k < W; ++k) from[k] = batch.importance[k] + j * N;
            load_transposed(w, from, N);
        } else {
            for (int i = 0; i < N; ++i) w[i] = block[i] * block[i];
        }
        const Symmetric fit = fit_symmetric<N, NMAX>(block, w);
        scales[j] = fit.scale;
        for (int i = 0; i < N; ++i) codes[j * N + i] = Symmetric::stored<NMAX>(fit, block[i]);
    }
    F magnitude;
    const F peak = signed_peak(scales, BLOCKS, magnitude);
    const Mask empty = less(magnitude, splat(SMALLEST_PEAK));
    const F inverse = splat(-128.f) / select(empty, splat(1.f), peak);
    put_half(batch, 208, splat(1.f) / inverse);
    const F step = through_half(splat(1.f) / inverse);

    I bytes[BLOCKS];
    for (int j = 0; j < BLOCKS; ++j) {
        bytes[j] = min(splat(127), nearest_int(inverse * scales[j]));
        const I scale = bytes[j] << 24 >> 24;
        round_symmetric<NMAX>(codes + j * N, x + j * N, step * to_float(scale), N);
        bytes[j] &= 0xff;
    }
    for (int j = 0; j < BLOCKS; j += 4)
        put_word(batch, 192 + j, pack_bytes(bytes[j], bytes[j + 1], bytes[j + 2], bytes[j + 3]));
    for (int half = 0; half < 2; ++half)
        for (int l = 0; l < 32; l += 4) {
            const I* c = codes + 128 * half + l;
            I first = splat(0), second = splat(0), high = splat(0);
            for (int b = 0; b < 4; ++b) {
                first |= ((c[b] & 15) | (c[b + 64] & 15) << 4) << (8 * b);
                second |= ((c[b + 32] & 15) | (c[b + 96] & 15) << 4) << (8 * b);
                for (int k = 0; k < 4; ++k) high |= (c[b + 32 * k] >> 4) << (8 * b + 2 * k);
            }
            put_word(batch, 64 * half + l, first);
            put_word(batch, 64 * half + 32 + l, second);
            put_word(batch, 128 + 32 * half + l, high);
        }
    const I cleared = select(empty, splat(1), splat(0));
    for (int k = 0; k < W; ++k)
        if (cleared[k]) memset(batch.out[k], 0, BYTES);
}

template <int BYTES, auto ENCODE>
void quantize(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float* importance) {
    for_batches<1>(x, out, rows, columns, importance, QK, BYTES, [](const Batch* batch) { ENCODE(*batch); });
}

// ---------------------------------------------------------------- decoding, along the block

template <int BYTES, class Decode>
TERAZI_INLINE void for_blocks(const uint8_t* q, float* out, int64_t rows, int64_t columns, Decode decode) {
    for (int64_t blocks = rows * columns / QK; blocks > 0; --blocks, q += BYTES, out += QK) decode(q, out);
}

// Left by `by` bits, or right by -by; constant once the loop around it is unrolled.
TERAZI_INLINE I shifted(I value, int by) { return by >= 0 ? value << by : value >> -by; }

// scale * byte, for the 16 block scales of a super-block.
TERAZI_INLINE void scale_bytes(float* to, float scale, const uint8_t* bytes) {
    for (int j = 0; j < 16; j += W) store(to + j, splat(scale) * to_float(widen(bytes + j)));
}

void dequantize_q2_k(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for_blocks<84>(q, out, rows, columns, [](const uint8_t* block, float* y) {
        const F scale = splat(load_half(block + 80)), low = splat(load_half(block + 82));
        float step[16], offset[16];
        for (int j = 0; j < 16; j += W) {
            const I bytes = widen(block + j);
            store(step + j, scale * to_float(bytes & 15));
            store(offset + j, low * to_float(bytes >> 4));
        }
        for (int half = 0; half < 2; ++half)
            for (int i = 0; i < 32; i += W) {
                const I codes = widen(block + 16 + 32 * half + i);
#pragma GCC unroll 4
                for (int k = 0; k < 4; ++k) {
                    const int j = 8 * half + 2 * k + i / 16;
                    const F code = to_float(codes >> (2 * k) & 3);
                    store(y + 128 * half + 32 * k + i, splat(step[j]) * code - splat(offset[j]));
                }
            }
    });
}

void dequantize_q3_k(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for_blocks<110>(q, out, rows, columns, [](const uint8_t* block, float* y) {
        const F scale = splat(load_half(block + 108));
        // Sixteen 6-bit scales: low halves in 8 bytes, high pairs in 4.
        const uint32_t a = load<uint32_t>(block + 96), b = load<uint32_t>(block + 100), c = load<uint32_t>(block + 104);
        const uint32_t words[4] = {
            (a & 0x0f0f0f0f) | (c & 0x03030303) << 4,
            (b & 0x0f0f0f0f) | (c >> 2 & 0x03030303) << 4,
            (a >> 4 & 0x0f0f0f0f) | (c >> 4 & 0x03030303) << 4,
            (b >> 4 & 0x0f0f0f0f) | (c >> 6 & 0x03030303) << 4,
        };
        float step[16];
        uint8_t bytes[16];
        memcpy(bytes, words, 16);
        for (int j = 0; j < 16; j += W) store(step + j, scale * to_float(widen(bytes + j) - 32));
        for (int i = 0; i < 32; i += W) {
            const I high = widen(block + i);
#pragma GCC unroll 2
            for (int half = 0; half < 2; ++half) {
                const I codes = widen(block + 32 + 32 * half + i);
#pragma GCC unroll 4
                for (int k = 0; k < 4; ++k) {
                    const I code = ((codes >> (2 * k) & 3) | (shifted(high, 2 - 4 * half - k) & 4)) - 4;
                    store(y + 128 * half + 32 * k + i, splat(step[8 * half + 2 * k + i / 16]) * to_float(code));
                }
            }
        }
    });
}

template <int BITS>
void dequantize_q45_k(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    constexpr int HIGH = 16, LOW = BITS == 5 ? 48 : 16;
    for_blocks<LOW + 128>(q, out, rows, columns, [](const uint8_t* block, float* y) {
        const uint32_t a = load<uint32_t>(block + 4), b = load<uint32_t>(block + 8), c = load<uint32_t>(block + 12);
        const uint32_t words[4] = {
            a & 0x3f3f3f3f,
            (c & 0x0f0f0f0f) | (a >> 6 & 0x03030303) << 4,
            b & 0x3f3f3f3f,
            (c >> 4 & 0x0f0f0f0f) | (b >> 6 & 0x03030303) << 4,
        };
        uint8_t bytes[16];
        memcpy(bytes, words, 16);
        float step[16], offset[16];  // of the first eight, and of the last eight
        scale_bytes(step, load_half(block), bytes);
        scale_bytes(offset, load_half(block + 2), bytes);
        for (int i = 0; i < 32; i += W) {
            const I high = BITS == 5 ? widen(block + HIGH + i) : splat(0);
#pragma GCC unroll 4
            for (int pair = 0; pair < 4; ++pair) {
                const I nibbles = widen(block + LOW + 32 * pair + i);
                I codes[2] = {nibbles & 15, nibbles >> 4};
#pragma GCC unroll 2
                for (int k = 0; k < 2; ++k) {
                    const int j = 2 * pair + k;
                    if constexpr (BITS == 5) codes[k] |= shifted(high, 4 - j) & 16;
                    store(y + 32 * j + i, splat(step[j]) * to_float(codes[k]) - splat(offset[8 + j]));
                }
            }
        }
    });
}

void dequantize_q6_k(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for_blocks<210>(q, out, rows, columns, [](const uint8_t* block, float* y) {
        const F scale = splat(load_half(block + 208));
        float step[16];
        for (int j = 0; j < 16; j += W) store(step + j, scale * to_float(widen_signed(block + 192 + j)));
        for (int half = 0; half < 2; ++half)
            for (int i = 0; i < 32; i += W) {
                const I low[2] = {widen(block + 64 * half + i), widen(block + 64 * half + 32 + i)};
                const I high = widen(block + 128 + 32 * half + i);
#pragma GCC unroll 4
                for (int k = 0; k < 4; ++k) {
                    const I nibble = k < 2 ? low[k] & 15 : low[k - 2] >> 4;
                    const I code = (nibble | (shifted(high, 4 - 2 * k) & 48)) - 32;
                    store(y + 128 * half + 32 * k + i, splat(step[8 * half + 2 * k + i / 16]) * to_float(code));
                }
            }
    });
}

void dequantize_q8_k(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for_blocks<292>(q, out, rows, columns, [](const uint8_t* block, float* y) {
        const F scale = splat(load<float>(block));
        for (int i = 0; i < QK; i += W) store(y + i, scale * to_float(widen_signed(block + 4 + i)));
    });
}

constexpr Kernel KERNELS[] = {
    {10, QK, 84, quantize<84, encode_affine<Q2>>, dequantize_q2_k},
    {11, QK, 110, quantize<110, encode_q3_k>, dequantize_q3_k},
    {12, QK, 144, quantize<144, encode_affine<Q4>>, dequantize_q45_k<4>},
    {13, QK, 176, quantize<176, encode_affine<Q5>>, dequantize_q45_k<5>},
    {14, QK, 210, quantize<210, encode_q6_k>, dequantize_q6_k},
    {15, QK, 292, nullptr, dequantize_q8_k},
};

}  // namespace

extern const Family k_quants = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
