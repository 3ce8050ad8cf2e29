// Vectors whose lanes are independent blocks: W lanes of float or int32, the same source for every CPU.
//
// TERAZI_ISA names the instruction set that this translation unit is compiled for. Everything below lives in the
// namespace of that name: two units compiled with different flags must never share an inline function.
// Baseline uses compiler vectors only, so it is also the code for NEON and any other CPU.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#ifndef TERAZI_ISA
#error "compile with -DTERAZI_ISA=baseline, avx2 or avx512"
#endif
#define TERAZI_INLINE [[gnu::always_inline]] inline

namespace terazi::TERAZI_ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float F __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));
typedef uint32_t U __attribute__((vector_size(4 * W)));
// Eight lanes whatever W is, for work inside a block.
typedef float F8 __attribute__((vector_size(32)));
typedef int32_t I8 __attribute__((vector_size(32)));

TERAZI_INLINE F splat(float value) { return value - F{}; }  // not F{} + value, which loses the sign of -0
TERAZI_INLINE I splat(int32_t value) { return I{} + value; }

template <class To, class From>
TERAZI_INLINE To bits(From value) {
    static_assert(sizeof(To) == sizeof(From));
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}
template <class V>
TERAZI_INLINE V load(const void* p) {
    V value;
    memcpy(&value, p, sizeof value);
    return value;
}
template <class V>
TERAZI_INLINE void store(void* p, V value) {
    memcpy(p, &value, sizeof value);
}

// Asks for the cache line that decoding at `p` will soon write; past the end it does nothing.
TERAZI_INLINE void prepare_writing([[maybe_unused]] void* p) {
    if constexpr (W > 4) __builtin_prefetch(static_cast<uint8_t*>(p) + 512, 1);
}

