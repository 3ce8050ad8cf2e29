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
struct SymmetricSearch {
    const F* x;
    const F* w;
    F peak, score, wx[N];
    Symmetric best;

    TERAZI_INLINE void start() {
        F magnitude;
        peak = signed_peak(x, N, magnitude);
        best.zero = less(magnitude, splat(SMALLEST_PEAK));
        peak = select(best.zero, splat(1.f), peak);
        for (int i = 0; i < N; ++i) wx[i] = w[i] * x[i];
        F lx, l2;
        best.inverse = splat(-float(NMAX)) / peak;
        sum_codes<false, true>(best.inverse, lx, l2);
        best.scale = select(differ(l2, splat(0.f)), lx / l2, splat(0.f));
        score = best.scale * lx;
    }

    // |inverse * x| is at most NMAX + 0.1 * step: only some steps can round past an end of the code range.
    template <bool BELOW, bool ABOVE>
    TERAZI_INLINE void sum_codes(F inverse, F& lx, F& l2) const {
        lx = l2 = splat(0.f);
        for (int i = 0; i < N; ++i) {
            F code = nearest_float(inverse * x[i]);
            if constexpr (ABOVE) code = min(code, splat(NMAX - 1.f));
            if constexpr (BELOW) code = max(code, splat(-float(NMAX)));
            lx += wx[i] * code;
            l2 += w[i] * code * code;
        }
    }
    template <bool BELOW, bool ABOVE>
    TERAZI_INLINE void attempts(int first, int last) {
        for (int step = first; step <= last; ++step) {
            if (step == 0) continue;
            const F inverse = splat(-(NMAX + 0.1f * step)) / peak;
            F lx, l2;
            sum_codes<BELOW, ABOVE>(inverse, lx, l2);
            const Mask better = less(splat(0.f), l2) & less(score * l2, lx * lx);
            const F scale = lx / l2;
            best.inverse = select(better, inverse, best.inverse);
            best.scale = select(better, scale, best.scale);
            score = select(better, scale * lx, score);
        }
    }
};

