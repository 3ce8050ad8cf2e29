// Encoding shared by IQ2 and IQ3: signs apart, magnitudes in groups that must be points of a codebook.
//
// Lanes are super-blocks of 256 weights. Each has sub-blocks with a scale of their own; a sub-block's scale is
// searched over a few trials, each of which rounds all groups and moves those that are no point to the nearest one.
#pragma once
#include "batch.hpp"
#include "search.hpp"
#include "snap.hpp"

namespace terazi::TERAZI_ISA {

constexpr int SUPER_BLOCK = 256;

enum class Refit { all, off_grid, all_if_any_off_grid };  // which groups are rounded again at the best scale

// One sub-block of each lane, in columns: x[i][lane] is its i-th magnitude.
template <class Type>
struct SubBlock {
    static constexpr int SIZE = Type::SUB_BLOCK, GROUPS = SIZE / Type::DIMS;
    F x[SIZE];        // magnitudes; with even signs the cheapest one of an odd octet is negative
    F weight[SIZE];   // of the squared error
    I signs;          // bit i: weight i is negative
    I keys[GROUPS];   // the chosen points
    F scale;
    Mask stored;      // lanes that are too small to encode keep all bits 0
};

// Splits x into magnitudes and signs. With even signs, the number of negative weights in each 8 is made even by
// flipping the one whose flip costs least.
template <class Type>
TERAZI_INLINE void split_signs(SubBlock<Type>& sub) {
    sub.signs = I{};
    for (int octet = 0; octet < sub.SIZE; octet += 8) {
        I signs{}, cheapest{};
        F least_cost{};
        for (int i = 0; i < 8; ++i) {
            F& x = sub.x[octet + i];
            const I bit = splat(1 << i);
            signs |= select(less(x, F{}), bit, I{});
            if constexpr (Type::EVEN_SIGNS) {
                const F cost = sub.weight[octet + i] * x * x;
                const Mask cheaper = less(cost, least_cost);
                cheapest = i ? select(cheaper, bit, cheapest) : bit;
                least_cost = i ? select(cheaper, cost, least_cost) : cost;
            }
            x = abs(x);
        }
        if constexpr (Type::EVEN_SIGNS) {
            I odd = signs ^ signs >> 4;
            odd ^= odd >> 2;
            odd = (odd ^ odd >> 1) & 1;
            const I flip = cheapest & -odd;
            for (int i = 0; i < 8; ++i) {
                F& x = sub.x[octet + i];
                x = select(equal(flip, splat(1 << i)), -x, x);
            }
            signs ^= flip;
        }
        sub.signs |= signs << octet;
    }
}

// The digits of one group at 1 / scale = `inverse`.
template <class Type>
TERAZI_INLINE I round_group(const F* x, F inverse) {
    I key{};
    for (int i = 0; i < Type::DIMS; ++i) {
        const I digit = nearest_int(0.5f * (inverse * x[i] - 1.f));
        key |= clamp(digit, 0, Type::LEVELS - 1) << Type::BITS * i;
    }
    return key;
}

// Moves the groups of a sub-block of each lane to the codebook, at scales around a known one.
template <class Type>
class Snapper {
    static constexpr int SIZE = Type::SUB_BLOCK, DIMS = Type::DIMS, BITS = Type::BITS, COUNT = SIZE / DIMS * W;
    const Neighbours& grid;
    F8 odd;                               // the magnitude of each digit
    float x[W][SIZE], weight[W][SIZE];    // each lane's in a row
    // By group and lane: what the last search found, and for which key and scales that holds.
    int32_t key[COUNT], point[COUNT], off_grid[COUNT];
    float low[COUNT], high[COUNT], margin[COUNT];
    float lowest[W], highest[W];          // scales that `margin` is good for

