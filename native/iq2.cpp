// IQ2_XXS, IQ2_XS, IQ2_S: 2-bit magnitudes in groups of 8 that are points of a codebook.
#include "decode.hpp"
#include "grid_search.hpp"
#include "kernels.hpp"

namespace terazi::TERAZI_ISA {
namespace {

struct Iq2 {
    static constexpr int DIMS = 8, BITS = 2, LEVELS = 3;
    static constexpr float STEP = 0.1f;
};

struct Iq2Xxs : Iq2 {
    static constexpr Codebook BOOK = Codebook::iq2_xxs;
    static constexpr int SUB_BLOCK = 32, STEPS = 6, BLOCK_BYTES = 66;
    static constexpr bool EVEN_SIGNS = true;
    static constexpr float SPREAD = 1;
    static constexpr Refit REFIT = Refit::all;

    static Mask large_enough(F top) { return invert(less(top, splat(1e-15f))); }
    static F default_weight(F, F) { return F{}; }
    static void search(const Neighbours& grid, SubBlock<Iq2Xxs>& sub, F top) {
        I unused[SUB_BLOCK];
        const F scale = fit_positive<SUB_BLOCK, LEVELS + 1>(unused, sub.x, sub.weight);
        top = scale * float(LEVELS);
        sub.stored = sub.stored & invert(less_equal(top, F{}));
        search_scale(grid, sub, top, scale);
    }
    static void pack(uint8_t* out, const Encoded<Iq2Xxs>& block) {
        store_half(out, block.d);
        for (int s = 0; s < 8; ++s) {
            uint32_t signs = uint32_t(block.level[s]) << 28;
            for (int g = 0; g < 4; ++g) {
                out[2 + 8 * s + g] = block.max_scale ? uint8_t(block.code[s][g]) : 0;
                signs |= (block.signs[s] >> 8 * g & 127) << 7 * g;
            }
            store(out + 6 + 8 * s, block.max_scale ? signs : 0);
        }
    }
};

struct Iq2Xs : Iq2 {
    static constexpr Codebook BOOK = Codebook::iq2_xs;
    static constexpr int SUB_BLOCK = 16, STEPS = 9, BLOCK_BYTES = 74;
    static constexpr bool EVEN_SIGNS = true;
    static constexpr float SPREAD = 1;
    static constexpr Refit REFIT = Refit::off_grid;

    static Mask large_enough(F top) { return invert(less(top, splat(1e-15f))); }
    static F default_weight(F, F) { return F{}; }
    static void search(const Neighbours& grid, SubBlock<Iq2Xs>& sub, F top) {
        search_scale(grid, sub, top, top / float(2 * LEVELS - 1));
    }
    static void pack(uint8_t* out, const Encoded<Iq2Xs>& block) {
        memset(out, 0, BLOCK_BYTES);
        if (!block.max_scale) return;
        store_half(out, block.d);
        for (int s = 0; s < 16; ++s) {
            for (int g = 0; g < 2; ++g)
                store(out + 2 + 4 * s + 2 * g, uint16_t(block.code[s][g] | (block.signs[s] >> 8 * g & 127) << 9));
            out[66 + s / 2] |= uint8_t(block.level[s] << 4 * (s % 2));
        }
    }
};

struct Iq2S : Iq2 {
    static constexpr Codebook BOOK = Codebook::iq2_s;
    static constexpr int SUB_BLOCK = 16, STEPS = 9, BLOCK_BYTES = 82;
    static constexpr bool EVEN_SIGNS = false;
    static constexpr float SPREAD = 2;
    static constexpr Refit REFIT = Refit::off_grid;

    static Mask large_enough(F top) { return invert(less(top, splat(1e-8f))); }
    static F default_weight(F x, F sigma2) { return 0.25f * sigma2 + x * x; }
    static void search(const Neighbours& grid, SubBlock<Iq2S>& sub, F top) {
        search_scale(grid, sub, top, top / float(2 * LEVELS - 1));
    }
    static void pack(uint8_t* out, const Encoded<Iq2S>& block) {
        memset(out, 0, BLOCK_BYTES);
        for (int s = 0; s < 16; ++s)
            for (int g = 0; g < 2; ++g) {
                const int at = 2 * s + g;
                out[2 + at] = uint8_t(block.code[s][g]);
                out[34 + at] = uint8_t(block.signs[s] >> 8 * g);
                out[66 + at / 4] |= uint8_t(block.code[s][g] >> 8 << 2 * (at % 4));
            }
        if (!block.max_scale) return;
        store_half(out, block.d * 0.9875f);
        for (int s = 0; s < 16; ++s) out[74 + s / 2] |= uint8_t(block.level[s] << 4 * (s % 2));
    }
};

void decode_xxs(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    const uint64_t* grid = codebook_bytes(Codebook::iq2_xxs);
    for (int64_t b = 0; b < rows * columns / SUPER_BLOCK; ++b, q += 66) {
        const float d = load_half(q);
        for (int s = 0; s < 8; ++s) {
            const uint8_t* codes = q + 2 + 8 * s;
            const uint32_t signs = load<uint32_t>(codes + 4);
            const float scale = d * (0.5f + float(signs >> 28)) * 0.25f;
            for (int g = 0; g < 4; ++g, out += 8) store_signed(out, scale, grid[codes[g]], even_signs(signs >> 7 * g));
        }
    }
}

void decode_xs(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    const uint64_t* grid = codebook_bytes(Codebook::iq2_xs);
    for (int64_t b = 0; b < rows * columns / SUPER_BLOCK; ++b, q += 74) {
        const float d = load_half(q);
        for (int g = 0; g < 32; ++g, out += 8) {
            const uint16_t code = load<uint16_t>(q + 2 + 2 * g);
            const float scale = d * (0.5f + float(q[66 + g / 4] >> (g & 2) * 2 & 15)) * 0.25f;
            store_signed(out, scale, grid[code & 511], even_signs(code >> 9));
        }
    }
}

void decode_s(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    const uint64_t* grid = codebook_bytes(Codebook::iq2_s);
    for (int64_t b = 0; b < rows * columns / SUPER_BLOCK; ++b, q += 82) {
        const float d = load_half(q);
        for (int g = 0; g < 32; ++g, out += 8) {
            const int code = q[2 + g] | (q[66 + g / 4] >> g % 4 * 2 & 3) << 8;
            const float scale = d * (0.5f + float(q[74 + g / 4] >> (g & 2) * 2 & 15)) * 0.25f;
            store_signed(out, scale, grid[code], q[34 + g]);
        }
    }
}

constexpr Kernel KERNELS[] = {
    {16, 256, 66, encode_rows<Iq2Xxs>, decode_xxs},
    {17, 256, 74, encode_rows<Iq2Xs>, decode_xs},
    {22, 256, 82, encode_rows<Iq2S>, decode_s},
};

}  // namespace

extern const Family iq2 = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
