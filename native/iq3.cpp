// IQ3_XXS, IQ3_S: 3-bit magnitudes in groups of 4 that are points of a codebook.
#include "decode.hpp"
#include "grid_search.hpp"
#include "kernels.hpp"

namespace terazi::TERAZI_ISA {
namespace {

struct Iq3 {
    static constexpr int DIMS = 4, BITS = 3, LEVELS = 8, SUB_BLOCK = 32;
    static constexpr float STEP = 0.2f, SPREAD = 2;
    static F default_weight(F x, F) { return x * x; }
};

struct Iq3Xxs : Iq3 {
    static constexpr Codebook BOOK = Codebook::iq3_xxs;
    static constexpr int STEPS = 15, BLOCK_BYTES = 98;
    static constexpr bool EVEN_SIGNS = true;
    static constexpr Refit REFIT = Refit::off_grid;

    static Mask large_enough(F top) { return invert(less(top, splat(1e-8f))); }
    static void search(const Neighbours& grid, SubBlock<Iq3Xxs>& sub, F top) {
        search_scale(grid, sub, top, top / float(2 * LEVELS - 1));
    }
    static void pack(uint8_t* out, const Encoded<Iq3Xxs>& block) {
        memset(out, 0, BLOCK_BYTES);
        if (!block.max_scale) return;
        store_half(out, block.d * 1.0125f);
        for (int s = 0; s < 8; ++s) {
            for (int g = 0; g < 8; ++g) out[2 + 8 * s + g] = uint8_t(block.code[s][g]);
            uint32_t signs = uint32_t(block.level[s]) << 28;
            for (int octet = 0; octet < 4; ++octet) signs |= (block.signs[s] >> 8 * octet & 127) << 7 * octet;
            store(out + 66 + 4 * s, signs);
        }
    }
};

struct Iq3S : Iq3 {
    static constexpr Codebook BOOK = Codebook::iq3_s;
    static constexpr int STEPS = 9, BLOCK_BYTES = 110;
    static constexpr bool EVEN_SIGNS = false;
    static constexpr Refit REFIT = Refit::all_if_any_off_grid;

    static Mask large_enough(F top) { return differ(top, F{}); }
    static void search(const Neighbours& grid, SubBlock<Iq3S>& sub, F top) {
        search_scale(grid, sub, top, top / float(2 * LEVELS - 1));
    }
    // A sub-block of zeros leaves no gap among the low code bytes and the signs: the ones after it move up (but not
    // their high code bits). Decoders do not undo that, so such super-blocks come out wrong; ggml writes them so.
    static void pack(uint8_t* out, const Encoded<Iq3S>& block) {
        memset(out, 0, BLOCK_BYTES);
        uint8_t *codes = out + 2, *high = out + 66, *signs = out + 74, *scales = out + 106;
        for (int s = 0; s < 8; ++s) {
            if (!block.stored[s]) continue;
            for (int g = 0; g < 8; ++g) {
                *codes++ = uint8_t(block.code[s][g]);
                high[s] |= uint8_t(block.code[s][g] >> 8 << g);
            }
            store(signs, block.signs[s]);
            signs += 4;
        }
        if (!block.max_scale) return;
        store_half(out, block.d * 1.033f);
        for (int s = 0; s < 8; ++s) scales[s / 2] |= uint8_t(block.level[s] << 4 * (s % 2));
    }
};

void decode_xxs(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    const uint64_t* grid = codebook_bytes(Codebook::iq3_xxs);
    for (int64_t b = 0; b < rows * columns / SUPER_BLOCK; ++b, q += 98) {
        const float d = load_half(q);
        const uint8_t* codes = q + 2;
        for (int s = 0; s < 8; ++s) {
            const uint32_t signs = load<uint32_t>(q + 66 + 4 * s);
            const float scale = d * (0.5f + float(signs >> 28)) * 0.5f;
            for (int g = 0; g < 4; ++g, codes += 2, out += 8)
                store_signed(out, scale, grid[codes[0]] | grid[codes[1]] << 32, even_signs(signs >> 7 * g));
        }
    }
}

void decode_s(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    const uint64_t* grid = codebook_bytes(Codebook::iq3_s);
    for (int64_t b = 0; b < rows * columns / SUPER_BLOCK; ++b, q += 110) {
        const float d = load_half(q);
        const uint8_t* codes = q + 2;
        for (int s = 0; s < 8; ++s) {
            const float scale = d * float(1 + 2 * (q[106 + s / 2] >> s % 2 * 4 & 15));
            const int high = q[66 + s];
            for (int g = 0; g < 4; ++g, codes += 2, out += 8) {
                const uint64_t first = grid[codes[0] | (high >> 2 * g & 1) << 8];
                const uint64_t second = grid[codes[1] | (high >> (2 * g + 1) & 1) << 8];
                store_signed(out, scale, first | second << 32, q[74 + 4 * s + g]);
            }
        }
    }
}

constexpr Kernel KERNELS[] = {
    {18, 256, 98, encode_rows<Iq3Xxs>, decode_xxs},
    {21, 256, 110, encode_rows<Iq3S>, decode_s},
};

}  // namespace

extern const Family iq3 = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