// W bytes as integers. (GCC 12 converts byte vectors one by one: hence the intrinsics.)
#if defined(__AVX512F__)
TERAZI_INLINE I widen(const uint8_t* p) { return (I)_mm512_cvtepu8_epi32(load<__m128i>(p)); }
TERAZI_INLINE I widen_signed(const uint8_t* p) { return (I)_mm512_cvtepi8_epi32(load<__m128i>(p)); }
#elif defined(__AVX2__)
TERAZI_INLINE I widen(const uint8_t* p) { return (I)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(load<int64_t>(p))); }
TERAZI_INLINE I widen_signed(const uint8_t* p) {
    return (I)_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(load<int64_t>(p)));
}
#else
TERAZI_INLINE I widen(const uint8_t* p) {
    typedef uint8_t Bytes __attribute__((vector_size(16)));
    typedef uint16_t Words __attribute__((vector_size(16)));
    const Bytes bytes = bits<Bytes>(I{load<int32_t>(p)});
    const Words words = bits<Words>(__builtin_shufflevector(  // zeros between, twice
        bytes, Bytes{}, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
    return bits<I>(__builtin_shufflevector(words, Words{}, 0, 8, 1, 9, 2, 10, 3, 11));
}
TERAZI_INLINE I widen_signed(const uint8_t* p) { return widen(p) << 24 >> 24; }
#endif
// The low bytes of 32 integers.
TERAZI_INLINE void store_low_bytes(uint8_t* p, const I* values) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i low = _mm256_set1_epi32(0xff);
    __m256i v[4];
    for (int k = 0; k < 4; ++k) v[k] = _mm256_and_si256((__m256i)values[k], low);
    const __m256i words = _mm256_packus_epi16(_mm256_packus_epi32(v[0], v[1]), _mm256_packus_epi32(v[2], v[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);  // packing worked within halves
    store(p, _mm256_permutevar8x32_epi32(words, order));
#else
    typedef uint8_t Bytes __attribute__((vector_size(W)));
    for (int k = 0; k < 32 / W; ++k) store(p + k * W, __builtin_convertvector(values[k], Bytes));
#endif
}

TERAZI_INLINE F to_float(I value) { return __builtin_convertvector(value, F); }
TERAZI_INLINE F abs(F value) { return bits<F>(bits<I>(value) & 0x7fffffff); }

// Comparisons give a Mask; a comparison with NaN is false, except `differ`.
#if defined(__AVX512F__)
using Mask = __mmask16;
TERAZI_INLINE Mask less(F a, F b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
TERAZI_INLINE Mask less_equal(F a, F b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LE_OQ); }
TERAZI_INLINE Mask equal(F a, F b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_EQ_OQ); }
TERAZI_INLINE Mask differ(F a, F b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NEQ_UQ); }
TERAZI_INLINE Mask less(I a, I b) { return _mm512_cmplt_epi32_mask((__m512i)a, (__m512i)b); }
TERAZI_INLINE Mask equal(I a, I b) { return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b); }
TERAZI_INLINE Mask invert(Mask m) { return _knot_mask16(m); }
TERAZI_INLINE bool any(Mask m) { return m != 0; }
TERAZI_INLINE F select(Mask m, F yes, F no) { return (F)_mm512_mask_blend_ps(m, (__m512)no, (__m512)yes); }
TERAZI_INLINE I select(Mask m, I yes, I no) {
    return (I)_mm512_mask_blend_epi32(m, (__m512i)no, (__m512i)yes);
}
#else
using Mask = I;
TERAZI_INLINE Mask less(F a, F b) { return a < b; }
TERAZI_INLINE Mask less_equal(F a, F b) { return a <= b; }
TERAZI_INLINE Mask equal(F a, F b) { return a == b; }
TERAZI_INLINE Mask differ(F a, F b) { return a != b; }
TERAZI_INLINE Mask less(I a, I b) { return a < b; }
TERAZI_INLINE Mask equal(I a, I b) { return a == b; }
TERAZI_INLINE Mask invert(Mask m) { return ~m; }
#if defined(__AVX2__)
TERAZI_INLINE bool any(Mask m) { return _mm256_movemask_ps((__m256)m) != 0; }
TERAZI_INLINE F select(Mask m, F yes, F no) {
    return (F)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)m);
}
TERAZI_INLINE I select(Mask m, I yes, I no) { return (I)select(m, (F)yes, (F)no); }
#else
TERAZI_INLINE bool any(Mask m) {
    int32_t found = 0;
    for (int k = 0; k < W; ++k) found |= m[k];
    return found != 0;
}
TERAZI_INLINE F select(Mask m, F yes, F no) { return bits<F>((bits<I>(yes) & m) | (bits<I>(no) & ~m)); }
TERAZI_INLINE I select(Mask m, I yes, I no) { return (yes & m) | (no & ~m); }
#endif
#endif
TERAZI_INLINE Mask greater(F a, F b) { return less(b, a); }

