"""Rows and importances that the kernels meet: ordinary, real-looking and adversarial, all seeded."""

from __future__ import annotations

import numpy as np

LARGEST = np.float32(3.4e38)


def _uniform_powers(rng, shape, low, high):
    return 10.0 ** rng.uniform(low, high, shape)


def rows_to_try(rows: int, columns: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Float32 matrices by name; every one is finite."""
    rng = np.random.default_rng(seed)
    shape = (rows, columns)
    normal = rng.standard_normal(shape)
    weights = (normal * 0.02).astype(np.float32)
    half_zero = weights.copy()
    half_zero[::2] = 0
    half_zero[:, : min(64, columns)] = 0
    outliers = weights.copy()
    outliers[:, 5::97] *= 50
    sparse = weights.copy()
    sparse[rng.random(shape) < 0.9] = 0
    negative_zeros = np.zeros_like(weights)
    negative_zeros[rng.random(shape) < 0.5] = -0.0
    negative_zeros[:, ::61] = 1e-10
    per_block = _uniform_powers(rng, (rows, columns // 16, 1), -12, 3)
    made = {
        "normal": weights,
        "student-t": rng.standard_t(3, shape) * 0.01,
        "bf16": (weights.view(np.uint32) & 0xFFFF0000).view(np.float32),
        "zero": np.zeros(shape),
        "half-zero": half_zero,
        "negative-zero": negative_zeros,
        "constant": np.repeat(rng.standard_normal((rows, 1)), columns, axis=1),
        "two-valued": np.sign(weights) * np.float32(0.3),
        "positive": abs(weights),
        "negative": -abs(weights),
        "far-positive": abs(weights) + 1,
        "far-negative": -abs(weights) - 1,
        "denormal": weights * 1e-38,
        "deep-denormal": weights * 1e-41,
        "huge": (normal * 1e38).clip(-LARGEST, LARGEST),
        "any-magnitude": (normal * _uniform_powers(rng, shape, -38, 38)).clip(-LARGEST, LARGEST),
        "wide": normal * _uniform_powers(rng, shape, -30, 3),
        "1e-20": weights * 1e-20,
        "at-zero-threshold": weights * 5e-14,
        "coarse": np.round(normal * 3) / 8,
        "blocks-apart": normal * np.repeat(per_block, 16, axis=1).reshape(rows, -1),
        "outliers": outliers,
        "sparse": sparse,
    }
    return {name: np.ascontiguousarray(x, dtype=np.float32) for name, x in made.items()}


def importances_to_try(columns: int, seed: int = 0) -> dict[str, np.ndarray | None]:
    """Column importances by name, and none."""
    rng = np.random.default_rng(seed)
    squares = rng.standard_normal(columns) ** 2
    holes = squares.copy()
    holes[rng.random(columns) < 0.3] = 0
    holes[: min(64, columns)] = 0
    made = {
        "squares": squares,
        "holes": holes,
        "wide": _uniform_powers(rng, columns, -12, 6),
        "all-zero": np.zeros(columns),
        "large": np.full(columns, 1e30),
    }
    return {"none": None, **{name: value.astype(np.float32) for name, value in made.items()}}
