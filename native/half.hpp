// float16 and bfloat16 to float32 and back, rounding half to even.
// The integer form for any CPU follows F. Giesen, "Float->half variants" (2012).
#pragma once
#include "lanes.hpp"

namespace terazi::TERAZI_ISA {

typedef uint16_t H __attribute__((vector_size(2 * W)));

TERAZI_INLINE float half_to_float(uint16_t h) {
#if defined(__F16C__)
    return _cvtsh_ss(h);
#else
    const uint32_t sign = uint32_t(h & 0x8000) << 16, rest = uint32_t(h & 0x7fff) << 13;
    // 2^112 moves the exponent's bias, and makes subnormals normal on the way.
    uint32_t value = bits<uint32_t>(bits<float>(rest) * 0x1p112f);
    if (rest >= 0x7c00u << 13) value |= 0x7f800000 | (rest > 0x7c00u << 13 ? 0x00400000 : 0);
    return bits<float>(value | sign);
#endif
}

TERAZI_INLINE uint16_t float_to_half(float x) {
#if defined(__F16C__)
    return _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
#else
    const uint32_t all = bits<uint32_t>(x), sign = all >> 16 & 0x8000;
    uint32_t magnitude = all & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0xfe00;  // NaN made by overflow: x86 sets its sign
    if (magnitude >= 0x47800000) return uint16_t(sign | 0x7c00);
    if (magnitude < 0x38800000)  // subnormal: adding 0.5 rounds in the right place
        return uint16_t(sign | (bits<uint32_t>(bits<float>(magnitude) + 0.5f) - 0x3f000000));
    magnitude += (uint32_t(15 - 127) << 23) + 0xfff + (magnitude >> 13 & 1);
    return uint16_t(sign | magnitude >> 13);
#endif
}

TERAZI_INLINE float load_half(const uint8_t* p) { return half_to_float(load<uint16_t>(p)); }
TERAZI_INLINE void store_half(uint8_t* p, float x) { store(p, float_to_half(x)); }

// What a float becomes when it is stored as float16 and read back.
TERAZI_INLINE F through_half(F value) {
    F result;
    for (int k = 0; k < W; ++k) result[k] = half_to_float(float_to_half(value[k]));
    return result;
}

TERAZI_INLINE F half_to_float(H h) {
#if defined(__AVX512F__)
    return (F)_mm512_cvtph_ps((__m256i)h);
#elif defined(__F16C__)
    return (F)_mm256_cvtph_ps((__m128i)h);
#else
    F result;
    for (int k = 0; k < W; ++k) result[k] = half_to_float(h[k]);
    return result;
#endif
}

TERAZI_INLINE H float_to_half(F x) {
#if defined(__AVX512F__)
    return (H)_mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__F16C__)
    return (H)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
    H result;
    for (int k = 0; k < W; ++k) result[k] = float_to_half(x[k]);
    return result;
#endif
}

TERAZI_INLINE H float_to_bfloat(F x) {
    const U all = bits<U>(x);
    return __builtin_convertvector((all + 0x7fff + (all >> 16 & 1)) >> 16, H);
}
TERAZI_INLINE F bfloat_to_float(H h) { return bits<F>(__builtin_convertvector(h, U) << 16); }

}  // namespace terazi::TERAZI_ISA
