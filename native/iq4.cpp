// IQ4_NL, IQ4_XS: 4-bit codes for 16 unevenly spaced values.
#include "batch.hpp"
#include "decode.hpp"
#include "kernels.hpp"
#include "nearest.hpp"
#include "search.hpp"

namespace terazi::TERAZI_ISA {
namespace {

constexpr int BLOCK = 32;  // weights that share a scale
constexpr int8_t VALUES[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Half way between value k and the next: what rounds up. Exact in float, as are all differences near it.
constexpr float midpoint(int k) { return float(VALUES[k] + VALUES[k + 1]) / 2; }

// Rounds to the nearest value by bisection: three steps find a pair of values, the fourth which of the two.
struct Pair {
    I index;     // 0..7: values 2 * index and 2 * index + 1
    Mask upper;
};
TERAZI_INLINE Pair nearest_pair(F x) {
    const Table third = make_table(3, [](int i) { return midpoint(2 * (i & 6) + 1); });
    const Table last = make_table(3, [](int i) { return midpoint(2 * i); });
    const Mask high = less_equal(splat(midpoint(7)), x);
    const F quarter = select(high, splat(midpoint(11)), splat(midpoint(3)));
    I index = select(high, splat(4), I{}) | select(less_equal(quarter, x), splat(2), I{});
    index |= select(less_equal(look_up(third, index), x), splat(1), I{});
    return {index, less_equal(look_up(last, index), x)};
}
TERAZI_INLINE F value_of(Pair pair) {
    const Table even = make_table(3, [](int i) { return float(VALUES[2 * i]); });
    const Table odd = make_table(3, [](int i) { return float(VALUES[2 * i + 1]); });
    return select(pair.upper, look_up(odd, pair.index), look_up(even, pair.index));
}
TERAZI_INLINE I code_of(F x) {
    const Pair pair = nearest_pair(x);
    return pair.index << 1 | select(pair.upper, splat(1), I{});
}

// The best of 16 scales for a block: the first maps its peak to -127, the others to the values around that.
TERAZI_INLINE F fit_scale(const F* x, const F* weight) {
    constexpr int TRIALS = 7;
    F magnitude;
    const F peak = signed_peak(x, BLOCK, magnitude);
    F scale{}, best{};
    for (int trial = -TRIALS - 1; trial <= TRIALS; ++trial) {
        const bool first = trial < -TRIALS;
        const F inverse = first ? 1.f / (-peak / float(VALUES[0])) : float(trial + VALUES[0]) / peak;
        F xq{}, qq{};
        for (int i = 0; i < BLOCK; ++i) {
            const F q = value_of(nearest_pair(inverse * x[i]));
            xq += weight[i] * q * x[i];
            qq += weight[i] * q * q;
        }
        const Mask better = first ? greater(qq, F{}) : greater(qq, F{}) & greater(xq * xq, best * qq);
        scale = select(better, xq / qq, scale);
        best = select(better, scale * xq, best);
    }
    return select(less(magnitude, splat(SMALLEST_PEAK)), F{}, scale);
}

// Weights of the squared error for the block that starts at weight `first`.
TERAZI_INLINE void error_weights(F* weight, const Batch& batch, const F* x, int first, F sigma2) {
    if (batch.importance[0]) {
        const float* at[W];
        for (int k = 0; k < W; ++k) at[k] = batch.importance[k] + first;
        load_transposed(weight, at, BLOCK);
        for (int i = 0; i < BLOCK; ++i) weight[i] *= sqrt(sigma2 + x[i] * x[i]);
    } else {
        for (int i = 0; i < BLOCK; ++i) weight[i] = x[i] * x[i];
    }
}

TERAZI_INLINE void put_codes(const Batch& batch, int offset, const F* x, F inverse) {
    for (int i = 0; i < 16; i += 4) {
        I byte[4];
        for (int k = 0; k < 4; ++k) byte[k] = code_of(inverse * x[i + k]) | code_of(inverse * x[i + k + 16]) << 4;
        put_word(batch, offset + i, pack_bytes(byte[0], byte[1], byte[2], byte[3]));
    }
}

template <int SIZE>
TERAZI_INLINE F twice_mean_square(const F* x) {
    F sum{};
    for (int i = 0; i < SIZE; ++i) sum += x[i] * x[i];
    return sum * (2.f / SIZE);
}

void encode_nl(const float* source, uint8_t* out, int64_t rows, int64_t columns, const float* importance) {
    for_batches<1>(source, out, rows, columns, importance, BLOCK, 18, [](const Batch* batches) {
        const Batch& batch = *batches;
        F x[BLOCK], weight[BLOCK];
        load_transposed(x, batch.x, BLOCK);
        error_weights(weight, batch, x, 0, twice_mean_square<BLOCK>(x));
        const F scale = fit_scale(x, weight);
        put_half(batch, 0, scale);
        put_codes(batch, 2, x, select(differ(scale, F{}), 1.f / scale, F{}));
    });
}

// fp16 d; 2 high bits of eight 6-bit scales; their 4 low bits; codes.
void encode_xs(const float* source, uint8_t* out, int64_t rows, int64_t columns, const float* importance) {
    constexpr int SIZE = 256, SCALES = SIZE / BLOCK;
    for_batches<1>(source, out, rows, columns, importance, SIZE, 136, [](const Batch* batches) {
        const Batch& batch = *batches;
        F x[SIZE], weight[BLOCK], scale[SCALES], largest{}, magnitude{};
        load_transposed(x, batch.x, SIZE);
        const F sigma2 = twice_mean_square<SIZE>(x);
        for (int s = 0; s < SCALES; ++s) {
            error_weights(weight, batch, x + s * BLOCK, s * BLOCK, sigma2);
            scale[s] = fit_scale(x + s * BLOCK, weight);
            const Mask larger = greater(abs(scale[s]), magnitude);
            magnitude = select(larger, abs(scale[s]), magnitude);
            largest = select(larger, scale[s], largest);
        }
        const F d = -largest / 32.f, inverse = select(differ(d, F{}), 1.f / d, F{});
        I low{}, high{};
        for (int s = 0; s < SCALES; ++s) {
            const I level = clamp(nearest_int(inverse * scale[s]), -32, 31);
            const F step = d * to_float(level);
            put_codes(batch, 8 + 16 * s, x + s * BLOCK, select(differ(step, F{}), 1.f / step, F{}));
            const I stored = level + 32;
            low |= (stored & 15) << 4 * s;
            high |= (stored >> 4) << 2 * s;
        }
        const H half = float_to_half(d);
        put_word(batch, 0, __builtin_convertvector(half, I) | high << 16);
        put_word(batch, 4, low);
    });
}

// 32 codes: the low nibbles of 16 bytes, then the high ones.
TERAZI_INLINE void decode_block(float* out, const uint8_t* codes, float scale) {
    const B16 bytes = load<B16>(codes);
    store_levels(out, scale, pick_bytes(load<B16>(VALUES), bytes & 15));
    store_levels(out + 16, scale, pick_bytes(load<B16>(VALUES), bytes >> 4));
}

void decode_nl(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for (int64_t b = 0; b < rows * columns / BLOCK; ++b, q += 18, out += BLOCK) decode_block(out, q + 2, load_half(q));
}

void decode_xs(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for (int64_t b = 0; b < rows * columns / 256; ++b, q += 136) {
        const float d = load_half(q);
        const int high = load<uint16_t>(q + 2);
        for (int s = 0; s < 8; ++s, out += BLOCK) {
            const int level = (q[4 + s / 2] >> s % 2 * 4 & 15) | (high >> 2 * s & 3) << 4;
            decode_block(out, q + 8 + 16 * s, d * float(level - 32));
        }
    }
}

constexpr Kernel KERNELS[] = {
    {20, 32, 18, encode_nl, decode_nl},
    {23, 256, 136, encode_xs, decode_xs},
};

}  // namespace

extern const Family iq4 = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
