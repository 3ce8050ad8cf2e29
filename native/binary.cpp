// Q1_0, Q2_0: a sign, or one of -1, 0, 1, 2, times the block's scale.
#include "batch.hpp"
#include "decode.hpp"
#include "kernels.hpp"

namespace terazi::TERAZI_ISA {
namespace {

// fp16 mean magnitude, then a bit for each weight that is not negative. Lanes are blocks: the sum has an order.
void encode_q1(const float* source, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    constexpr int BLOCK = 128;
    for_batches<1>(source, out, rows, columns, nullptr, BLOCK, 18, [](const Batch* batches) {
        const Batch& batch = *batches;
        F x[32], sum{};
        for (int word = 0; word < BLOCK / 32; ++word) {
            const float* from[W];
            for (int k = 0; k < W; ++k) from[k] = batch.x[k] + 32 * word;
            load_transposed(x, from, 32);
            I positive{};
            for (int i = 0; i < 32; ++i) {
                sum += abs(x[i]);
                positive |= select(less_equal(F{}, x[i]), splat(int32_t(1u << i)), I{});
            }
            put_word(batch, 2 + 4 * word, positive);
        }
        put_half(batch, 0, sum / float(BLOCK));
    });
}

void decode_q1(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for (int64_t b = 0; b < rows * columns / 128; ++b, q += 18) {
        const float d = load_half(q);
        for (int i = 0; i < 16; ++i, out += 8) {
            const I8 negative = ~(I8{} + int32_t(q[2 + i])) << I8{31, 30, 29, 28, 27, 26, 25, 24} & INT32_MIN;
            store(out, bits<I8>(F8{} + d) ^ negative);
        }
    }
}

// fp16 peak, then 2-bit codes. Where 1 / peak overflows the code is 0, as in the reference.
void encode_q2(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    constexpr int BLOCK = 64;
    typedef uint32_t U16 __attribute__((vector_size(64)));
    for (int64_t b = 0; b < rows * columns / BLOCK; ++b, x += BLOCK, out += 18) {
        const float peak = peak_of(x, BLOCK);
        const float inverse = peak > 0 ? 1.f / peak : 0.f;
        uint8_t codes[BLOCK] = {};
        if (inverse != __builtin_inff())
            for (int i = 0; i < BLOCK; i += 32) {
                I8 signs[4];
                for (int k = 0; k < 4; ++k) {
                    const F8 value = load<F8>(x + i + 8 * k) * inverse;
                    signs[k] = (value <= -0.5f) - (value >= 0.5f);
                }
                store(codes + i, narrow(signs) + 1);
            }
        const U16 four = load<U16>(codes);
        const U16 packed = four | four >> 6 | four >> 12 | four >> 18;
        store_half(out, peak);
        store(out + 2, __builtin_convertvector(packed, B16));
    }
}

void decode_q2(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for (int64_t b = 0; b < rows * columns / 64; ++b, q += 18) {
        const float d = load_half(q);
        for (int i = 0; i < 8; ++i, out += 8) {
            const I8 code = (I8{} + int32_t(load<uint16_t>(q + 2 + 2 * i))) >> I8{0, 2, 4, 6, 8, 10, 12, 14} & 3;
            store(out, __builtin_convertvector(code - 1, F8) * d);
        }
    }
}

constexpr Kernel KERNELS[] = {
    {41, 128, 18, encode_q1, decode_q1},
    {42, 64, 18, encode_q2, decode_q2},
};

}  // namespace

extern const Family binary = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
