// What stored blocks may not hold: scales that are not finite.
#include "validate.hpp"

#include <cstring>

namespace terazi {
namespace {

// Where a type keeps its fp16 scales; -1: none.
struct Layout {
    int type, block_bytes, first_half, second_half;
};

constexpr Layout LAYOUTS[] = {
    {1, 2, 0, -1},    // F16
    {2, 18, 0, -1},   // Q4_0
    {3, 20, 0, 2},    // Q4_1
    {6, 22, 0, -1},   // Q5_0
    {7, 24, 0, 2},    // Q5_1
    {8, 34, 0, -1},   // Q8_0
    {10, 84, 80, 82},    // Q2_K
    {11, 110, 108, -1},  // Q3_K
    {12, 144, 0, 2},     // Q4_K
    {13, 176, 0, 2},     // Q5_K
    {14, 210, 208, -1},  // Q6_K
    {16, 66, 0, -1},   // IQ2_XXS
    {17, 74, 0, -1},   // IQ2_XS
    {18, 98, 0, -1},   // IQ3_XXS
    {19, 50, 0, -1},   // IQ1_S
    {20, 18, 0, -1},   // IQ4_NL
    {21, 110, 0, -1},  // IQ3_S
    {22, 82, 0, -1},   // IQ2_S
    {23, 136, 0, -1},  // IQ4_XS
    {34, 54, 52, -1},  // TQ1_0
    {35, 66, 64, -1},  // TQ2_0
    {41, 18, 0, -1},   // Q1_0
    {42, 18, 0, -1},   // Q2_0
};

template <class T>
T load(const uint8_t* p) {
    T value;
    memcpy(&value, p, sizeof value);
    return value;
}

bool finite_half(uint16_t half) { return (half & 0x7c00) != 0x7c00; }

template <class Valid>
int64_t first_where_not(const uint8_t* blocks, int64_t count, int bytes, Valid valid) {
    for (int64_t i = 0; i < count; ++i)
        if (!valid(blocks + i * bytes)) return i;
    return -1;
}

}  // namespace

int64_t first_invalid_block(int type, const uint8_t* blocks, int64_t count) {
    for (const Layout& layout : LAYOUTS)
        if (layout.type == type)
            return first_where_not(blocks, count, layout.block_bytes, [&](const uint8_t* block) {
                return finite_half(load<uint16_t>(block + layout.first_half)) &&
                       (layout.second_half < 0 || finite_half(load<uint16_t>(block + layout.second_half)));
            });
    const auto finite_float = [](const uint8_t* p) { return (load<uint32_t>(p) & 0x7f800000) != 0x7f800000; };
    switch (type) {
        case 0: return first_where_not(blocks, count, 4, finite_float);     // F32
        case 15: return first_where_not(blocks, count, 292, finite_float);  // Q8_K
        case 28:                                                            // F64
            return first_where_not(blocks, count, 8, [](const uint8_t* p) {
                return (load<uint64_t>(p) >> 52 & 0x7ff) != 0x7ff;
            });
        case 29:  // IQ1_M: fp16 in the high bits of four words
            return first_where_not(blocks, count, 56, [](const uint8_t* p) {
                return finite_half(uint16_t(p[49] >> 4 | (p[51] & 0xf0) | (p[53] & 0xf0) << 4 | (p[55] & 0xf0) << 8));
            });
        case 30:  // BF16
            return first_where_not(blocks, count, 2, [](const uint8_t* p) {
                return (load<uint16_t>(p) & 0x7f80) != 0x7f80;
            });
        case 39:  // MXFP4: exponent 255 is NaN
            return first_where_not(blocks, count, 17, [](const uint8_t* p) { return *p != 255; });
        case 24: case 25: case 26: case 27:  // integers
        case 40: return -1;                  // NVFP4: any scale is valid
    }
    return -2;
}

}  // namespace terazi
