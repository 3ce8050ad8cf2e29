// Decoding pieces: small integers from tables to floats, eight or sixteen weights at a time.
#pragma once
#include "codebooks.hpp"
#include "half.hpp"

namespace terazi::TERAZI_ISA {

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

// Eight bytes as numbers, signed or not, and the low bytes of eight integers. (GCC 12 takes byte vectors apart: hence
// the intrinsics.)
#if defined(__AVX2__)
TERAZI_INLINE F8 widen_signed(__m128i bytes) { return (F8)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)); }
TERAZI_INLINE F8 widen_signed(uint64_t bytes) { return widen_signed(_mm_cvtsi64_si128(int64_t(bytes))); }
TERAZI_INLINE F8 widen(uint64_t bytes) {
    return (F8)_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(bytes))));
}
TERAZI_INLINE uint64_t low_bytes(I8 values) {
    const __m256i each = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,  //
                                          0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i packed = _mm256_shuffle_epi8((__m256i)values, each);
    const __m128i both = _mm_unpacklo_epi32(_mm256_castsi256_si128(packed), _mm256_extracti128_si256(packed, 1));
    return uint64_t(_mm_cvtsi128_si64(both));
}
#else
TERAZI_INLINE F8 widen_signed(uint64_t bytes) {
    return __builtin_convertvector(__builtin_convertvector(bits<S8>(bytes), I8), F8);
}
TERAZI_INLINE F8 widen(uint64_t bytes) {
    return __builtin_convertvector(__builtin_convertvector(bits<B8>(bytes), I8), F8);
}
TERAZI_INLINE uint64_t low_bytes(I8 values) { return bits<uint64_t>(__builtin_convertvector(values, B8)); }
#endif

// out[i] = scale * (the signed byte i of `levels`).
TERAZI_INLINE void store_levels(float* out, float scale, B16 levels) {
#if defined(__AVX2__)
    store(out, scale * widen_signed((__m128i)levels));
    store(out + 8, scale * widen_signed(_mm_unpackhi_epi64((__m128i)levels, (__m128i)levels)));
#else
    uint64_t eight[2];
    memcpy(eight, &levels, sizeof eight);
    store(out, scale * widen_signed(eight[0]));
    store(out + 8, scale * widen_signed(eight[1]));
#endif
}

// Seven stored signs, the eighth of which makes the number of negative ones even.
TERAZI_INLINE uint32_t even_signs(uint32_t seven) {
    seven &= 127;
    return seven | uint32_t(__builtin_parity(seven)) << 7;
}

// out[i] = scale * byte i of `magnitudes`, negated where bit i of `signs` is set.
TERAZI_INLINE void store_signed(float* out, float scale, uint64_t magnitudes, uint32_t signs) {
    const F8 value = scale * widen(magnitudes);
    const I8 sign = (I8{} + int32_t(signs)) << I8{31, 30, 29, 28, 27, 26, 25, 24} & INT32_MIN;
    store(out, bits<I8>(value) ^ sign);
}

}  // namespace terazi::TERAZI_ISA
