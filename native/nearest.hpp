// The nearest codebook point to a group of weights: lanes are candidates, each summed in the reference's order.
#pragma once
#include "codebooks.hpp"
#include "lanes.hpp"

namespace terazi::TERAZI_ISA {

// A small table in a register: at least 8 entries, a shorter table repeated.
constexpr int TABLE = W < 8 ? 8 : W;
typedef float Table __attribute__((vector_size(4 * TABLE)));

// Each lane's entry of the table; the index is its low bits, whatever stands above them.
TERAZI_INLINE F look_up(Table table, I index) {
#if defined(__AVX512F__)
    return (F)_mm512_permutexvar_ps((__m512i)index, (__m512)table);
#elif defined(__AVX2__)
    return (F)_mm256_permutevar8x32_ps((__m256)table, (__m256i)index);
#else
    float entries[TABLE];
    memcpy(entries, &table, sizeof entries);
    F result;
    for (int k = 0; k < W; ++k) result[k] = entries[index[k] & (TABLE - 1)];
    return result;
#endif
}

// The table that gives make(digit) for every digit of `bits` bits.
template <class Make>
TERAZI_INLINE Table make_table(int bits, Make make) {
    Table table;
    for (int k = 0; k < TABLE; ++k) table[k] = make(k & ((1 << bits) - 1));
    return table;
}

// Lists of up to this many candidates are searched in one vector of eight.
constexpr int SHORT = 8;

TERAZI_INLINE F8 pick(F8 table, I8 index) {
#if defined(__AVX2__)
    return (F8)_mm256_permutevar8x32_ps((__m256)table, (__m256i)index);
#else
    float entries[8];
    memcpy(entries, &table, sizeof entries);
    F8 result;
    for (int k = 0; k < 8; ++k) result[k] = entries[index[k] & 7];
    return result;
#endif
}
TERAZI_INLINE void load_keys(I8& keys, const uint16_t* p) {
#if defined(__AVX2__)
    keys = (I8)_mm256_cvtepu16_epi32(load<__m128i>(p));
#else
    for (int k = 0; k < 8; ++k) keys[k] = p[k];
#endif
}
// The smallest lane, in all lanes. Without NaN, the order of comparing does not matter.
template <class V>
TERAZI_INLINE V spread_least(V v) {
    V other = __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
    v = v < other ? v : other;
    other = __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5);
    v = v < other ? v : other;
    other = __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
    return v < other ? v : other;
}
// The first lane in which a and b are equal; some lane when there is none.
TERAZI_INLINE int first_equal(F8 a, F8 b) {
#if defined(__AVX512VL__)
    return __builtin_ctz(_mm256_cmp_ps_mask((__m256)a, (__m256)b, _CMP_EQ_OQ) | 128);
#elif defined(__AVX2__)
    return __builtin_ctz(unsigned(_mm256_movemask_ps(_mm256_cmp_ps((__m256)a, (__m256)b, _CMP_EQ_OQ))) | 128);
#else
    for (int k = 0; k < 8; ++k)
        if (a[k] == b[k]) return k;
    return 7;
#endif
}

// Longer lists are gone through in these.
#if defined(__AVX512F__)
typedef F Floats;
typedef I Ints;
TERAZI_INLINE F pick(F table, I index) { return look_up(table, index); }
TERAZI_INLINE void load_keys(I& keys, const uint16_t* p) { keys = (I)_mm512_cvtepu16_epi32(load<__m256i>(p)); }
TERAZI_INLINE F spread_least(F v) { return splat(_mm512_reduce_min_ps((__m512)v)); }
TERAZI_INLINE int first_equal(F a, F b) { return __builtin_ctz(equal(a, b) | 1 << 15); }
TERAZI_INLINE Floats as_floats(F8 table) { return (F)_mm512_broadcast_f32x8((__m256)table); }
TERAZI_INLINE int32_t place_of_least(F sums, I places) {
    const Mask tied = equal(sums, spread_least(sums));
    return _mm512_mask_reduce_min_epi32(tied, (__m512i)places);
}
TERAZI_INLINE void keep_closer(F sums, I places, F& least, I& place) {
    const Mask closer = less(sums, least);
    least = select(closer, sums, least);
    place = select(closer, places, place);
}
#else
typedef F8 Floats;
typedef I8 Ints;
TERAZI_INLINE Floats as_floats(F8 table) { return table; }
TERAZI_INLINE int32_t place_of_least(F8 sums, I8 places) {
    const I8 tied = sums == spread_least(sums);
    return spread_least(tied ? places : INT32_MAX + I8{})[0];
}
TERAZI_INLINE void keep_closer(F8 sums, I8 places, F8& least, I8& place) {
    const I8 closer = sums < least;
    least = closer ? sums : least;
    place = closer ? places : place;
}
#endif

// Sums over i of weight[i] * (level[digit i] - x[i])^2, in float and from i = 0 up, of many keys. `level` has an entry
// for each value of the low bits of a shifted key.
template <int DIMS, int BITS, class FLOATS, class INTS>
struct Distances {
    FLOATS cost[DIMS];
    TERAZI_INLINE Distances(FLOATS level, const float* x, const float* weight) {
        for (int i = 0; i < DIMS; ++i) {
            const FLOATS off = level - x[i];
            cost[i] = weight[i] * off * off;
        }
    }
    TERAZI_INLINE FLOATS of(const uint16_t* keys) const {
        INTS key;
        load_keys(key, keys);
        FLOATS sum = pick(cost[0], key);
        for (int i = 1; i < DIMS; ++i) sum += pick(cost[i], key >> i * BITS);
        return sum;
    }
};

// The first nearest of up to SHORT keys.
template <int DIMS, int BITS>
TERAZI_INLINE int nearest_of_few(const uint16_t* keys, F8 level, const float* x, const float* weight) {
    const F8 sums = Distances<DIMS, BITS, F8, I8>(level, x, weight).of(keys);
    return keys[first_equal(sums, spread_least(sums))];
}

// The first nearest of any number of keys. Each lane keeps its first closest one; between lanes, the place counts.
template <int DIMS, int BITS>
TERAZI_INLINE int nearest(const uint16_t* keys, uint32_t count, F8 level, const float* x, const float* weight) {
    constexpr uint32_t LANES = sizeof(Floats) / sizeof(float);
    const Distances<DIMS, BITS, Floats, Ints> distances(as_floats(level), x, weight);
    Ints places;
    for (uint32_t k = 0; k < LANES; ++k) places[k] = int32_t(k);
    Floats least = distances.of(keys);
    Ints place = places;
    for (uint32_t j = LANES; j < count; j += LANES) {
        places += int32_t(LANES);
        keep_closer(distances.of(keys + j), places, least, place);
    }
    const auto first = uint32_t(place_of_least(least, place));
    return keys[first < count ? first : 0];
}

}  // namespace terazi::TERAZI_ISA
