// Decoding pieces: small integers from tables to floats, eight or sixteen weights at a time.
#pragma once
#include "codebooks.hpp"
#include "half.hpp"

namespace terazi::TERAZI_ISA {

typedef float F8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));
typedef uint8_t B8 __attribute__((vector_size(8)));
typedef int8_t S8 __attribute__((vector_size(8)));
typedef uint8_t B16 __attribute__((vector_size(16)));

TERAZI_INLINE F8 magnitude(F8 x) { return bits<F8>(bits<I8>(x) & 0x7fffffff); }

// Each lane's entry of a table of sixteen bytes; indices are below 16.
TERAZI_INLINE B16 pick_bytes(B16 table, B16 index) {
#if defined(__SSSE3__)
    return (B16)_mm_shuffle_epi8((__m128i)table, (__m128i)index);
#else
    B16 result;
    for (int k = 0; k < 16; ++k) result[k] = table[index[k]];
    return result;
#endif
}

// out[i] = scale * (the signed byte i of `levels`).
TERAZI_INLINE void store_levels(float* out, float scale, uint64_t levels) {
    const I8 wide = __builtin_convertvector(bits<S8>(levels), I8);
    store(out, scale * __builtin_convertvector(wide, F8));
}
TERAZI_INLINE void store_levels(float* out, float scale, B16 levels) {
    uint64_t eight[2];
    memcpy(eight, &levels, sizeof eight);
    store_levels(out, scale, eight[0]);
    store_levels(out + 8, scale, eight[1]);
}

// Seven stored signs, the eighth of which makes the number of negative ones even.
TERAZI_INLINE uint32_t even_signs(uint32_t seven) {
    seven &= 127;
    return seven | uint32_t(__builtin_parity(seven)) << 7;
}

// out[i] = scale * byte i of `magnitudes`, negated where bit i of `signs` is set.
TERAZI_INLINE void store_signed(float* out, float scale, uint64_t magnitudes, uint32_t signs) {
    const I8 levels = __builtin_convertvector(bits<B8>(magnitudes), I8);
    const F8 value = scale * __builtin_convertvector(levels, F8);
    const I8 sign = (I8{} + int32_t(signs)) << I8{31, 30, 29, 28, 27, 26, 25, 24} & INT32_MIN;
    store(out, bits<I8>(value) ^ sign);
}

}  // namespace terazi::TERAZI_ISA
