// TQ1_0, TQ2_0: -1, 0 or 1 times the block's peak, five to a byte or four.
#include "decode.hpp"
#include "half.hpp"
#include "kernels.hpp"

namespace terazi::TERAZI_ISA {
namespace {

constexpr int BLOCK = 256;

typedef uint8_t B32 __attribute__((vector_size(32)));

// Digits 0..2 of x / d. Where 1 / d overflows they are 1, as in the reference.
struct Digits {
    uint8_t at[BLOCK];
    float d;
    TERAZI_INLINE explicit Digits(const float* x) : d(peak_of(x, BLOCK)) {
        const float inverse = d ? 1.f / d : 0.f;
        if (inverse == __builtin_inff()) {
            memset(at, 1, BLOCK);
            return;
        }
        for (int i = 0; i < BLOCK; i += 32) {
            I8 signs[4];
            for (int k = 0; k < 4; ++k) {
                const F8 value = load<F8>(x + i + 8 * k) * inverse;
                signs[k] = (value <= -0.5f) - (value >= 0.5f);
            }
            store(at + i, narrow(signs) + 1);
        }
    }
};

// `count` bytes of five digits each, digit n of byte m at [m + n * count]. A byte is the digits as a fraction of 3^5,
// the first one highest, scaled to 256 and rounded up.
TERAZI_INLINE void put_fives(uint8_t* out, const uint8_t* digits, int count) {
    for (int m = 0; m < count; ++m) {
        int q = 0;
        for (int n = 0; n < 5; ++n) q = q * 3 + digits[m + n * count];
        out[m] = uint8_t((q * 256 + 242) / 243);
    }
}

// 32 bytes of five digits, 16 of five, 4 of four; fp16 d.
void encode_tq1(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    for (int64_t b = 0; b < rows * columns / BLOCK; ++b, x += BLOCK, out += 54) {
        const Digits digits(x);
        put_fives(out, digits.at, 32);
        put_fives(out + 32, digits.at + 160, 16);
        uint8_t rest[20] = {};
        memcpy(rest, digits.at + 240, 16);
        put_fives(out + 48, rest, 4);
        store_half(out + 52, digits.d);
    }
}

// Four digits in two bits each, digit n of byte m at [m + 32 * n], in two halves of 32 bytes; fp16 d.
void encode_tq2(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    for (int64_t b = 0; b < rows * columns / BLOCK; ++b, x += BLOCK, out += 66) {
        const Digits digits(x);
        for (int half = 0; half < 2; ++half) {
            B32 packed{};
            for (int n = 0; n < 4; ++n) packed |= load<B32>(digits.at + 128 * half + 32 * n) << 2 * n;
            store(out + 32 * half, packed);
        }
        store_half(out + 64, digits.d);
    }
}

// Digits 0..2 as weights.
TERAZI_INLINE void store_digits(float* out, const uint8_t* digits, int count, float d) {
    for (int i = 0; i < count; i += 16) store_levels(out + i, d, load<B16>(digits + i) - 1);
}

void decode_tq1(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    static constexpr uint8_t POWERS[5] = {1, 3, 9, 27, 81};
    const auto digit = [](uint8_t byte, int n) { return uint8_t(uint8_t(byte * POWERS[n]) * 3 >> 8); };
    for (int64_t b = 0; b < rows * columns / BLOCK; ++b, q += 54, out += BLOCK) {
        uint8_t digits[BLOCK];
        for (int n = 0; n < 5; ++n)
            for (int m = 0; m < 32; ++m) digits[32 * n + m] = digit(q[m], n);
        for (int n = 0; n < 5; ++n)
            for (int m = 0; m < 16; ++m) digits[160 + 16 * n + m] = digit(q[32 + m], n);
        for (int n = 0; n < 4; ++n)
            for (int m = 0; m < 4; ++m) digits[240 + 4 * n + m] = digit(q[48 + m], n);
        store_digits(out, digits, BLOCK, load_half(q + 52));
    }
}

void decode_tq2(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for (int64_t b = 0; b < rows * columns / BLOCK; ++b, q += 66) {
        const float d = load_half(q + 64);
        for (int half = 0; half < 2; ++half)
            for (int n = 0; n < 4; ++n, out += 32) {
                uint8_t digits[32];
                store(digits, load<B32>(q + 32 * half) >> 2 * n & 3);
                store_digits(out, digits, 32, d);
            }
    }
}

constexpr Kernel KERNELS[] = {
    {34, BLOCK, 54, encode_tq1, decode_tq1},
    {35, BLOCK, 66, encode_tq2, decode_tq2},
};

}  // namespace

extern const Family ternary = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
