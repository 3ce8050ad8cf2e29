// IQ1_S, IQ1_M: -1, 0 or 1, all shifted by an eighth up or down, in groups of 8 that are points of a codebook.
//
// Lanes are super-blocks. With three levels the best fit of a block, codebook aside, splits its sorted weights at two
// places: all pairs of places are tried. Then groups that are no point of the codebook move to the nearest one.
#include <cfloat>
#include <type_traits>

#include "batch.hpp"
#include "decode.hpp"
#include "kernels.hpp"
#include "nearest.hpp"
#include "search.hpp"

namespace terazi::TERAZI_ISA {
namespace {

constexpr int SUPER_BLOCK = 256, DIMS = 8, BITS = 2;
constexpr float SHIFT = 0.125f;

// One block of each lane, in columns and in ascending order; equal weights keep their order, as the reference's
// sort (glibc's qsort, a merge sort) leaves them.
template <int SIZE>
struct Sorted {
    F x[SIZE], weight[SIZE];
    I index[SIZE];

    TERAZI_INLINE void order(int a, int b) {
        const Mask swap = less(x[b], x[a]) | (equal(x[a], x[b]) & less(index[b], index[a]));
        const F xa = x[a], wa = weight[a];
        const I ia = index[a];
        x[a] = select(swap, x[b], xa), x[b] = select(swap, xa, x[b]);
        weight[a] = select(swap, weight[b], wa), weight[b] = select(swap, wa, weight[b]);
        index[a] = select(swap, index[b], ia), index[b] = select(swap, ia, index[b]);
    }
    // Batcher's odd-even merge sort.
    TERAZI_INLINE Sorted(const F* from, const F* weights) {
        for (int i = 0; i < SIZE; ++i) x[i] = from[i], weight[i] = weights[i], index[i] = splat(i);
        for (int run = 1; run < SIZE; run *= 2)
            for (int step = run; step; step /= 2)
                for (int first = step % run; first + step < SIZE; first += 2 * step)
                    for (int i = first; i < first + step && i + step < SIZE; ++i)
                        if (i / (2 * run) == (i + step) / (2 * run)) order(i, i + step);
    }
    // Bit set in lanes where weight i of the unsorted block stands at `place` or later; x is that weight.
    TERAZI_INLINE Mask from_place(const I& place, F weight_i, int i) const {
        F bound;
        I bound_index;
        for (int k = 0; k < W; ++k) {
            const int at = place[k];
            bound[k] = at < SIZE ? x[at][k] : __builtin_inff();
            bound_index[k] = at < SIZE ? index[at][k] : SIZE;
        }
        return less(bound, weight_i) | (equal(bound, weight_i) & less(bound_index, splat(i + 1)));
    }
};

// Where to split, and what follows from it.
struct Split {
    F scale, best;
    I first, second;  // places in the sorted block: -1 before the first, 0 up to the second, 1 from there
    I shifts;         // bit 0: the (second) half is shifted down; bit 1: the first half is
};

constexpr float UP[3] = {-1 + SHIFT, SHIFT, 1 + SHIFT}, DOWN[3] = {-1 - SHIFT, -SHIFT, 1 - SHIFT};

// Sums of w * x * q and of w * q * q for all splits of a block: `CHOICES` of them for each two places.
// IQ1_S has one shift for the whole block.
struct WholeSums {
    static constexpr int SIZE = 32, CHOICES = 2, SHIFTS[CHOICES] = {0, 3};
    F x[SIZE + 1], w[SIZE + 1];                // of w * x and w before a place
    F x_up[2][SIZE + 1], x_down[2][SIZE + 1];  // what the first and third level add, by place
    F w_up[2][SIZE + 1], w_down[2][SIZE + 1];

