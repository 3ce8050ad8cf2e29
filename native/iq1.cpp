// IQ1_S, IQ1_M: -1, 0 or 1, all shifted by an eighth up or down, in groups of 8 that are points of a codebook.
//
// Lanes are super-blocks. With three levels the best fit of a block, codebook aside, splits its sorted weights at two
// places: all pairs of places are tried. Then groups that are no point of the codebook move to the nearest one.
#include <cfloat>

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

// Sums of w * x * q and w * q * q for a split into three levels are compared by the squared first over the second.
TERAZI_INLINE Mask improves(const Split& split, F xq, F qq) {
    return greater(qq, F{}) & greater(xq * xq, split.best * qq);
}
TERAZI_INLINE void take(Split& split, Mask better, F xq, F qq, int first, int second, int shifts) {
    split.scale = select(better, xq / qq, split.scale);
    split.best = select(better, split.scale * xq, split.best);
    split.first = select(better, splat(first), split.first);
    split.second = select(better, splat(second), split.second);
    split.shifts = select(better, splat(shifts), split.shifts);
}
TERAZI_INLINE Split no_split() { return {F{}, splat(-FLT_MAX), splat(-1), splat(-1), I{}}; }

// IQ1_S: one shift for the whole block.
TERAZI_INLINE Split best_split(const Sorted<32>& sorted) {
    constexpr int SIZE = 32;
    constexpr float UP[3] = {-1 + SHIFT, SHIFT, 1 + SHIFT}, DOWN[3] = {-1 - SHIFT, -SHIFT, 1 - SHIFT};
    F x[SIZE + 1], w[SIZE + 1];
    x[0] = w[0] = F{};
    for (int i = 0; i < SIZE; ++i) {
        x[i + 1] = x[i] + sorted.weight[i] * sorted.x[i];
        w[i + 1] = w[i] + sorted.weight[i];
    }
    // What the third level contributes, by where it starts.
    F x_up[SIZE + 1], x_down[SIZE + 1], w_up[SIZE + 1], w_down[SIZE + 1];
    for (int i = 0; i <= SIZE; ++i) {
        x_up[i] = (x[SIZE] - x[i]) * UP[2];
        x_down[i] = (x[SIZE] - x[i]) * DOWN[2];
        w_up[i] = (w[SIZE] - w[i]) * UP[2] * UP[2];
        w_down[i] = (w[SIZE] - w[i]) * DOWN[2] * DOWN[2];
    }
    Split split = no_split();
    for (int first = 0; first <= SIZE; ++first) {
        const F x0_up = x[first] * UP[0], x0_down = x[first] * DOWN[0];
        const F w0_up = w[first] * UP[0] * UP[0], w0_down = w[first] * DOWN[0] * DOWN[0];
        for (int second = first; second <= SIZE; ++second) {
            const F x1 = (x[second] - x[first]) * SHIFT, w1 = (w[second] - w[first]) * SHIFT * SHIFT;
            const F xq_up = x0_up + x1 + x_up[second], qq_up = w0_up + w1 + w_up[second];
            const F xq_down = x0_down - x1 + x_down[second], qq_down = w0_down + w1 + w_down[second];
            Mask better = improves(split, xq_up, qq_up);
            if (!any(better | improves(split, xq_down, qq_down))) continue;
            take(split, better, xq_up, qq_up, first, second, 0);
            take(split, improves(split, xq_down, qq_down), xq_down, qq_down, first, second, 3);
        }
    }
    return split;
}

// IQ1_M: each half of the block has its own shift, so sums are kept by half. The levels being one apart, the sum of
// x * w * q is the total times the highest level, less the sums up to each place.
TERAZI_INLINE Split best_split(const Sorted<16>& sorted) {
    constexpr int SIZE = 16;
    constexpr float UP[3] = {-1 + SHIFT, SHIFT, 1 + SHIFT}, DOWN[3] = {-1 - SHIFT, -SHIFT, 1 - SHIFT};
    constexpr float UP_1 = UP[0] * UP[0] - UP[1] * UP[1], UP_2 = UP[1] * UP[1] - UP[2] * UP[2];
    constexpr float DOWN_1 = DOWN[0] * DOWN[0] - DOWN[1] * DOWN[1], DOWN_2 = DOWN[1] * DOWN[1] - DOWN[2] * DOWN[2];
    F x[2][SIZE + 1], w[2][SIZE + 1];
    x[0][0] = x[1][0] = w[0][0] = w[1][0] = F{};
    for (int i = 0; i < SIZE; ++i) {
        const Mask in_first = less(sorted.index[i], splat(SIZE / 2));
        const F term = sorted.weight[i] * sorted.x[i];
        x[0][i + 1] = select(in_first, x[0][i] + term, x[0][i]);
        x[1][i + 1] = select(in_first, x[1][i], x[1][i] + term);
        w[0][i + 1] = select(in_first, w[0][i] + sorted.weight[i], w[0][i]);
        w[1][i + 1] = select(in_first, w[1][i], w[1][i] + sorted.weight[i]);
    }
    Split split = no_split();
    for (int first = 0; first <= SIZE; ++first) {
        for (int second = first; second <= SIZE; ++second) {
            F x_up[2], x_down[2], w_up[2], w_down[2];
            for (int h = 0; h < 2; ++h) {
                const F both = x[h][first] + x[h][second];
                x_up[h] = x[h][SIZE] * UP[2] - both;
                x_down[h] = x[h][SIZE] * DOWN[2] - both;
                w_up[h] = w[h][SIZE] * UP[2] * UP[2] + w[h][first] * UP_1 + w[h][second] * UP_2;
                w_down[h] = w[h][SIZE] * DOWN[2] * DOWN[2] + w[h][first] * DOWN_1 + w[h][second] * DOWN_2;
            }
            const F xq[4] = {x_up[0] + x_up[1], x_up[0] + x_down[1], x_down[0] + x_up[1], x_down[0] + x_down[1]};
            const F qq[4] = {w_up[0] + w_up[1], w_up[0] + w_down[1], w_down[0] + w_up[1], w_down[0] + w_down[1]};
            Mask better{};
            for (int k = 0; k < 4; ++k) better |= improves(split, xq[k], qq[k]);
            if (!any(better)) continue;
            for (int k = 0; k < 4; ++k) take(split, improves(split, xq[k], qq[k]), xq[k], qq[k], first, second, k);
        }
    }
    return split;
}

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
            block.keys[g][k] =
                nearest<DIMS, BITS>(grid.keys + list.start, list.count, block.scale[k] * (F8{-1, 0, 1, 2, -1, 0, 1, 2} + shift[k]),
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
    Split split = best_split(sorted);
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
TERAZI_INLINE float shift_with(int negative) { return bits<float>(bits<int32_t>(SHIFT) | int32_t(unsigned(negative) << 31)); }

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
