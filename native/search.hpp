// Searches for a block's scale, W blocks at a time, as ggml's reference quantizer does them (`make_qx_quants`,
// `make_qkx2_quants`, `make_qkx3_quants`, `make_qp_quants`): every lane adds its block's terms in the reference's
// order and never fuses a multiplication with an addition, so it decides what the scalar code decides.
//
// `x`, `w`: [n][W], values and their weights, one block per lane.
#pragma once
#include "lanes.hpp"

namespace terazi::TERAZI_ISA {

constexpr float SMALLEST_PEAK = 1e-15f;  // blocks whose largest magnitude is below this are zero

TERAZI_INLINE I clamp(I code, int low, int high) { return max(splat(low), min(splat(high), code)); }
TERAZI_INLINE F clamp(F code, float low, float high) { return max(min(code, splat(high)), splat(low)); }

// x ~ scale * code with -NMAX <= code < NMAX.
struct Symmetric {
    F scale;
    F inverse;  // the codes are nearest(inverse * x), clamped ...
    Mask zero;  // ... except in zero blocks, where the *stored* code (code + NMAX) is 0

    template <int NMAX>
    TERAZI_INLINE static I stored(const Symmetric& fit, F x) {
        return select(fit.zero, splat(0), clamp(nearest_int(fit.inverse * x), -NMAX, NMAX - 1) + NMAX);
    }
};

TERAZI_INLINE F signed_peak(const F* x, int n, F& magnitude) {
    F peak = splat(0.f);
    magnitude = splat(0.f);
    for (int i = 0; i < n; ++i) {
        const F size = abs(x[i]);
        const Mask larger = less(magnitude, size);
        magnitude = select(larger, size, magnitude);
        peak = select(larger, x[i], peak);
    }
    return peak;
}

// Tries 19 scales around -NMAX / peak, each with the least-squares fit for its codes.
template <int N, int NMAX>
TERAZI_INLINE Symmetric fit_symmetric(const F* x, const F* w) {
    Symmetric best;
    F magnitude, wx[N];
    F peak = signed_peak(x, N, magnitude);
    best.zero = less(magnitude, splat(SMALLEST_PEAK));
    peak = select(best.zero, splat(1.f), peak);
    for (int i = 0; i < N; ++i) wx[i] = w[i] * x[i];

    F score = splat(0.f);
    auto try_inverse = [&](F inverse, bool first) {
        F lx = splat(0.f), l2 = splat(0.f);
        for (int i = 0; i < N; ++i) {
            const F code = clamp(nearest_float(inverse * x[i]), -NMAX, NMAX - 1);
            lx += wx[i] * code;
            l2 += w[i] * code * code;
        }
        const F scale = lx / l2;
        if (first) {
            best.inverse = inverse;
            best.scale = select(differ(l2, splat(0.f)), scale, splat(0.f));
            score = best.scale * lx;
            return;
        }
        const Mask better = less(splat(0.f), l2) & less(score * l2, lx * lx);
        best.inverse = select(better, inverse, best.inverse);
        best.scale = select(better, scale, best.scale);
        score = select(better, scale * lx, score);
    };
    try_inverse(splat(-float(NMAX)) / peak, true);
    for (int step = -9; step <= 9; ++step)
        if (step != 0) try_inverse(splat(-(NMAX + 0.1f * step)) / peak, false);
    best.scale = select(best.zero, splat(0.f), best.scale);
    return best;
}

// x ~ scale * code + low with 0 <= code <= NMAX and low <= 0.
struct Affine {
    F scale;
    F low;
    F sum_w;             // of the block's weights
    F inverse, origin;   // the codes are nearest(inverse * (x - origin)), clamped

