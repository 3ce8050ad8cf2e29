// MXFP4, NVFP4: 4-bit floats (E2M1) with a small float as the block's scale.
#include "decode.hpp"
#include "half.hpp"
#include "kernels.hpp"

namespace terazi::TERAZI_ISA {
namespace {

// Twice the E2M1 numbers, so that they are whole; scales are halved to match.
constexpr int8_t VALUES[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
constexpr float MIDPOINTS[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};

// Codes of the nearest VALUES * scale, the smaller of two equally near. Exact for scales of up to 4 significant bits,
// as both block types have: then no product or difference near a midpoint rounds.
TERAZI_INLINE I8 codes_of(F8 x, float scale) {
    const F8 size = magnitude(x);
    I8 code{};
    for (const float midpoint : MIDPOINTS) code -= size > midpoint * scale;
    return code | ((x < -0.5f * scale) & 8);
}

// What the scalar search does when the values are so large that differences round: first smallest error wins.
uint8_t first_nearest(float x, float scale) {
    int best = 0;
    for (int i = 1; i < 16; ++i)
        if (__builtin_fabsf(VALUES[i] * scale - x) < __builtin_fabsf(VALUES[best] * scale - x)) best = i;
    return uint8_t(best);
}

// 16 codes into 8 bytes: those of a[0..7] in the low nibbles, of b[0..7] in the high ones.
TERAZI_INLINE void put_codes(uint8_t* out, const float* a, const float* b, float scale) {
    const I8 both = codes_of(load<F8>(a), scale) | codes_of(load<F8>(b), scale) << 4;
    store(out, low_bytes(both));
}

// floor(log2(x)) - 2 with the exponent's bias, in a byte that wraps. The library's log2 rounds up to a whole number
// for floats just below a power of two, and that is what the format's files hold: ask it there.
TERAZI_INLINE uint8_t mx_exponent(float peak) {
    if (!(peak > 0)) return 0;
    const uint32_t all = bits<uint32_t>(peak);
    const bool normal = all >= 0x00800000, plain = (all & 0x007fffff) < 0x007fff00;
    if (normal && plain) return uint8_t(int(all >> 23) - 2);
    return uint8_t(int(__builtin_floorf(__builtin_log2f(peak)) - 2 + 127));
}
// Half of 2^(e - 127).
TERAZI_INLINE float mx_scale(uint8_t e) { return bits<float>(e < 2 ? 0x00200000u << e : uint32_t(e - 1) << 23); }

// 32 codes for a scale that is a power of two. There, twice the quotient is exact, and rounded away from zero it tells
// on which side of every midpoint the weight lies.
TERAZI_INLINE void put_mx_codes(uint8_t* out, const float* x, uint8_t e) {
    const float scale = mx_scale(e);
#if defined(__AVX2__)
    if (e >= 8 && e < 248) {
        constexpr int AWAY = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC;
        const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
        const __m256 twice = _mm256_set1_ps(bits<float>(uint32_t(256 - e) << 23));  // 2 / scale
        I8 steps[4];
        for (int k = 0; k < 4; ++k) {
            const __m256 value = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * k), twice);
            const __m256 up = _mm256_round_ps(_mm256_and_ps(value, magnitude), AWAY);
            steps[k] = (I8)_mm256_sign_epi32(_mm256_cvttps_epi32(up), _mm256_castps_si256(value));
        }
        const __m256i step = (__m256i)narrow(steps);
        const __m256i size = _mm256_min_epu8(_mm256_abs_epi8(step), _mm256_set1_epi8(31));
        // Codes for sizes 0..15 and 16..31; an index with its high bit set gives 0.
        const __m256i below = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4, 5, 5, 5, 5, 6));
        const __m256i above = _mm256_broadcastsi128_si256(_mm_setr_epi8(6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7));
        const __m256i code = _mm256_or_si256(
            _mm256_shuffle_epi8(below, _mm256_adds_epu8(size, _mm256_set1_epi8(0x70))),
            _mm256_shuffle_epi8(above, _mm256_sub_epi8(size, _mm256_set1_epi8(16))));
        const __m256i negative = _mm256_and_si256(_mm256_cmpgt_epi8(_mm256_setzero_si256(), step),
                                                  _mm256_cmpgt_epi8(code, _mm256_setzero_si256()));
        const __m256i all = _mm256_or_si256(code, _mm256_and_si256(negative, _mm256_set1_epi8(8)));
        store(out, _mm_or_si128(_mm256_castsi256_si128(all), _mm_slli_epi16(_mm256_extracti128_si256(all, 1), 4)));
        return;
    }
