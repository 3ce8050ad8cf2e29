// Weights in groups along a row that share a scale and a zero point (ONNX's MatMulNBits): value = (code - zero) * scale.
// Lanes are rows, so every group is summed in column order whatever the instruction set.
#include "groups.hpp"

#include "lanes.hpp"

namespace terazi::TERAZI_ISA {
namespace {

class Lanes {  // a std::vector forgets how its elements are aligned
    F* const values;

public:
    explicit Lanes(int64_t count) : values(new F[size_t(count)]) {}
    ~Lanes() { delete[] values; }
    Lanes(const Lanes&) = delete;
    Lanes& operator=(const Lanes&) = delete;
    F& operator[](int64_t i) { return values[i]; }
    F* data() { return values; }
};

constexpr float TINY = 1e-12f;

struct Grid {
    F scale, inverse, zero;
    float top;

    TERAZI_INLINE Grid(F wanted, F zero_point, float top) : zero(zero_point), top(top) {
        scale = select(less(abs(wanted), splat(TINY)), splat(TINY), wanted);
        inverse = 1.f / scale;
    }
    // The nearest code; clamped first, as rounding is right for small numbers only.
    TERAZI_INLINE F code(F value) const {
        const F steps = min(max(value * inverse + zero, splat(-1024.f)), splat(1024.f));
        return min(max(nearest_float(steps), splat(0.f)), splat(top));
    }
};

// Rounds a group with several scales, refits each by least squares to the codes it gave, and keeps the one that leaves
// the least weighted squared error (what llama.cpp's make_qx_quants does).
class Search {
    const F* group;
    const float* importance;  // null: all alike
    int size;
    float top;
    F best_gain = splat(-1.f);

public:
    F scale = splat(TINY), zero = splat(0.f);

    Search(const F* group, const float* importance, const GroupRounding& how)
        : group(group), importance(importance), size(how.group_size), top(float((1 << how.bits) - 1)) {
        how.symmetric ? symmetric() : asymmetric();
    }

private:
    // The error with the fitted scale is the weighted square of the group less (sum w x l)^2 / sum w l^2.
    TERAZI_INLINE void attempt(F wanted, F zero_point) {
        const Grid grid(wanted, zero_point, top);
        F product{}, square{};
        for (int i = 0; i < size; ++i) {
            const F level = grid.code(group[i]) - zero_point;
            const F weighted = importance ? level * importance[i] : level;
            product += weighted * group[i];
            square += weighted * level;
        }
        const Mask fits = greater(square, splat(0.f));
        const F fitted = select(fits, product / max(square, splat(1e-30f)), grid.scale);
        const F gain = select(fits, product * fitted, splat(0.f));
        const Mask better = greater(gain, best_gain);
        best_gain = select(better, gain, best_gain);
        scale = select(better, select(equal(fitted, splat(0.f)), grid.scale, fitted), scale);
        zero = select(better, zero_point, zero);
    }
    void symmetric() {
        const float middle = (top + 1) / 2;
        F largest = group[0];
        for (int i = 1; i < size; ++i) largest = select(less(abs(largest), abs(group[i])), group[i], largest);
        for (int step = -9; step <= 9; ++step) attempt(largest / -(middle + 0.1f * float(step)), splat(middle));
    }
    void asymmetric() {
        F low{}, high{};
        for (int i = 0; i < size; ++i) {
            low = min(low, group[i]);
            high = max(high, group[i]);
        }
        const F step = max((high - low) / top, splat(TINY));
        const F zero_point = min(max(nearest_float(min(-low / step, splat(1024.f))), splat(0.f)), splat(top));
        for (int trial = 0; trial < 13; ++trial) attempt(step * (0.7f + 0.025f * float(trial)), zero_point);
    }
};

// Half-quadratic quantization (Badri and Shaji, 2023): the zero point, any real number, that leaves the least sum of
// |error|^p with p = 3/4, which outliers hardly move. Errors are split into a sparse part, found by shrinking, and the
// rest, whose mean moves the zero point. Here errors are in steps, and several scales are tried from the widest down.
class HalfQuadratic {
    const F* group;
    int size;
    float top;

public:
    F scale = splat(TINY), zero = splat(0.f);

    HalfQuadratic(const F* group, const GroupRounding& how)
        : group(group), size(how.group_size), top(float((1 << how.bits) - 1)) {
        F low = group[0], high = group[0], best = splat(__builtin_inff());
        for (int i = 1; i < size; ++i) {
            low = min(low, group[i]);
            high = max(high, group[i]);
        }
        const F middle = (low + high) * 0.5f, widest = (high - low) / top;
        const F narrowest = max(max(abs(low), abs(high)) * (2 / LARGE), splat(TINY));
        for (int trial = 0; trial < TRIALS; ++trial) {
            const F step = max(widest * (1.f - 0.05f * float(trial)), narrowest);
            const F inverse = 1.f / step;
            const F start = 0.5f * top - middle * inverse;
            const F found = optimize(inverse, start);
            const F left = cost(inverse, found) * power(step);
            const Mask better = less(left, best);
            best = select(better, left, best);
            scale = select(better, step, scale);
            zero = select(better, found, zero);
        }
    }

private:
    static constexpr int TRIALS = 9, ITERATIONS = 12;
    static constexpr float LARGE = 524288.f;  // the most steps from zero, for which floats are fine enough
    static constexpr float BETA = 10.f, GROWTH = 1.01f;