    template <int NMAX>
    TERAZI_INLINE static I stored(const Affine& fit, F x) {
        return clamp(nearest_int(fit.inverse * (x - fit.origin)), 0, NMAX);
    }
};

enum class Loss { SQUARE, ABSOLUTE };

// Tries STEPS + 1 grid spacings: (FIRST + STEP * i + NMAX) levels across the range, each with the weighted
// least-squares fit for its codes. A better fit moves the origin that later trials start from.
template <int N, int NMAX, int STEPS, Loss LOSS>
struct AffineSearch {
    float first, step;
    const F* x;
    const F* w;
    F lowest, high, sum_w, sum_x, error;
    Mask flat;
    Affine best;
    F codes[N];

    TERAZI_INLINE static F loss(F difference) {
        return LOSS == Loss::SQUARE ? difference * difference : abs(difference);
    }

    // How far the grid reaches; in flat blocks anything that keeps the arithmetic in range.
    TERAZI_INLINE F span() const { return select(flat, splat(1.f), high - best.low); }

    // The fast rounding needs every inverse * (x - low) inside +-2^22; the ends of the range decide.
    TERAZI_INLINE bool in_range(F inverse) const {
        const F limit = splat(4194303.f);
        const Mask inside = less(abs(inverse * (lowest - best.low)), limit) &
                            less(abs(inverse * (high - best.low)), limit);
        return !any(invert(inside));
    }
    template <bool FAST>
    TERAZI_INLINE F code(F inverse, int i) const {
        const F value = inverse * (x[i] - best.low);
        return FAST ? clamp(nearest_float(value), 0, NMAX) : to_float(clamp(nearest_int(value), 0, NMAX));
    }

    TERAZI_INLINE void start() {
        lowest = high = x[0];
        sum_w = w[0];
        sum_x = w[0] * x[0];
        for (int i = 1; i < N; ++i) {
            lowest = min(x[i], lowest);
            high = max(x[i], high);
            sum_w += w[i];
            sum_x += w[i] * x[i];
        }
        best.sum_w = sum_w;
        best.low = select(less(splat(0.f), lowest), splat(0.f), lowest);
        flat = less_equal(high, best.low);
        best.origin = best.low;
        best.inverse = splat(float(NMAX)) / span();
        best.scale = splat(1.f) / best.inverse;
        error = in_range(best.inverse) ? start_error<true>() : start_error<false>();
    }
    template <bool FAST>
    TERAZI_INLINE F start_error() const {
        F sum = splat(0.f);
        for (int i = 0; i < N; ++i)
            sum += w[i] * loss(best.scale * code<FAST>(best.inverse, i) + best.low - x[i]);
        return sum;
    }

    template <bool FAST>
    TERAZI_INLINE void sums(F inverse, F& l, F& l2, F& xl) {
        l = l2 = xl = splat(0.f);
        for (int i = 0; i < N; ++i) {
            codes[i] = code<FAST>(inverse, i);
            const F wl = w[i] * codes[i];
            l += wl;
            l2 += wl * codes[i];
            xl += wl * x[i];
        }
    }

    TERAZI_INLINE void attempt(int i) {
        const F inverse = splat(first + step * i + NMAX) / span();
        F l, l2, xl;
        if (in_range(inverse)) [[likely]]
            sums<true>(inverse, l, l2, xl);
        else
            sums<false>(inverse, l, l2, xl);
        const F determinant = sum_w * l2 - l * l;
        F scale = (sum_w * xl - sum_x * l) / determinant;
        F low = (l2 * sum_x - l * xl) / determinant;
        const Mask above = less(splat(0.f), low);
        if (any(above)) {
            low = select(above, splat(0.f), low);
            scale = select(above, xl / l2, scale);
        }
        F sum = splat(0.f);
        for (int k = 0; k < N; ++k) sum += w[k] * loss(scale * codes[k] + low - x[k]);
        const Mask better = less(splat(0.f), determinant) & less(sum, error) & invert(flat);
        best.inverse = select(better, inverse, best.inverse);
        best.origin = select(better, best.low, best.origin);
        error = select(better, sum, error);
        best.scale = select(better, scale, best.scale);
        best.low = select(better, low, best.low);
    }