    TERAZI_INLINE WholeSums(const Sorted<SIZE>& sorted) {
        x[0] = w[0] = F{};
        for (int i = 0; i < SIZE; ++i) {
            x[i + 1] = x[i] + sorted.weight[i] * sorted.x[i];
            w[i + 1] = w[i] + sorted.weight[i];
        }
        for (int i = 0; i <= SIZE; ++i) {
            x_up[0][i] = x[i] * UP[0], x_up[1][i] = (x[SIZE] - x[i]) * UP[2];
            x_down[0][i] = x[i] * DOWN[0], x_down[1][i] = (x[SIZE] - x[i]) * DOWN[2];
            w_up[0][i] = w[i] * UP[0] * UP[0], w_up[1][i] = (w[SIZE] - w[i]) * UP[2] * UP[2];
            w_down[0][i] = w[i] * DOWN[0] * DOWN[0], w_down[1][i] = (w[SIZE] - w[i]) * DOWN[2] * DOWN[2];
        }
    }
    TERAZI_INLINE F total_weight() const { return w[SIZE]; }
    TERAZI_INLINE void at(int first, int second, F* xq, F* qq) const {
        const F x1 = (x[second] - x[first]) * SHIFT, w1 = (w[second] - w[first]) * SHIFT * SHIFT;
        xq[0] = x_up[0][first] + x1 + x_up[1][second];
        qq[0] = w_up[0][first] + w1 + w_up[1][second];
        xq[1] = x_down[0][first] - x1 + x_down[1][second];
        qq[1] = w_down[0][first] + w1 + w_down[1][second];
    }
};

// In IQ1_M each half of the block has its own shift, so sums are kept by half. The levels being one apart, the sum of
// x * w * q is the total times the highest level, less the sums up to each place.
struct HalfSums {
    static constexpr int SIZE = 16, CHOICES = 4, SHIFTS[CHOICES] = {0, 1, 2, 3};
    F x[2][SIZE + 1], w[2][SIZE + 1];