    TERAZI_INLINE static void to_rows(float (*rows)[SIZE], const F* columns) {
        for (int i = 0; i < SIZE; i += W) {
            F square[W];
            for (int k = 0; k < W; ++k) square[k] = columns[i + k];
            transpose(square);
            for (int k = 0; k < W; ++k) store(rows[k] + i, square[k]);
        }
    }
    // 2^-17 of sum w (s q + x)^2, over s, for the largest q: twice what rounding can do to a difference of distances.
    // Where products could leave the range of float: infinity.
    TERAZI_INLINE void set_margins(const F* x_columns, const F* weights, F scale) {
        const F least_scale = 0.75f * scale, most_scale = 1.5f * scale;
        const Mask scale_ok = greater(scale, splat(0x1p-60f)) & less(scale, splat(0x1p60f));
        for (int g = 0; g < SIZE / DIMS; ++g) {
            F reach{};
            for (int i = g * DIMS; i < (g + 1) * DIMS; ++i) {
                const F far = most_scale * float(2 * Type::LEVELS - 1) + abs(x_columns[i]);
                reach += weights[i] * far * far;
            }
            const Mask ok = scale_ok & greater(reach, splat(0x1p-90f)) & less(reach, splat(0x1p90f));
            store(margin + g * W, select(ok, reach * 0x1p-17f / least_scale, splat(__builtin_inff())));
        }
        store(lowest, least_scale);
        store(highest, most_scale);
    }
    TERAZI_INLINE void keep(int at, const Winner& winner) {
        point[at] = winner.key;
        low[at] = winner.low < lowest[at % W] ? lowest[at % W] : winner.low;
    }
    TERAZI_INLINE const float* x_of(int at) const { return x[at % W] + at / W * DIMS; }
    TERAZI_INLINE const float* weight_of(int at) const { return weight[at % W] + at / W * DIMS; }
    TERAZI_INLINE const uint16_t* list_of(int at) const { return grid.keys + grid.lists[key[at]].start; }
    TERAZI_INLINE int length_of(int at) const { return int(grid.lists[key[at]].count); }

    TERAZI_INLINE void search_one(int at, float scale) {
        keep(at, likely_winner<DIMS, BITS>(list_of(at), length_of(at), odd, x_of(at), weight_of(at), scale,
                                           margin[at]));
    }
    // Short lists, W at a time as long as there are enough to fill half the lanes.
    TERAZI_INLINE void search_short(const uint8_t* places, int count, const float* scales) {
        int i = 0;
        for (; i + W / 2 <= count; i += W) {
            ShortSearches<DIMS, BITS> searches;
            Winner winners[W];
            for (int k = 0; k < W; ++k) {
                const int at = places[i + k < count ? i + k : count - 1];
                searches.set(k, list_of(at), length_of(at), odd, x_of(at), weight_of(at), scales[at % W], margin[at]);
            }
            searches.solve(winners);
            for (int k = 0; k < W && i + k < count; ++k) keep(places[i + k], winners[k]);
        }
        for (; i < count; ++i) search_one(places[i], scales[places[i] % W]);
    }
    // Where the likely winner is too close to others: the reference's sums. They hold for this scale only.
    TERAZI_INLINE void search_exactly(int at, float scale) {
        low[at] = __builtin_inff();
        point[at] = nearest<DIMS, BITS>(list_of(at), uint32_t(length_of(at)), scale * odd, x_of(at), weight_of(at));
    }

public:
    TERAZI_INLINE Snapper(const Neighbours& grid, const SubBlock<Type>& sub, F scale) : grid(grid) {
        F root[SIZE];
        for (int i = 0; i < SIZE; ++i) root[i] = sqrt(sub.weight[i]);
        to_rows(x, sub.x);
        to_rows(weight, root);
        for (int k = 0; k < 8; ++k) odd[k] = 2.f * float(k & ((1 << BITS) - 1)) + 1;
        for (int i = 0; i < COUNT; i += W) store(key + i, splat(-1));
        set_margins(sub.x, root, scale);
    }