    TERAZI_INLINE static F power(F value) { return sqrt(value) * sqrt(sqrt(value)); }  // ^ 3/4
    TERAZI_INLINE F code(F value) const {
        return min(max(nearest_float(min(max(value, splat(-1024.f)), splat(1024.f))), splat(0.f)), splat(top));
    }
    F optimize(F inverse, F zero_point) const {
        float beta = BETA;
        for (int round = 0; round < ITERATIONS; ++round, beta *= GROWTH) {
            F sum{};
            for (int i = 0; i < size; ++i) {
                const F value = group[i] * inverse, level = code(value + zero_point);
                const F error = value - (level - zero_point), magnitude = abs(error);
                // |e|^(p - 1) = 1 / sqrt(sqrt |e|); with an error of zero it is infinite, and nothing is left.
                const F kept = max(magnitude - 1.f / (beta * sqrt(sqrt(magnitude))), splat(0.f));
                const F sparse = select(less(error, splat(0.f)), -kept, kept);
                sum += level - (value - sparse);
            }
            zero_point = sum / float(size);
        }
        return zero_point;
    }
    F cost(F inverse, F zero_point) const {
        F sum{};
        for (int i = 0; i < size; ++i) {
            const F value = group[i] * inverse;
            sum += power(abs(value - (code(value + zero_point) - zero_point)));
        }
        return sum;
    }
};

// What the errors of columns [from, to) add to each of the columns [first, first + count): COUNT at a time, so that an
// error is loaded once for all of them.
template <int COUNT>
TERAZI_INLINE void add_errors(F* target, const F* error, const float* feedback, int64_t columns, int64_t first,
                              int64_t to) {
    F sum[COUNT] = {};
    const float* row = feedback + first * columns;
    for (int64_t k = 0; k < to; ++k)
        for (int j = 0; j < COUNT; ++j) sum[j] += error[k] * row[j * columns + k];
    for (int j = 0; j < COUNT; ++j) target[j] += sum[j];
}

// Rounds W rows; lanes past the last row repeat it.
class Rows {
    const GroupRounding& how;
    const int64_t columns, groups;
    Lanes error, weight, target;

public:
    Rows(const GroupRounding& how, int64_t columns)
        : how(how), columns(columns), groups(columns / how.group_size), error(how.feedback ? columns : 0),
          weight(how.group_size), target(how.group_size) {}

    void round(const float* const* x, uint8_t* const* codes, float* const* scales, float* const* zeros) {
        for (int64_t g = 0; g < groups; ++g) {
            const float* from[W];
            for (int k = 0; k < W; ++k) from[k] = x[k] + g * how.group_size;
            load_transposed(weight.data(), from, how.group_size);
            memcpy(target.data(), weight.data(), size_t(how.group_size) * sizeof(F));
            const int64_t first = g * how.group_size;
            if (how.feedback)
                for (int j = 0; j < how.group_size; j += 8)
                    add_errors<8>(&target[j], error.data(), how.feedback, columns, first + j, first);
            F scale, zero;
            if (how.half_quadratic) {
                const HalfQuadratic found(target.data(), how);
                scale = found.scale, zero = found.zero;
            } else {
                const Search found(target.data(), how.importance ? how.importance + first : nullptr, how);
                scale = found.scale, zero = found.zero;
            }
            round_group(Grid(scale, zero, float((1 << how.bits) - 1)), first, codes);
            for (int k = 0; k < W; ++k) {
                scales[k][g] = scale[k];
                zeros[k][g] = zero[k];
            }
        }
    }

private:
    void round_group(const Grid& grid, int64_t first, uint8_t* const* codes) {
        for (int j = 0; j < how.group_size; ++j) {
            F value = target[j];
            if (how.feedback) {
                const float* row = how.feedback + (first + j) * columns + first;
                for (int i = 0; i < j; ++i) value += error[first + i] * row[i];
            }
            const F code = grid.code(value);
            if (how.feedback) error[first + j] = weight[j] - (code - grid.zero) * grid.scale;
            const I whole = truncate(code);
            for (int k = 0; k < W; ++k) codes[k][first + j] = uint8_t(whole[k]);
        }
    }
};

}  // namespace

void round_groups(const GroupRounding& how, const float* x, int64_t rows, int64_t columns, uint8_t* codes,
                  float* scales, float* zeros) {
    const int64_t groups = columns / how.group_size;
    Rows batch(how, columns);
    for (int64_t first = 0; first < rows; first += W) {
        const float* from[W];
        uint8_t* to[W];
        float *scale[W], *zero[W];
        for (int k = 0; k < W; ++k) {
            const int64_t row = first + k < rows ? first + k : rows - 1;
            from[k] = x + row * columns;
            to[k] = codes + row * columns;
            scale[k] = scales + row * groups;
            zero[k] = zeros + row * groups;
        }
        batch.round(from, to, scale, zero);
    }
}

}  // namespace terazi::TERAZI_ISA
