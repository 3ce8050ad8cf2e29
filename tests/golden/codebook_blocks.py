"""Blocks that the codebook and small-bit types are compared on, made again from seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

__all__ = ["CODEBOOK_TYPES", "cases", "digest", "inputs"]

CODEBOOK_TYPES = (
    "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS",
    "TQ1_0", "TQ2_0", "MXFP4", "NVFP4", "Q1_0", "Q2_0",
)  # fmt: skip

ROWS, COLUMNS = 5, 512


def matrices() -> dict[str, np.ndarray]:
    """Named float32[ROWS, COLUMNS], ordinary and adversarial."""
    rng = np.random.default_rng(20261124)
    normal = rng.standard_normal((ROWS, COLUMNS)).astype(np.float32)
    holes = normal.copy()
    holes[:, ::3] = 0
    holes[0, :256] = holes[1, 32:64] = holes[2, :48] = holes[3, 100:] = 0
    sparse = np.zeros_like(normal)
    sparse[:, ::37] = normal[:, ::37]
    powers = np.ldexp(np.float32(1), rng.integers(-20, 20, normal.shape)).astype(np.float32)
    found = {
        "normal": normal,
        "small": normal * np.float32(0.02),
        "student": rng.standard_t(3, normal.shape).astype(np.float32),
        "bf16": (normal.view(np.uint32) & 0xFFFF0000).view(np.float32),
        "zero": np.zeros_like(normal),
        "negative zero": -np.zeros_like(normal),
        "constant": np.full_like(normal, 0.37),
        "negative constant": np.full_like(normal, -1.5),
        "positive": np.abs(normal),
        "negative": -np.abs(normal),
        "1e-8": normal * np.float32(1e-8),
        "1e-12": normal * np.float32(1e-12),
        "1e-20": normal * np.float32(1e-20),
        "denormal": normal * np.float32(1e-40),
        "1e6": normal * np.float32(1e6),
        "wide range": (normal * np.exp(rng.standard_normal(normal.shape) * 4)).astype(np.float32),
        "powers of two": np.copysign(powers, normal),
        "just below powers of two": np.nextafter(np.copysign(powers, normal), np.float32(0)),
        "half steps": np.round(normal * 2) / np.float32(2),
        "small integers": rng.integers(-3, 4, normal.shape).astype(np.float32),
        "signs": np.sign(normal),
        "holes": holes,
        "sparse": sparse,
    }
    assert all(np.isfinite(x).all() and x.dtype == np.float32 for x in found.values())
    return found


def importances() -> dict[str, np.ndarray]:
    """Named float32[COLUMNS], from plain to hostile."""
    rng = np.random.default_rng(42)
    plain = rng.gamma(1.0, 1.0, COLUMNS).astype(np.float32)
    holes = plain.copy()
    holes[::5] = holes[64:128] = 0
    return {
        "plain": plain,
        "holes": holes,
        "equal": np.ones(COLUMNS, np.float32),
        "wide range": np.exp(rng.standard_normal(COLUMNS) * 5).astype(np.float32),
        "zero": np.zeros(COLUMNS, np.float32),
        "tiny": plain * np.float32(1e-30),
    }


def cases(use: str) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Every (name, matrix, importance) for a type that makes this ``use`` of importance."""
    weights: dict[str, np.ndarray | None] = {} if use == "ignored" else {**importances()}
    if use != "required":
        weights["none"] = None
    for name, x in matrices().items():
        for weight, importance in weights.items():
            yield f"{name} / {weight}", x, importance


def digest(array: np.ndarray) -> str:
    """A short digest of an array's bytes."""
    return hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=8).hexdigest()


def inputs() -> dict[str, str]:
    """Digests of all matrices and importances: whether this machine makes the recorded ones."""
    found = {name: digest(x) for name, x in matrices().items()}
    return found | {f"importance {name}": digest(x) for name, x in importances().items()}