template <int N, int NMAX>
TERAZI_INLINE Symmetric fit_symmetric(const F* x, const F* w) {
    SymmetricSearch<N, NMAX> search;
    search.x = x;
    search.w = w;
    search.start();
    search.template attempts<false, false>(-9, -6);
    search.template attempts<false, true>(-5, 4);
    search.template attempts<true, true>(5, 9);
    search.best.scale = select(search.best.zero, splat(0.f), search.best.scale);
    return search.best;
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

// Tries STEPS + 1 grid spacings: (first + step * i + NMAX) levels across the range, each with the weighted
// least-squares fit for its codes. A better fit moves the origin that later trials start from.
// TWINS blocks per lane advance together: one chain of sums alone would wait for its own additions.
template <int TWINS, int N, int NMAX, Loss LOSS>
struct AffineSearch {
    const F* x;  // [TWINS * N]
    const F* w;
    F lowest[TWINS], high[TWINS], sum_w[TWINS], sum_x[TWINS], error[TWINS];
    Mask flat[TWINS];
    Affine best[TWINS];
    F codes[TWINS * N];

    TERAZI_INLINE static F loss(F difference) {
        return LOSS == Loss::SQUARE ? difference * difference : abs(difference);
    }

    // How far the grid reaches; in flat blocks anything that keeps the arithmetic in range.
    TERAZI_INLINE F span(int t) const { return select(flat[t], splat(1.f), high[t] - best[t].low); }

    // How codes are rounded: EXACT as the reference whatever the values; FAST when all are inside +-2^22; FIT when
    // none rounds to more than NMAX either, so that no clamp is needed above.
    enum Rounding { EXACT, FAST, FIT };

    // The ends of the range decide, since rounding is monotonic.
    template <Rounding R>
    TERAZI_INLINE bool allowed(const F* inverse) const {
        Mask inside;
        for (int t = 0; t < TWINS; ++t) {
            const F a = inverse[t] * (lowest[t] - best[t].low), b = inverse[t] * (high[t] - best[t].low);
            const F top = splat(R == FIT ? NMAX + 0.49f : 4194303.f), bottom = splat(-4194303.f);
            const Mask both = less(a, top) & less(b, top) & less(bottom, a) & less(bottom, b);
            inside = t == 0 ? both : Mask(inside & both);
        }
        return !any(invert(inside));
    }
    template <Rounding R>
    TERAZI_INLINE F code(F value) const {
        if constexpr (R == EXACT) return to_float(clamp(nearest_int(value), 0, NMAX));
        if constexpr (R == FAST) return clamp(nearest_float(value), 0.f, float(NMAX));
        return max(nearest_float(value), splat(0.f));
    }

    TERAZI_INLINE void start() {
        F inverse[TWINS];
        for (int t = 0; t < TWINS; ++t) {
            const F *xs = x + t * N, *ws = w + t * N;
            lowest[t] = high[t] = xs[0];
            sum_w[t] = ws[0];
            sum_x[t] = ws[0] * xs[0];
            for (int i = 1; i < N; ++i) {
                lowest[t] = min(xs[i], lowest[t]);
                high[t] = max(xs[i], high[t]);
                sum_w[t] += ws[i];
                sum_x[t] += ws[i] * xs[i];
            }
            best[t].sum_w = sum_w[t];
            best[t].low = select(less(splat(0.f), lowest[t]), splat(0.f), lowest[t]);
            flat[t] = less_equal(high[t], best[t].low);
            best[t].origin = best[t].low;
            inverse[t] = splat(float(NMAX)) / span(t);
            best[t].inverse = inverse[t];
            best[t].scale = splat(1.f) / inverse[t];
        }
        allowed<FAST>(inverse) ? start_errors<FAST>() : start_errors<EXACT>();
    }
    template <Rounding R>
    TERAZI_INLINE void start_errors() {
        for (int t = 0; t < TWINS; ++t) error[t] = splat(0.f);
        for (int i = 0; i < N; ++i)
            for (int t = 0; t < TWINS; ++t) {
                const F value = x[t * N + i], low = best[t].low;
                const F code = this->code<R>(best[t].inverse * (value - low));
                error[t] += w[t * N + i] * loss(best[t].scale * code + low - value);
            }
    }

    // Codes of one trial, and the sums of w * code, w * code^2 and w * code * x.
    template <Rounding R>
    TERAZI_INLINE void sum_codes(const F* inverse, F* l, F* l2, F* xl) {
        F low[TWINS];
        for (int t = 0; t < TWINS; ++t) {
            l[t] = l2[t] = xl[t] = splat(0.f);
            low[t] = best[t].low;
        }
        for (int i = 0; i < N; ++i)
            for (int t = 0; t < TWINS; ++t) {
                const F value = x[t * N + i];
                const F code = this->code<R>(inverse[t] * (value - low[t]));
                const F wl = w[t * N + i] * code;
                codes[t * N + i] = code;
                l[t] += wl;
                l2[t] += wl * code;
                xl[t] += wl * value;
            }
    }

    template <Rounding R>
    TERAZI_INLINE void attempt(float levels) {
        F inverse[TWINS], l[TWINS], l2[TWINS], xl[TWINS], scale[TWINS], low[TWINS], sum[TWINS];
        Mask usable[TWINS];
        for (int t = 0; t < TWINS; ++t) inverse[t] = splat(levels) / span(t);
        if (allowed<R>(inverse)) [[likely]]
            sum_codes<R>(inverse, l, l2, xl);
        else
            sum_codes<EXACT>(inverse, l, l2, xl);
        for (int t = 0; t < TWINS; ++t) {
            const F determinant = sum_w[t] * l2[t] - l[t] * l[t];
            usable[t] = less(splat(0.f), determinant) & invert(flat[t]);
            scale[t] = (sum_w[t] * xl[t] - sum_x[t] * l[t]) / determinant;
            low[t] = (l2[t] * sum_x[t] - l[t] * xl[t]) / determinant;
            const Mask above = less(splat(0.f), low[t]);
            if (any(above)) {
                low[t] = select(above, splat(0.f), low[t]);
                scale[t] = select(above, xl[t] / l2[t], scale[t]);
            }
            sum[t] = splat(0.f);
        }
        for (int i = 0; i < N; ++i)
            for (int t = 0; t < TWINS; ++t)
                sum[t] += w[t * N + i] * loss(scale[t] * codes[t * N + i] + low[t] - x[t * N + i]);
        for (int t = 0; t < TWINS; ++t) {
            const Mask better = usable[t] & less(sum[t], error[t]);
            best[t].inverse = select(better, inverse[t], best[t].inverse);
            best[t].origin = select(better, best[t].low, best[t].origin);
            error[t] = select(better, sum[t], error[t]);
            best[t].scale = select(better, scale[t], best[t].scale);
            best[t].low = select(better, low[t], best[t].low);
        }
    }

    TERAZI_INLINE void finish(Affine* fits) const {
        for (int t = 0; t < TWINS; ++t) {
            fits[t] = best[t];
            fits[t].scale = select(flat[t], splat(0.f), best[t].scale);
            fits[t].inverse = select(flat[t], splat(0.f), best[t].inverse);
        }
    }
};

// Fits PAIRS * TWINS blocks of N per lane: `x`, `w` are [PAIRS * TWINS * N][W]. Trials of the pairs alternate, so that
// one's divisions run while the other's sums do.
template <int PAIRS, int TWINS, int N, int NMAX, Loss LOSS = Loss::SQUARE>
TERAZI_INLINE void fit_affine(Affine* fits, const F* x, const F* w, float first, float step, int steps) {
    using Search = AffineSearch<TWINS, N, NMAX, LOSS>;
    Search search[PAIRS];
    for (int g = 0; g < PAIRS; ++g) {
        search[g].x = x + g * TWINS * N;
        search[g].w = w + g * TWINS * N;
        search[g].start();
    }
    int i = 0;
    for (; i <= steps && first + step * i <= 0.45f; ++i)
        for (auto& s : search) s.template attempt<Search::FIT>(first + step * i + NMAX);
    for (; i <= steps; ++i)
        for (auto& s : search) s.template attempt<Search::FAST>(first + step * i + NMAX);
    for (int g = 0; g < PAIRS; ++g) search[g].finish(fits + g * TWINS);
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