    // Replaces the wanted groups' keys (bit g of `wanted`: group g) by their nearest points' at this scale. Returns the
    // bits of the groups that were no point.
    TERAZI_INLINE I snap(I* keys, F scale, I wanted) {
        uint8_t changed[COUNT], few[COUNT], many[COUNT];
        int changed_count = 0, few_count = 0, many_count = 0;
        float scales[W];
        store(scales, scale);
        for (int g = 0; g < SIZE / DIMS; ++g) {
            const Mask holds = equal(load<I>(key + g * W), keys[g]) & less(load<F>(low + g * W), scale) &
                               less_equal(scale, load<F>(high + g * W));
            const Mask search = invert(holds | equal(wanted & 1 << g, I{}));
            store(key + g * W, select(search, keys[g], load<I>(key + g * W)));
            store(high + g * W, select(search, scale, load<F>(high + g * W)));
            for (uint32_t lanes = lane_bits(search); lanes; lanes &= lanes - 1)
                changed[changed_count++] = uint8_t(g * W + __builtin_ctz(lanes));
        }
        // Sorted by how long they take, the searches' branches are foreseeable.
        for (int i = 0; i < changed_count; ++i) {
            const int at = changed[i], length = length_of(at);
            point[at] = key[at];
            low[at] = -__builtin_inff();
            off_grid[at] = int(length != 0) << at / W;
            few[few_count] = many[many_count] = uint8_t(at);
            few_count += unsigned(length - 1) < SHORT;
            many_count += length > SHORT;
        }
        search_short(few, few_count, scales);
        for (int i = 0; i < many_count; ++i) search_one(many[i], scales[many[i] % W]);
        for (int i = 0; i < changed_count; ++i) {
            const int at = changed[i];
            const float s = scales[at % W];
            if (off_grid[at] && !(low[at] < s && s < highest[at % W])) search_exactly(at, s);
        }
        I off{};
        for (int g = 0; g < SIZE / DIMS; ++g) {
            keys[g] = load<I>(point + g * W);
            off |= load<I>(off_grid + g * W);
        }
        return off;
    }
};

// Sums for the least-squares scale of the chosen points: of w * x * q and of w * q * q.
template <class Type>
struct Fit {
    F xq{}, qq{};
    TERAZI_INLINE Fit(const SubBlock<Type>& sub, const I* keys) {
        const Table odd = make_table(Type::BITS, [](int digit) { return 2.f * float(digit) + 1; });
        for (int g = 0; g < sub.GROUPS; ++g) {
            I key = keys[g];
            for (int i = g * Type::DIMS; i < (g + 1) * Type::DIMS; ++i, key >>= Type::BITS) {
                const F q = look_up(odd, key);
                xq += sub.weight[i] * sub.x[i] * q;
                qq += sub.weight[i] * q * q;
            }
        }
    }
};

// Rounds groups again at the scale found, and fits the scale to the result.
template <class Type>
TERAZI_INLINE void refit(Snapper<Type>& snapper, SubBlock<Type>& sub, F& scale, I off_grid) {
    constexpr int GROUPS = SubBlock<Type>::GROUPS, ALL = (1 << GROUPS) - 1;
    I again = off_grid;
    if (Type::REFIT == Refit::all) again = splat(ALL);
    if (Type::REFIT == Refit::all_if_any_off_grid) again = select(equal(off_grid, I{}), I{}, splat(ALL));
    again = select(sub.stored & greater(scale, F{}), again, I{});
    const Mask none = equal(again, I{});
    if (!any(invert(none))) return;

    const F inverse = 1.f / scale;
    I keys[GROUPS];
    for (int g = 0; g < GROUPS; ++g) keys[g] = round_group<Type>(sub.x + g * Type::DIMS, inverse);
    snapper.snap(keys, scale, again);
    for (int g = 0; g < GROUPS; ++g)
        sub.keys[g] = select(equal(again & splat(1 << g), I{}), sub.keys[g], keys[g]);
    const Fit<Type> fit(sub, sub.keys);
    scale = select(invert(none) & greater(fit.qq, F{}), fit.xq / fit.qq, scale);
}

// Finds scale and points of a sub-block whose x, weight, signs and stored are set. `top` is the magnitude that the
// middle trial maps to the highest level; `start` is the scale to keep when no trial counts.
template <class Type>
TERAZI_INLINE void search_scale(const Neighbours& grid, SubBlock<Type>& sub, F top, F start) {
    constexpr int GROUPS = SubBlock<Type>::GROUPS, ALL = (1 << GROUPS) - 1;
    Snapper<Type> snapper(grid, sub, top / float(2 * Type::LEVELS - 1));
    const I live = select(sub.stored, splat(ALL), I{});
    F best{}, scale = start;
    I off_grid = splat(Type::REFIT == Refit::all_if_any_off_grid ? ALL : 0);
    for (int g = 0; g < GROUPS; ++g) sub.keys[g] = I{};
    for (int step = -Type::STEPS; step <= Type::STEPS; ++step) {
        const F inverse = (2 * Type::LEVELS - 1 + float(step) * Type::STEP) / top;
        I keys[GROUPS];
        for (int g = 0; g < GROUPS; ++g) keys[g] = round_group<Type>(sub.x + g * Type::DIMS, inverse);
        const I off = snapper.snap(keys, 1.f / inverse, live);
        const Fit<Type> fit(sub, keys);
        const Mask better = greater(fit.qq, F{}) & greater(fit.xq * fit.xq, best * fit.qq);
        if (!any(better)) continue;
        scale = select(better, fit.xq / fit.qq, scale);
        best = select(better, scale * fit.xq, best);
        off_grid = select(better, off, off_grid);
        for (int g = 0; g < GROUPS; ++g) sub.keys[g] = select(better, keys[g], sub.keys[g]);
    }
    refit(snapper, sub, scale, off_grid & live);

    const Mask negative = less(scale, F{});
    sub.scale = select(negative, -scale, scale);
    sub.signs = select(negative, ~sub.signs, sub.signs);
}

// What is stored of one super-block.
template <class Type>
struct Encoded {
    static constexpr int SUBS = SUPER_BLOCK / Type::SUB_BLOCK, GROUPS = Type::SUB_BLOCK / Type::DIMS;
    float max_scale;  // of the sub-blocks; zero: nothing to store
    float d;          // max_scale / 31
    int level[SUBS];            // scale of sub-block s: d * (2 * level + 1) / 2, give or take the type's constants
    int code[SUBS][GROUPS];     // codebook entries
    uint32_t signs[SUBS];
    bool stored[SUBS];
};

// Magnitudes, weights and signs of the sub-block that starts at weight `first`.
template <class Type>
TERAZI_INLINE void prepare(SubBlock<Type>& sub, const Batch& batch, const F* x, int first, F sigma2) {
    for (int i = 0; i < sub.SIZE; ++i) sub.x[i] = x[first + i];
    if (batch.importance[0]) {
        const float* at[W];
        for (int k = 0; k < W; ++k) at[k] = batch.importance[k] + first;
        load_transposed(sub.weight, at, sub.SIZE);
        for (int i = 0; i < sub.SIZE; ++i) sub.weight[i] *= sqrt(sigma2 + sub.x[i] * sub.x[i]);
    } else {
        for (int i = 0; i < sub.SIZE; ++i) sub.weight[i] = Type::default_weight(sub.x[i], sigma2);
    }
    split_signs(sub);
}

// Encodes one super-block per lane.
template <class Type>
void encode_batch(const Neighbours& grid, const Batch& batch) {
    constexpr int SUBS = Encoded<Type>::SUBS, GROUPS = Encoded<Type>::GROUPS;
    F x[SUPER_BLOCK], sum{}, scales[SUBS], max_scale{};
    load_transposed(x, batch.x, SUPER_BLOCK);
    for (int i = 0; i < SUPER_BLOCK; ++i) sum += x[i] * x[i];
    const F sigma2 = Type::SPREAD * sum / float(SUPER_BLOCK);

    Encoded<Type> result[W];
    SubBlock<Type> sub;
    for (int s = 0; s < SUBS; ++s) {
        prepare(sub, batch, x, s * sub.SIZE, sigma2);
        F top = sub.x[0];
        for (int i = 1; i < sub.SIZE; ++i) top = max(top, sub.x[i]);
        sub.stored = Type::large_enough(top);
        if (any(sub.stored)) Type::search(grid, sub, top);
        scales[s] = select(sub.stored, sub.scale, F{});
        max_scale = max(max_scale, scales[s]);
        const I stored = select(sub.stored, splat(1), I{});
        for (int k = 0; k < W; ++k) {
            result[k].stored[s] = stored[k];
            result[k].signs[s] = stored[k] ? uint32_t(sub.signs[k]) : 0;
            for (int g = 0; g < GROUPS; ++g)
                result[k].code[s][g] = stored[k] ? grid.codes[size_t(sub.keys[g][k])] : 0;
        }
    }
    const F d = max_scale / 31.f, inverse = 1.f / d;
    for (int s = 0; s < SUBS; ++s) {
        const I level = clamp(nearest_int(0.5f * (inverse * scales[s] - 1.f)), 0, 15);
        for (int k = 0; k < W; ++k) result[k].level[s] = level[k];
    }
    for (int k = 0; k < W; ++k) {
        result[k].max_scale = max_scale[k];
        result[k].d = d[k];
        Type::pack(batch.out[k], result[k]);
    }
}

// Encodes all rows; Type::pack lays out one super-block.
template <class Type>
void encode_rows(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float* importance) {
    const Neighbours& grid = codebook_neighbours(Type::BOOK);
    for_batches<1>(x, out, rows, columns, importance, SUPER_BLOCK, Type::BLOCK_BYTES,
                [&](const Batch* batch) { encode_batch<Type>(grid, *batch); });
}

}  // namespace terazi::TERAZI_ISA