#endif
    put_codes(out, x, x + 16, scale);
    put_codes(out + 8, x + 8, x + 24, scale);
}

void encode_mxfp4(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    for (int64_t b = 0; b < rows * columns / 32; ++b, x += 32, out += 17) {
        const uint8_t e = mx_exponent(peak_of(x, 32));
        out[0] = e;
        put_mx_codes(out + 1, x, e);
    }
}

TERAZI_INLINE void decode_nibbles(float* out, const uint8_t* codes, float scale) {
    const B16 table = load<B16>(VALUES), bytes = load<B16>(codes);
    store_levels(out, scale, pick_bytes(table, bytes & 15));
    store_levels(out + 16, scale, pick_bytes(table, bytes >> 4));
}

void decode_mxfp4(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    for (int64_t b = 0; b < rows * columns / 32; ++b, q += 17, out += 32) decode_nibbles(out, q + 1, mx_scale(q[0]));
}

// Unsigned E4M3 (bias 7, at most 448), rounding half up; all of it through the bits.
TERAZI_INLINE uint8_t to_ue4m3(float x) {
    if (!(x > 0)) return 0;
    if (x > 448) x = 448;
    const uint32_t all = bits<uint32_t>(x);
    const int exponent = int(all >> 23) - 127 + 7;
    if (exponent <= 0) return uint8_t(x * 512 + 0.5f) > 7 ? 7 : uint8_t(x * 512 + 0.5f);
    if (exponent >= 15) return 0x7e;
    const int code = exponent << 3 | int(all >> 20 & 7);
    const int rounded = code + int(all >> 19 & 1);
    return uint8_t(rounded >= 15 << 3 ? 0x7e : rounded);
}
// Half of the scale; 0x7f, which would be NaN, counts as 0.
struct Ue4m3 {
    float half[256];
    constexpr Ue4m3() : half() {
        for (int code = 0; code < 256; ++code) {
            const int exponent = code >> 3 & 15, mantissa = code & 7;
            float value = float(exponent ? mantissa + 8 : mantissa) * 0x1p-10f;
            for (int i = 1; i < exponent; ++i) value *= 2;
            half[code] = code == 0x7f ? 0 : value;
        }
    }
};
constexpr Ue4m3 UE4M3;

// Four scales, then four runs of 16 codes.
void encode_nvfp4(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    for (int64_t b = 0; b < rows * columns / 64; ++b, out += 36)
        for (int s = 0; s < 4; ++s, x += 16) {
            const float peak = peak_of(x, 16);
            const uint8_t code = to_ue4m3(peak / 6.f);
            const float scale = UE4M3.half[code];
            uint8_t* codes = out + 4 + 8 * s;
            out[s] = code;
            if (scale == 0) {
                memset(codes, 0, 8);
            } else if (peak > 448 * 6) {
                for (int i = 0; i < 8; ++i)
                    codes[i] = uint8_t(first_nearest(x[i], scale) | first_nearest(x[8 + i], scale) << 4);
            } else {
                put_codes(codes, x, x + 8, scale);
            }
        }
}

void decode_nvfp4(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    const B16 table = load<B16>(VALUES);
    for (int64_t b = 0; b < rows * columns / 64; ++b, q += 36)
        for (int s = 0; s < 4; ++s, out += 16) {
            const float scale = UE4M3.half[q[s]];
            typedef uint64_t Words __attribute__((vector_size(16)));
            const uint64_t packed = load<uint64_t>(q + 4 + 8 * s);
            store_levels(out, scale, pick_bytes(table, (B16)Words{packed, packed >> 4} & 15));
        }
}

constexpr Kernel KERNELS[] = {
    {39, 32, 17, encode_mxfp4, decode_mxfp4},
    {40, 64, 36, encode_nvfp4, decode_nvfp4},
};

}  // namespace

extern const Family fp4 = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
