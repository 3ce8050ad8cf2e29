// Moving rounded groups to their nearest codebook points, over trials of a slowly falling scale.
//
// From one trial to the next most groups round to the same key, and the nearest point stays the same too. With weights
// w and values x, the distance of candidate c at scale s is A[c] s^2 - B[c] s + const, where A = sum w q^2 and
// B = sum 2 w x q: so each search also works out down to which scale its winner is ahead of every other candidate by
// more than any rounding could make up for. Down to there, later trials need no search; everywhere else they sum as the
// reference does.
#pragma once
#include "nearest.hpp"

namespace terazi::TERAZI_ISA {

// The lanes in which `mask` is set, as bits.
TERAZI_INLINE uint32_t lane_bits(Mask mask) {
#if defined(__AVX512F__)
    return mask;
#elif defined(__AVX2__)
    return uint32_t(_mm256_movemask_ps((__m256)mask));
#else
    uint32_t bits = 0;
    for (int k = 0; k < W; ++k) bits |= uint32_t(mask[k] & 1) << k;
    return bits;
#endif
}

struct Winner {
    int key;
    float low;  // it surely wins at scales from here to where it was found; infinite when it may not win there either
};

// A and B of many candidates.
template <int DIMS, int BITS, class FLOATS, class INTS>
struct Parabolas {
    FLOATS a[DIMS], b[DIMS];
    TERAZI_INLINE Parabolas(FLOATS level, const float* x, const float* weight) {
        for (int i = 0; i < DIMS; ++i) {
            a[i] = weight[i] * level * level;
            b[i] = weight[i] * (2 * x[i]) * level;
        }
    }
    TERAZI_INLINE void of(INTS key, FLOATS& square, FLOATS& cross) const {
        square = pick(a[0], key);
        cross = pick(b[0], key);
        for (int i = 1; i < DIMS; ++i) {
            square += pick(a[i], key >> i * BITS);
            cross += pick(b[i], key >> i * BITS);
        }
    }
};

// Down to which scale the winner at `scale` is ahead of a candidate by `margin` (of distance over scale); `square` and
// `cross` are the candidate's less the winner's. A parabola that falls behind at larger scales cannot catch up.
template <class FLOATS>
TERAZI_INLINE FLOATS ahead_down_to(FLOATS square, FLOATS cross, FLOATS scale, FLOATS margin) {
    const FLOATS bound = (cross + margin) / square, infinite = FLOATS{} + __builtin_inff();
    return square > 0 ? bound : (((square < 0) & (scale < bound)) ? -infinite : infinite);
}

// Short lists: a search per lane, candidates one after the other.
template <int DIMS, int BITS>
class ShortSearches {
    float rows[W][16];
    int32_t counts[W];
    float scales[W], margins[W];
    const uint16_t* lists[W];

public:
    TERAZI_INLINE void set(int lane, const uint16_t* keys, int count, F8 level, const float* x, const float* weight,
                           float scale, float margin) {
        const Parabolas<DIMS, BITS, F8, I8> parabolas(level, x, weight);
        I8 key;
        F8 square, cross;
        load_keys(key, keys);
        parabolas.of(key, square, cross);
        store(rows[lane], square);
        store(rows[lane] + 8, cross);
        lists[lane] = keys;
        counts[lane] = count;
        scales[lane] = scale;
        margins[lane] = margin;
    }
    // The likely winner at each lane's scale.
    TERAZI_INLINE void solve(Winner* winners) const {
        const float* from[W];
        for (int k = 0; k < W; ++k) from[k] = rows[k];
        F both[16];
        load_transposed(both, from, 16);
        const F *square = both, *cross = both + 8, scale = load<F>(scales), margin = load<F>(margins);
        F least = square[0] * scale - cross[0], own_square = square[0], own_cross = cross[0];
        I winner{};
        for (int c = 1; c < SHORT; ++c) {
            const F distance = square[c] * scale - cross[c];
            const Mask closer = less(distance, least);
            least = select(closer, distance, least);
            own_square = select(closer, square[c], own_square);
            own_cross = select(closer, cross[c], own_cross);
            winner = select(closer, splat(c), winner);
        }
        F low = splat(-__builtin_inff());
        for (int c = 0; c < SHORT; ++c) {
            const Mask rival = less(splat(c), load<I>(counts)) & invert(equal(winner, splat(c)));
            const F bound = ahead_down_to(square[c] - own_square, cross[c] - own_cross, scale, margin);
            low = select(rival, max(bound, low), low);
        }
        for (int k = 0; k < W; ++k) winners[k] = {lists[k][winner[k]], low[k]};
    }
};

// Any list: a vector of candidates at a time.
template <int DIMS, int BITS>
TERAZI_INLINE Winner likely_winner(const uint16_t* keys, int count, F8 level, const float* x, const float* weight,
                                   float scale, float margin) {
    constexpr int LANES = sizeof(Floats) / sizeof(float), CHUNKS = Neighbours::MOST / LANES;
    const Parabolas<DIMS, BITS, Floats, Ints> parabolas(as_floats(level), x, weight);
    Floats square[CHUNKS], cross[CHUNKS], least = Floats{} + __builtin_inff();
    Ints key, chunk{};
    const int chunks = (count + LANES - 1) / LANES;
    for (int c = 0; c < chunks; ++c) {
        load_keys(key, keys + c * LANES);
        parabolas.of(key, square[c], cross[c]);
        keep_closer(square[c] * scale - cross[c], Ints{} + c, least, chunk);
    }
    const int lane = first_equal(least, spread_least(least)), at = chunk[lane], winner = at * LANES + lane;
    const Floats own_square = Floats{} + square[at][lane], own_cross = Floats{} + cross[at][lane];
    Floats low = Floats{} - __builtin_inff();
    const Ints own_key = Ints{} + keys[winner];
    for (int c = 0; c < chunks; ++c) {
        load_keys(key, keys + c * LANES);
        const Floats bound = ahead_down_to(square[c] - own_square, cross[c] - own_cross, Floats{} + scale,
                                           Floats{} + margin);
        low = ((key != own_key) & (bound > low)) ? bound : low;
    }
    return {keys[winner], -spread_least(-low)[0]};
}

}  // namespace terazi::TERAZI_ISA