    TERAZI_INLINE void finish() {
        best.scale = select(flat, splat(0.f), best.scale);
        best.inverse = select(flat, splat(0.f), best.inverse);
    }
};

// Fits GROUPS blocks of N per lane: `x`, `w` are [GROUPS * N][W]. Trials of different blocks alternate, so that one's
// divisions run while another's sums do.
template <int GROUPS, int N, int NMAX, int STEPS, Loss LOSS = Loss::SQUARE>
TERAZI_INLINE void fit_affine(Affine* fits, const F* x, const F* w, float first, float step) {
    AffineSearch<N, NMAX, STEPS, LOSS> search[GROUPS];
    for (int g = 0; g < GROUPS; ++g) {
        search[g].first = first;
        search[g].step = step;
        search[g].x = x + g * N;
        search[g].w = w + g * N;
        search[g].start();
    }
    for (int i = 0; i <= STEPS; ++i)
        for (int g = 0; g < GROUPS; ++g) search[g].attempt(i);
    for (int g = 0; g < GROUPS; ++g) {
        search[g].finish();
        fits[g] = search[g].best;
    }
}

// x ~ scale * code with 0 <= code <= NMAX, for the scales of a super-block: nine trials, then up to five sweeps that
// change one code at a time. Codes are bytes, as in the reference: a negative one wraps.
template <int N, int NMAX>
TERAZI_INLINE F fit_positive(I* codes, const F* x, const F* w) {
    F top = splat(0.f);
    for (int i = 0; i < N; ++i) top = max(top, x[i]);
    const Mask zero = less(top, splat(SMALLEST_PEAK));
    top = select(zero, splat(1.f), top);

    F inverse = splat(float(NMAX)) / top, error = splat(0.f);
    {
        const F scale = splat(1.f) / inverse;
        for (int i = 0; i < N; ++i) {
            const F difference = x[i] - scale * to_float(nearest_int(inverse * x[i]) & 0xff);
            error += w[i] * difference * difference;
        }
    }
    for (int step = -4; step <= 4; ++step) {
        if (step == 0) continue;
        const F trial = splat(0.1f * step + NMAX) / top, scale = splat(1.f) / trial;
        F sum = splat(0.f);
        for (int i = 0; i < N; ++i) {
            const F difference = x[i] - scale * to_float(min(splat(NMAX), nearest_int(trial * x[i])));
            sum += w[i] * difference * difference;
        }
        const Mask better = less(sum, error);
        error = select(better, sum, error);
        inverse = select(better, trial, inverse);
    }

    F lx = splat(0.f), l2 = splat(0.f), wx[N];
    for (int i = 0; i < N; ++i) {
        const I code = min(splat(NMAX), nearest_int(inverse * x[i]));
        codes[i] = code & 0xff;
        wx[i] = w[i] * x[i];
        lx += wx[i] * to_float(code);
        l2 += w[i] * to_float(code) * to_float(code);
    }
    for (int sweep = 0; sweep < 5; ++sweep) {
        bool changed = false;
        for (int i = 0; i < N; ++i) {
            const F code = to_float(codes[i]);
            F new_lx = lx - wx[i] * code, new_l2 = l2 - w[i] * code * code;
            const Mask usable = less(splat(0.f), new_lx) & less(splat(0.f), new_l2);
            const I new_code = min(splat(NMAX), nearest_int(x[i] * new_l2 / new_lx));
            const F value = to_float(new_code);
            new_lx += wx[i] * value;
            new_l2 += w[i] * value * value;
            const Mask better = usable & invert(equal(new_code, codes[i])) &
                                less(lx * lx * new_l2, new_lx * new_lx * l2);
            codes[i] = select(better, new_code & 0xff, codes[i]);
            lx = select(better, new_lx, lx);
            l2 = select(better, new_l2, l2);
            changed |= any(better);
        }
        if (!changed) break;
    }
    for (int i = 0; i < N; ++i) codes[i] = select(zero, splat(0), codes[i]);
    return select(zero, splat(0.f), select(less(splat(0.f), l2), lx / l2, splat(0.f)));
}

}  // namespace terazi::TERAZI_ISA
