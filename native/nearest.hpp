// The nearest codebook point to a group of weights: lanes are candidates, each summed in the reference's order.
#pragma once
#include <cfloat>

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

// The place, smallest first, of the smallest value: places[k] is that of values[k]. NaN counts for nothing.
TERAZI_INLINE int32_t place_of_least(F values, I places) {
#if defined(__AVX512F__)
    const Mask least = equal(values, splat(_mm512_reduce_min_ps((__m512)values)));
    return _mm512_mask_reduce_min_epi32(least, (__m512i)places);
#else
    float best = values[0];
    int32_t place = places[0];
    for (int k = 1; k < W; ++k) {
        const bool better = values[k] < best || (values[k] == best && places[k] < place);
        best = better ? values[k] : best;
        place = better ? places[k] : place;
    }
    return place;
#endif
}

// Of the listed keys the first that minimises sum over i of weight[i] * (level[digit i] - x[i])^2, in float,
// summed from i = 0 up.
template <int DIMS, int BITS>
TERAZI_INLINE int nearest(const uint16_t* keys, uint32_t count, Table level, const float* x, const float* weight) {
    typedef uint16_t Keys __attribute__((vector_size(2 * W)));
    Table cost[DIMS];
    for (int i = 0; i < DIMS; ++i) {
        const Table off = level - x[i];
        cost[i] = weight[i] * off * off;
    }
    const auto distance = [&](const uint16_t* p) {
        I key = __builtin_convertvector(load<Keys>(p), I);
        F sum = look_up(cost[0], key);
        for (int i = 1; i < DIMS; ++i) {
            key >>= BITS;
            sum += look_up(cost[i], key);
        }
        return sum;
    };
    I lane;
    for (int k = 0; k < W; ++k) lane[k] = k;
    F best = distance(keys);
    I place = lane;
    for (uint32_t j = W; j < count; j += W) {
        const F sum = distance(keys + j);
        const Mask better = less(sum, best);
        best = select(better, sum, best);
        place = select(better, lane + int32_t(j), place);
    }
    const int32_t winner = place_of_least(best, place);
    return keys[winner < int32_t(count) ? winner : 0];
}

}  // namespace terazi::TERAZI_ISA
