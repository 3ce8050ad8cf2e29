// Rounding weights in groups that share a scale and a zero point: what is asked, and the kernel's type.
#pragma once
#include <cstdint>

namespace terazi {

struct GroupRounding {
    int group_size;  // a multiple of 16
    int bits;        // at most 8
    bool symmetric;  // the zero point is the middle code
    bool half_quadratic;  // zero points are any real numbers, found for the least sum of |error|^(3/4)
    const float* importance;  // [columns], weighs squared errors in the choice of scales; or null
    // [columns, columns] or null: entry [j, i] is what the error of column i, before j, adds to column j before that is
    // rounded (GPTQ).
    const float* feedback;
};

// Rounds `rows` finite rows; codes [rows, columns], scales and zeros [rows, columns / group_size].
using RoundGroups = void(const GroupRounding& how, const float* x, int64_t rows, int64_t columns, uint8_t* codes,
                         float* scales, float* zeros);

#define TERAZI_DECLARE_GROUPS(set) \
    namespace set {                \
    RoundGroups round_groups;      \
    }
TERAZI_DECLARE_GROUPS(baseline)
TERAZI_DECLARE_GROUPS(avx2)
TERAZI_DECLARE_GROUPS(avx512)
#undef TERAZI_DECLARE_GROUPS

}  // namespace terazi
