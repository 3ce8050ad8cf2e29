// Batches of blocks: which block each lane holds, and lanes written back as bytes.
#pragma once
#include "half.hpp"

namespace terazi::TERAZI_ISA {

// W blocks, one per lane; past the last block, lanes repeat it (and write the same bytes again).
struct Batch {
    const float* x[W];
    const float* importance[W];  // of the block's columns; null without importance
    int64_t row[W];
    uint8_t* out[W];
};

// Calls encode(batches) for all blocks of `block_size` weights, across row ends, GROUPS batches at a time.
template <int GROUPS, class Encode>
TERAZI_INLINE void for_batches(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float* importance,
                               int block_size, int block_bytes, Encode encode) {
    const int64_t per_row = columns / block_size, count = rows * per_row;
    for (int64_t first = 0; first < count; first += GROUPS * W) {
        Batch batches[GROUPS];
        for (int k = 0; k < GROUPS * W; ++k) {
            const int64_t block = first + k < count ? first + k : count - 1;
            Batch& batch = batches[k / W];
            batch.x[k % W] = x + block * block_size;
            batch.row[k % W] = block / per_row;
            batch.importance[k % W] = importance ? importance + block % per_row * block_size : nullptr;
            batch.out[k % W] = out + block * block_bytes;
        }
        encode(batches);
    }
}

// Four bytes per lane at `offset` of its block.
TERAZI_INLINE void put_word(const Batch& batch, int offset, I word) {
    for (int k = 0; k < W; ++k) store<int32_t>(batch.out[k] + offset, word[k]);
}
TERAZI_INLINE void put_half(const Batch& batch, int offset, F value) {
    const H half = float_to_half(value);
    for (int k = 0; k < W; ++k) store<uint16_t>(batch.out[k] + offset, half[k]);
}
// Four codes below 256, the first in the lowest byte.
TERAZI_INLINE I pack_bytes(I a, I b, I c, I d) { return a | b << 8 | c << 16 | d << 24; }

// sum(x * x) of each of W rows, in column order. `columns` is a multiple of 16.
TERAZI_INLINE F sum_of_squares(const float* const* rows, int64_t columns) {
    F sum = splat(0.f), part[16];
    for (int64_t i = 0; i < columns; i += 16) {
        const float* from[W];
        for (int k = 0; k < W; ++k) from[k] = rows[k] + i;
        load_transposed(part, from, 16);
        for (int j = 0; j < 16; ++j) sum += part[j] * part[j];
    }
    return sum;
}

}  // namespace terazi::TERAZI_ISA
