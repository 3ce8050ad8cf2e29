// F32, F16 and BF16: one weight at a time, nothing shared. And the check that weights are finite.
#include "half.hpp"
#include "kernels.hpp"

namespace terazi::TERAZI_ISA {
namespace {

void copy_in(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    memcpy(out, x, size_t(rows * columns) * sizeof(float));
}
void copy_out(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    memcpy(out, q, size_t(rows * columns) * sizeof(float));
}

// `convert` for W values at a time; the rest goes through a padded vector.
template <class From, class To, class Convert>
TERAZI_INLINE void map(const void* from, void* to, int64_t count, Convert convert) {
    constexpr size_t IN = sizeof(From), OUT = sizeof(To);
    auto source = static_cast<const uint8_t*>(from);
    auto target = static_cast<uint8_t*>(to);
    int64_t i = 0;
    for (; i + W <= count; i += W, source += IN, target += OUT) {
        prepare_writing(target);
        store(target, convert(load<From>(source)));
    }
    if (i < count) {
        From last{};
        memcpy(&last, source, size_t(count - i) * IN / W);
        const To converted = convert(last);
        memcpy(target, &converted, size_t(count - i) * OUT / W);
    }
}

void to_f16(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    map<F, H>(x, out, rows * columns, [](F v) { return float_to_half(v); });
}
void from_f16(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    map<H, F>(q, out, rows * columns, [](H v) { return half_to_float(v); });
}
void to_bf16(const float* x, uint8_t* out, int64_t rows, int64_t columns, const float*) {
    map<F, H>(x, out, rows * columns, [](F v) { return float_to_bfloat(v); });
}
void from_bf16(const uint8_t* q, float* out, int64_t rows, int64_t columns) {
    map<H, F>(q, out, rows * columns, [](H v) { return bfloat_to_float(v); });
}

constexpr Kernel KERNELS[] = {
    {0, 1, 4, copy_in, copy_out},
    {1, 1, 2, to_f16, from_f16},
    {30, 1, 2, to_bf16, from_bf16},
};

}  // namespace

int64_t first_not_finite(const float* x, int64_t count) {
    constexpr int64_t STRIDE = 16 * W;
    for (int64_t start = 0; start < count; start += STRIDE) {
        const int64_t stop = start + STRIDE < count ? start + STRIDE : count;
        int64_t i = start;
        if (stop - start == STRIDE) {
            I largest[4] = {};  // of the bits without the sign: those of infinity and NaN are the largest
            for (int k = 0; k < 16; ++k) largest[k % 4] = max(largest[k % 4], load<I>(x + start + k * W) & 0x7fffffff);
            const I top = max(max(largest[0], largest[1]), max(largest[2], largest[3]));
            if (!any(less(splat(0x7f7fffff), top))) continue;
        }
        for (; i < stop; ++i)
            if ((bits<uint32_t>(x[i]) & 0x7fffffff) > 0x7f7fffff) return i;
    }
    return -1;
}

extern const Family floats = {KERNELS, sizeof KERNELS / sizeof *KERNELS};

}  // namespace terazi::TERAZI_ISA
