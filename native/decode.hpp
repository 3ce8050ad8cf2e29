// Decoding pieces: small integers from tables to floats, eight or sixteen weights at a time.
#pragma once
#include "codebooks.hpp"
#include "half.hpp"

namespace terazi::TERAZI_ISA {

typedef uint8_t B8 __attribute__((vector_size(8)));
typedef int8_t S8 __attribute__((vector_size(8)));
typedef uint8_t B16 __attribute__((vector_size(16)));
typedef int8_t S32 __attribute__((vector_size(32)));

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

// 32 integers of -128..127 as bytes.
TERAZI_INLINE S32 narrow(const I8* values) {
#if defined(__AVX2__)
    const __m256i low = _mm256_packs_epi32((__m256i)values[0], (__m256i)values[1]);
    const __m256i high = _mm256_packs_epi32((__m256i)values[2], (__m256i)values[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing worked within halves
    return (S32)_mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
#else
    uint64_t bytes[4];
    for (int k = 0; k < 4; ++k) bytes[k] = low_bytes(values[k]);
    return load<S32>(bytes);
#endif
}

// The largest magnitude of n weights, a multiple of 8.
TERAZI_INLINE float peak_of(const float* x, int n) {
    const auto larger = [](F8 a, F8 b) { return a > b ? a : b; };
    F8 peak{};
    for (int i = 0; i < n; i += 8) peak = larger(magnitude(load<F8>(x + i)), peak);
    peak = larger(peak, __builtin_shufflevector(peak, peak, 4, 5, 6, 7, 0, 1, 2, 3));
    peak = larger(peak, __builtin_shufflevector(peak, peak, 2, 3, 0, 1, 6, 7, 4, 5));
    return larger(peak, __builtin_shufflevector(peak, peak, 1, 0, 3, 2, 5, 4, 7, 6))[0];
}

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