// Of two zeros or with a NaN, `b` (the x86 rule).
#if defined(__AVX512F__)
TERAZI_INLINE F max(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
TERAZI_INLINE F min(F a, F b) { return (F)_mm512_min_ps((__m512)a, (__m512)b); }
TERAZI_INLINE I max(I a, I b) { return (I)_mm512_max_epi32((__m512i)a, (__m512i)b); }
TERAZI_INLINE I min(I a, I b) { return (I)_mm512_min_epi32((__m512i)a, (__m512i)b); }
TERAZI_INLINE F sqrt(F a) { return (F)_mm512_sqrt_ps((__m512)a); }
#elif defined(__AVX2__)
TERAZI_INLINE F max(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
TERAZI_INLINE F min(F a, F b) { return (F)_mm256_min_ps((__m256)a, (__m256)b); }
TERAZI_INLINE I max(I a, I b) { return (I)_mm256_max_epi32((__m256i)a, (__m256i)b); }
TERAZI_INLINE I min(I a, I b) { return (I)_mm256_min_epi32((__m256i)a, (__m256i)b); }
TERAZI_INLINE F sqrt(F a) { return (F)_mm256_sqrt_ps((__m256)a); }
#else
TERAZI_INLINE F max(F a, F b) { return select(a > b, a, b); }
TERAZI_INLINE F min(F a, F b) { return select(a < b, a, b); }
TERAZI_INLINE I max(I a, I b) { return select(a > b, a, b); }
TERAZI_INLINE I min(I a, I b) { return select(a < b, a, b); }
TERAZI_INLINE F sqrt(F a) {
    for (int k = 0; k < W; ++k) a[k] = __builtin_sqrtf(a[k]);
    return a;
}
#endif

// Towards zero; NaN and what does not fit give INT32_MIN on every CPU, as x86 does.
TERAZI_INLINE I truncate(F value) {
    I result = __builtin_convertvector(value, I);
#if !defined(__x86_64__) && !defined(__i386__)
    result = select(less(abs(value), splat(2147483648.f)), result, splat(INT32_MIN));
#endif
    return result;
}

// Half to even, by adding 1.5 * 2^23. Outside +-2^22 this gives the reference's (wrong) bits, on purpose.
constexpr float ROUNDER = 12582912.f;
TERAZI_INLINE I nearest_int(F value) { return (bits<I>(value + ROUNDER) & 0x007fffff) - 0x00400000; }
// The same as a float; only for values inside +-2^22.
TERAZI_INLINE F nearest_float(F value) { return (value + ROUNDER) - ROUNDER; }

// Half away from zero, as roundf; only for values inside +-2^22.
TERAZI_INLINE I round_away(F value) {
    constexpr float BELOW_HALF = 0.49999997f;  // 0.5 would carry the number below one half up to one
    const I sign = bits<I>(value) & INT32_MIN;
    return truncate(value + bits<F>(bits<I>(splat(BELOW_HALF)) | sign));
}

// Turns W rows of W into columns, in log2(W) steps that exchange blocks of 1, 2, 4, ... lanes.
template <int STEP, int... K>
TERAZI_INLINE void exchange(F& a, F& b) {
    const F low = a, high = b;
    a = __builtin_shufflevector(low, high, ((K & STEP) ? K - STEP + W : K)...);
    b = __builtin_shufflevector(low, high, ((K & STEP) ? K + W : K + STEP)...);
}
template <int STEP>
TERAZI_INLINE void exchange_all(F* rows) {
    for (int k = 0; k < W; ++k) {
        if (k & STEP) continue;
        if constexpr (W == 4) exchange<STEP, 0, 1, 2, 3>(rows[k], rows[k + STEP]);
        if constexpr (W == 8) exchange<STEP, 0, 1, 2, 3, 4, 5, 6, 7>(rows[k], rows[k + STEP]);
        if constexpr (W == 16)
            exchange<STEP, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(rows[k], rows[k + STEP]);
    }
}
TERAZI_INLINE void transpose(F* rows) {
    exchange_all<1>(rows);
    exchange_all<2>(rows);
    if constexpr (W >= 8) exchange_all<4>(rows);
    if constexpr (W >= 16) exchange_all<8>(rows);
}

// The largest lane; without NaN, the order of comparing does not matter.
template <int STEP, int... K>
TERAZI_INLINE F max_with_rotated(F v) {
    return max(v, __builtin_shufflevector(v, v, ((K + STEP) % W)...));
}
TERAZI_INLINE float largest_lane(F v) {
    if constexpr (W == 16) {
        v = max_with_rotated<8, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(v);
        v = max_with_rotated<4, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(v);
        v = max_with_rotated<2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(v);
        v = max_with_rotated<1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15>(v);
    } else if constexpr (W == 8) {
        v = max_with_rotated<4, 0, 1, 2, 3, 4, 5, 6, 7>(v);
        v = max_with_rotated<2, 0, 1, 2, 3, 4, 5, 6, 7>(v);
        v = max_with_rotated<1, 0, 1, 2, 3, 4, 5, 6, 7>(v);
    } else {
        v = max_with_rotated<2, 0, 1, 2, 3>(v);
        v = max_with_rotated<1, 0, 1, 2, 3>(v);
    }
    return v[0];
}

// Loads `n` floats (a multiple of 16) from each of W places: to[i][lane] = from[lane][i].
TERAZI_INLINE void load_transposed(F* to, const float* const* from, int n) {
    for (int i = 0; i < n; i += W) {
        for (int k = 0; k < W; ++k) to[i + k] = load<F>(from[k] + i);
        transpose(to + i);
    }
}

}  // namespace terazi::TERAZI_ISA