    TERAZI_INLINE HalfSums(const Sorted<SIZE>& sorted) {
        x[0][0] = x[1][0] = w[0][0] = w[1][0] = F{};
        for (int i = 0; i < SIZE; ++i) {
            const Mask in_first = less(sorted.index[i], splat(SIZE / 2));
            const F term = sorted.weight[i] * sorted.x[i];
            x[0][i + 1] = select(in_first, x[0][i] + term, x[0][i]);
            x[1][i + 1] = select(in_first, x[1][i], x[1][i] + term);
            w[0][i + 1] = select(in_first, w[0][i] + sorted.weight[i], w[0][i]);
            w[1][i + 1] = select(in_first, w[1][i], w[1][i] + sorted.weight[i]);
        }
    }
    TERAZI_INLINE F total_weight() const { return w[0][SIZE] + w[1][SIZE]; }
    TERAZI_INLINE void at(int first, int second, F* xq, F* qq) const {
        constexpr float UP_1 = UP[0] * UP[0] - UP[1] * UP[1], UP_2 = UP[1] * UP[1] - UP[2] * UP[2];
        constexpr float DOWN_1 = DOWN[0] * DOWN[0] - DOWN[1] * DOWN[1], DOWN_2 = DOWN[1] * DOWN[1] - DOWN[2] * DOWN[2];
        F x_up[2], x_down[2], w_up[2], w_down[2];
        for (int h = 0; h < 2; ++h) {
            const F both = x[h][first] + x[h][second];
            x_up[h] = x[h][SIZE] * UP[2] - both;
            x_down[h] = x[h][SIZE] * DOWN[2] - both;
            w_up[h] = w[h][SIZE] * UP[2] * UP[2] + w[h][first] * UP_1 + w[h][second] * UP_2;
            w_down[h] = w[h][SIZE] * DOWN[2] * DOWN[2] + w[h][first] * DOWN_1 + w[h][second] * DOWN_2;
        }
        xq[0] = x_up[0] + x_up[1], qq[0] = w_up[0] + w_up[1];
        xq[1] = x_up[0] + x_down[1], qq[1] = w_up[0] + w_down[1];
        xq[2] = x_down[0] + x_up[1], qq[2] = w_down[0] + w_up[1];
        xq[3] = x_down[0] + x_down[1], qq[3] = w_down[0] + w_down[1];
    }
};

// A score, xq^2 / qq, that the best split surely exceeds: 1 - 2^-7 of the best at every few places. What the reference
// takes on its way to scores 2^-8 below the best has no influence on where it ends: among a thousand candidates there
// is a gap of many roundings between there and the top, and the first score beyond the gap is taken whatever came
// before. -FLT_MAX, as the reference starts, where numbers are so small or large that rounding is not relative.
template <class Sums>
TERAZI_INLINE F certain_score(const Sums& sums) {
    constexpr int STEP = Sums::SIZE / 8;
    F top{};
    for (int first = 0; first <= Sums::SIZE; first += STEP)
        for (int second = first; second <= Sums::SIZE; second += STEP) {
            F xq[Sums::CHOICES], qq[Sums::CHOICES];
            sums.at(first, second, xq, qq);
            for (int k = 0; k < Sums::CHOICES; ++k)
                top = select(greater(qq[k], F{}), max(xq[k] * xq[k] / qq[k], top), top);
        }
    const auto plain = [](F v) { return greater(v, splat(0x1p-50f)) & less(v, splat(0x1p50f)); };
    return select(plain(top) & plain(sums.total_weight()), top * (1 - 0x1p-7f), splat(-FLT_MAX));
}

template <class Sums>
TERAZI_INLINE Split best_split(const Sums& sums) {
    Split split = {F{}, certain_score(sums), splat(-1), splat(-1), I{}};
    const auto improves = [&](F xq, F qq) { return greater(qq, F{}) & greater(xq * xq, split.best * qq); };
    for (int first = 0; first <= Sums::SIZE; ++first)
        for (int second = first; second <= Sums::SIZE; ++second) {
            F xq[Sums::CHOICES], qq[Sums::CHOICES];
            sums.at(first, second, xq, qq);
            Mask better = improves(xq[0], qq[0]);
            for (int k = 1; k < Sums::CHOICES; ++k) better |= improves(xq[k], qq[k]);
            if (!any(better)) [[likely]] continue;
            for (int k = 0; k < Sums::CHOICES; ++k) {
                better = improves(xq[k], qq[k]);
                split.scale = select(better, xq[k] / qq[k], split.scale);
                split.best = select(better, split.scale * xq[k], split.best);
                split.first = select(better, splat(first), split.first);
                split.second = select(better, splat(second), split.second);
                split.shifts = select(better, splat(Sums::SHIFTS[k]), split.shifts);
            }
        }
    return split;
}

template <int SIZE>
using Sums = std::conditional_t<SIZE == 32, WholeSums, HalfSums>;

// A block of each lane once encoded.
template <int SIZE>
struct Block {
    static constexpr int GROUPS = SIZE / DIMS;
    I keys[GROUPS];  // 0 where nothing is stored
    F scale;         // 0 there
    I shifts;        // as in Split; 0 there
};

// +-SHIFT of the group that starts at weight i.
template <int SIZE>
TERAZI_INLINE F shift_of(I shifts, int i) {
    const int bit = i < SIZE / 2 ? 2 : 1;
    return select(equal(shifts & bit, I{}), splat(SHIFT), splat(-SHIFT));
}
TERAZI_INLINE Table unshifted() {
    return make_table(BITS, [](int digit) { return float(digit - 1); });
}

// Moves groups that are no point of the codebook to the nearest one; gives the bits of lanes that had such groups.
template <int SIZE>
TERAZI_INLINE Mask snap_to_grid(const Neighbours& grid, const Batch& batch, int first, const F* weight,
                                Block<SIZE>& block, Mask live) {
    float weights[W][SIZE];
    for (int i = 0; i < SIZE; i += W) {
        F square[W];
        for (int k = 0; k < W; ++k) square[k] = weight[i + k];
        transpose(square);
        for (int k = 0; k < W; ++k) store(weights[k] + i, square[k]);
    }
    const I alive = select(live, splat(1), I{});
    I off_grid{};
    for (int g = 0; g < block.GROUPS; ++g) {
        const F shift = shift_of<SIZE>(block.shifts, g * DIMS);
        for (int k = 0; k < W; ++k) {
            const Neighbours::List list = grid.lists[block.keys[g][k]];
            if (!list.count || !alive[k]) continue;
            off_grid[k] = 1;
            const F8 levels = F8{-1, 0, 1, 2, -1, 0, 1, 2} + shift[k];
            block.keys[g][k] = nearest<DIMS, BITS>(grid.keys + list.start, list.count, block.scale[k] * levels,
                                                   batch.x[k] + first + g * DIMS, weights[k] + g * DIMS);
        }
    }
    return invert(equal(off_grid, I{}));
}

// Encodes the block that starts at weight `first`.
template <int SIZE>
TERAZI_INLINE Block<SIZE> encode_block(const Neighbours& grid, const Batch& batch, int first, const F* x,
                                       const F* weight, float smallest) {
    F peak = abs(x[0]);
    for (int i = 1; i < SIZE; ++i) peak = max(peak, abs(x[i]));
    const Sorted<SIZE> sorted(x, weight);
    const Split split = best_split(Sums<SIZE>(sorted));
    const Mask live = invert(less(peak, splat(smallest))) & invert(less(split.first, I{}));

    // A negative scale stands for the mirrored levels.
    const Mask mirrored = less(split.scale, F{});
    Block<SIZE> block;
    block.scale = select(live, abs(split.scale), F{});
    block.shifts = select(live, split.shifts ^ select(mirrored, splat(3), I{}), I{});
    for (int g = 0; g < block.GROUPS; ++g) {
        I key{};
        for (int i = 0; i < DIMS; ++i) {
            const F value = x[g * DIMS + i];
            I digit = select(sorted.from_place(split.first, value, g * DIMS + i), splat(1), I{}) +
                      select(sorted.from_place(split.second, value, g * DIMS + i), splat(1), I{});
            digit = select(mirrored, 2 - digit, digit);
            key |= digit << BITS * i;
        }
        block.keys[g] = select(live, key, I{});
    }
    const Mask moved = snap_to_grid(grid, batch, first, weight, block, live);
    if (!any(moved)) return block;
    F xq{}, qq{};
    for (int g = 0; g < block.GROUPS; ++g) {
        const F shift = shift_of<SIZE>(block.shifts, g * DIMS);
        I key = block.keys[g];
        for (int i = 0; i < DIMS; ++i, key >>= BITS) {
            const F q = look_up(unshifted(), key) + shift;
            xq += weight[g * DIMS + i] * q * x[g * DIMS + i];
            qq += weight[g * DIMS + i] * q * q;
        }
    }
    block.scale = select(moved & greater(xq, F{}) & greater(qq, F{}), xq / qq, block.scale);
    return block;
}

// The weights of a super-block and of their squared errors.
struct SuperBlock {
    F x[SUPER_BLOCK], weight[SUPER_BLOCK];
    TERAZI_INLINE explicit SuperBlock(const Batch& batch) {
        F sum{};
        load_transposed(x, batch.x, SUPER_BLOCK);
        for (int i = 0; i < SUPER_BLOCK; ++i) sum += x[i] * x[i];
        const F sigma2 = 2.f * sum / float(SUPER_BLOCK);
        if (batch.importance[0]) {
            load_transposed(weight, batch.importance, SUPER_BLOCK);
            for (int i = 0; i < SUPER_BLOCK; ++i) weight[i] *= sqrt(sigma2 + x[i] * x[i]);
        } else {
            for (int i = 0; i < SUPER_BLOCK; ++i) weight[i] = x[i] * x[i];
        }
    }
};

TERAZI_INLINE I level_of(F inverse, F scale) { return clamp(nearest_int(0.5f * (inverse * scale - 1.f)), 0, 7); }

// fp16 d; 8 low bits of the codes; for each 32 weights 3 high bits of four codes, 3 of the scale, 1 of the shift.
void encode_s(const float* source, uint8_t* out, int64_t rows, int64_t columns, const float* importance) {
    const Neighbours& grid = codebook_neighbours(Codebook::iq1);
    for_batches<1>(source, out, rows, columns, importance, SUPER_BLOCK, 50, [&](const Batch* batches) {
        const Batch& batch = *batches;
        constexpr int SIZE = 32, BLOCKS = SUPER_BLOCK / SIZE;
        const SuperBlock super(batch);
        Block<SIZE> blocks[BLOCKS];
        F largest{};
        for (int b = 0; b < BLOCKS; ++b) {
            blocks[b] = encode_block<SIZE>(grid, batch, b * SIZE, super.x + b * SIZE, super.weight + b * SIZE, 1e-12f);
            largest = max(largest, blocks[b].scale);
        }
        const Mask any_scale = differ(largest, F{});
        const F d = largest / 15.f, inverse = 1.f / d;
        put_half(batch, 0, select(any_scale, d * 1.125f, F{}));
        for (int b = 0; b < BLOCKS; ++b) {
            const I level = level_of(inverse, blocks[b].scale) | (blocks[b].shifts & 1) << 3;
            const I scale_bits = select(any_scale, level << 12, I{});
            for (int k = 0; k < W; ++k) {
                int high = scale_bits[k];
                for (int g = 0; g < 4; ++g) {
                    const int code = grid.codes[blocks[b].keys[g][k]];
                    batch.out[k][2 + 4 * b + g] = uint8_t(code);
                    high |= code >> 8 << 3 * g;
                }
                store(batch.out[k] + 34 + 2 * b, uint16_t(high));
            }
        }
    });
}

// The scale that fits all blocks of a super-block best once their levels are chosen.
TERAZI_INLINE F refit(const SuperBlock& super, const Block<16>* blocks, const I* levels, F d) {
    constexpr int SIZE = 16;
    F xq{}, qq{};
    for (int b = 0; b < SUPER_BLOCK / SIZE; ++b)
        for (int g = 0; g < SIZE / DIMS; ++g) {
            const F shift = shift_of<SIZE>(blocks[b].shifts, g * DIMS), step = to_float(2 * levels[b] + 1);
            I key = blocks[b].keys[g];
            for (int i = b * SIZE + g * DIMS; i < b * SIZE + (g + 1) * DIMS; ++i, key >>= BITS) {
                const F q = (look_up(unshifted(), key) + shift) * step;
                xq += super.weight[i] * q * super.x[i];
                qq += super.weight[i] * q * q;
            }
        }
    return select(greater(qq, F{}), xq / qq, d);
}

// 8 low bits of the codes; for each two codes 3 high bits and 1 of the shift; four words of four 3-bit scales and 4
// bits of the fp16 d.
void encode_m(const float* source, uint8_t* out, int64_t rows, int64_t columns, const float* importance) {
    const Neighbours& grid = codebook_neighbours(Codebook::iq1);
    for_batches<1>(source, out, rows, columns, importance, SUPER_BLOCK, 56, [&](const Batch* batches) {
        const Batch& batch = *batches;
        constexpr int SIZE = 16, BLOCKS = SUPER_BLOCK / SIZE;
        const SuperBlock super(batch);
        Block<SIZE> blocks[BLOCKS];
        F largest{};
        for (int b = 0; b < BLOCKS; ++b) {
            blocks[b] = encode_block<SIZE>(grid, batch, b * SIZE, super.x + b * SIZE, super.weight + b * SIZE, 1e-7f);
            largest = max(largest, blocks[b].scale);
        }
        I levels[BLOCKS];
        const F d = largest / 15.f, inverse = 1.f / d;
        for (int b = 0; b < BLOCKS; ++b) levels[b] = level_of(inverse, blocks[b].scale);
        const H half = float_to_half(refit(super, blocks, levels, d) * 1.1125f);
        for (int k = 0; k < W; ++k) {
            uint16_t scales[4] = {};
            const bool any_scale = largest[k] != 0;
            for (int b = 0; b < BLOCKS; ++b) {
                const int first = grid.codes[blocks[b].keys[0][k]], second = grid.codes[blocks[b].keys[1][k]];
                const int shifts = any_scale ? blocks[b].shifts[k] : 0;
                batch.out[k][2 * b] = uint8_t(first);
                batch.out[k][2 * b + 1] = uint8_t(second);
                batch.out[k][32 + b] = uint8_t(first >> 8 | second >> 8 << 4 | (shifts & 2) << 2 | (shifts & 1) << 7);
                scales[b / 4] |= uint16_t(levels[b][k] << 3 * (b % 4));
            }
            for (int i = 0; i < 4; ++i) scales[i] |= uint16_t((half[k] >> 4 * i & 15) << 12);
            if (!any_scale) memset(scales, 0, sizeof scales);
            memcpy(batch.out[k] + 48, scales, sizeof scales);
        }
    });
}

// SHIFT, negative when the lowest bit is set.
TERAZI_INLINE float shift_with(int negative) { return bits<float>(bits<uint32_t>(SHIFT) | uint32_t(negative) << 31); }

TERAZI_INLINE void store_shifted(float* out, float scale, uint64_t levels, float shift) {
    store(out, scale * (widen_signed(levels) + shift));
}

void decode_s(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    const uint64_t* grid = codebook_bytes(Codebook::iq1);
    for (int64_t b = 0; b < rows * columns / SUPER_BLOCK; ++b, q += 50) {
        const float d = load_half(q);
        for (int s = 0; s < 8; ++s) {
            const uint16_t high = load<uint16_t>(q + 34 + 2 * s);
            const float scale = d * float(2 * (high >> 12 & 7) + 1), shift = shift_with(high >> 15);
            for (int g = 0; g < 4; ++g, out += 8)
                store_shifted(out, scale, grid[q[2 + 4 * s + g] | (high >> 3 * g & 7) << 8], shift);
        }
    }
}

void decode_m(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    const uint64_t* grid = codebook_bytes(Codebook::iq1);
    for (int64_t b = 0; b < rows * columns / SUPER_BLOCK; ++b, q += 56) {
        uint16_t scales[4];
        memcpy(scales, q + 48, sizeof scales);
        const float d = half_to_float(uint16_t(scales[0] >> 12 | (scales[1] >> 8 & 0x00f0) |
                                               (scales[2] >> 4 & 0x0f00) | (scales[3] & 0xf000)));
        for (int s = 0; s < 16; ++s) {
            const float scale = d * float(2 * (scales[s / 4] >> 3 * (s % 4) & 7) + 1);
            for (int g = 0; g < 2; ++g, out += 8) {
                const int high = q[32 + s] >> 4 * g;
                store_shifted(out, scale, grid[q[2 * s + g] | (high & 7) << 8], shift_with(high >> 3));
            }
        }
    }
}

constexpr Kernel KERNELS[] = {
    {19, SUPER_BLOCK, 50, encode_s, decode_s},
    {29, SUPER_BLOCK, 56, encode_m, decode_m},
};

}  // namespace

extern const Family iq1 = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
