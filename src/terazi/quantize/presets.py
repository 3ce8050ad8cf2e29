"""The named file presets of llama.cpp, as data: what `--type` can be.

Names, file type ids and default tensor types are those of llama.cpp (``include/llama.h`` ``llama_ftype``;
``src/llama-quant.cpp`` ``llama_ftype_get_default_type``). What a preset does to single tensors is in
`terazi.quantize.mixture`.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING

from terazi.dtypes import DType, dtype
from terazi.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALIASES", "PRESETS", "Preset", "preset"]


@dataclass(frozen=True, slots=True)
class Preset:
    """A named mixture of types: ``file_type`` is what the file says, ``type`` what most tensors get."""

    name: str
    file_type: int
    type: str
    title: str

    @property
    def default(self) -> DType:
        """The type that tensors get unless a rule says otherwise."""
        return dtype(self.type)


_TABLE = (
    Preset("F32", 0, "F32", "no loss, no saving"),
    Preset("BF16", 32, "BF16", "half the size of F32 with its range"),
    Preset("F16", 1, "F16", "half the size of F32"),
    Preset("Q8_0", 7, "Q8_0", "near-original, for desktops"),
    Preset("Q6_K", 18, "Q6_K", "close to Q8_0 at three quarters of its size"),
    Preset("Q5_K_M", 17, "Q5_K", "quality before size"),
    Preset("Q5_K_S", 16, "Q5_K", "quality, a little smaller"),
    Preset("Q5_1", 9, "Q5_1", "older 5-bit layout, simple to decode"),
    Preset("Q5_0", 8, "Q5_0", "older 5-bit layout, simple to decode"),
    Preset("Q4_K_M", 15, "Q4_K", "balanced: the usual first choice"),
    Preset("Q4_K_S", 14, "Q4_K", "balanced, a little smaller"),
    Preset("Q4_1", 3, "Q4_1", "older 4-bit layout, simple to decode"),
    Preset("Q4_0", 2, "Q4_0", "older 4-bit layout, simple to decode"),
    Preset("IQ4_NL", 25, "IQ4_NL", "4 bits on a curved scale, any row length"),
    Preset("IQ4_XS", 30, "IQ4_XS", "4 bits on a curved scale, smaller than Q4_K_S"),
    Preset("MXFP4_MOE", 38, "MXFP4", "experts in 4-bit floats, the rest in Q8_0"),
    Preset("Q3_K_L", 13, "Q3_K", "3 bits with larger attention and feed-forward outputs"),
    Preset("Q3_K_M", 12, "Q3_K", "3 bits, mixed"),
    Preset("Q3_K_S", 11, "Q3_K", "3 bits"),
    Preset("IQ3_M", 27, "IQ3_S", "3 bits by codebook, mixed"),
    Preset("IQ3_S", 26, "IQ3_S", "3 bits by codebook"),
    Preset("IQ3_XS", 22, "IQ3_S", "3 bits by codebook, smaller middle layers"),
    Preset("IQ3_XXS", 23, "IQ3_XXS", "3 bits by codebook, smallest"),
    Preset("Q2_K", 10, "Q2_K", "extreme: for phones when nothing larger fits"),
    Preset("Q2_K_S", 21, "Q2_K", "extreme, smaller"),
    Preset("IQ2_M", 29, "IQ2_S", "2 bits by codebook, mixed"),
    Preset("IQ2_S", 28, "IQ2_XS", "2 bits by codebook with larger attention"),
    Preset("IQ2_XS", 20, "IQ2_XS", "2 bits by codebook"),
    Preset("IQ2_XXS", 19, "IQ2_XXS", "2 bits by codebook, smallest"),
    Preset("Q2_0", 41, "Q2_0", "for models trained with 2-bit weights"),
    Preset("TQ2_0", 37, "TQ2_0", "for models trained with ternary weights"),
    Preset("IQ1_M", 31, "IQ1_M", "below 2 bits, for research"),
    Preset("TQ1_0", 36, "TQ1_0", "for models trained with ternary weights"),
    Preset("IQ1_S", 24, "IQ1_S", "below 2 bits, smallest, for research"),
    Preset("Q1_0", 40, "Q1_0", "for models trained with 1-bit weights"),
)

PRESETS: Mapping[str, Preset] = MappingProxyType({entry.name: entry for entry in _TABLE})
"""Every file preset by name, largest first."""

ALIASES: Mapping[str, str] = MappingProxyType({"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"})
"""Short names and the presets they stand for."""


def preset(name: str) -> Preset:
    """Look a preset or alias up, ignoring case. Raises `UsageError` naming what is near."""
    wanted = name.upper()
    found = PRESETS.get(ALIASES.get(wanted, wanted))
    if found is None:
        near = get_close_matches(wanted, [*PRESETS, *ALIASES], n=3) or ["Q4_K_M", "Q5_K_M", "Q8_0"]
        raise UsageError(
            f"unknown preset {name!r}",
            hint=f"did you mean {', '.join(near)}? all of them: terazi quantize --list-types",
        )
    return found
