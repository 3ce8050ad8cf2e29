"""What people want from a model: what counts how much, what must hold, and what to ask it."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from terazi.devices.quantities import ByteSize

__all__ = ["Budget", "UseCase", "Weights"]

_CONFIG = ConfigDict(extra="forbid")
_Fraction = Annotated[float, Field(ge=0, le=1)]
_Positive = Annotated[float, Field(gt=0, le=1e9)]
_Text = Annotated[str, Field(min_length=1, max_length=2000)]


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Budget:
    """Limits that a variant must keep; ``None`` sets none.

    Sizes in bytes, ``min_speed`` in generated tokens/s on the device, ``min_agreement`` the fraction of
    positions with the reference's first choice, ``max_kl`` in nats, ``min_cosine`` for embeddings.
    """

    max_size: ByteSize | None = None
    max_memory: ByteSize | None = None
    min_speed: _Positive | None = None
    min_agreement: _Fraction | None = None
    max_kl: _Positive | None = None
    min_cosine: _Fraction | None = None

    def over(self, defaults: Budget) -> Budget:
        """Return these limits, and those of ``defaults`` where none is set here."""
        chosen = {field.name: getattr(self, field.name) for field in fields(Budget)}
        fallback = {field.name: getattr(defaults, field.name) for field in fields(Budget)}
        return Budget(**{name: fallback[name] if value is None else value for name, value in chosen.items()})


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class Weights:
    """How much quality, speed and smallness count. Only their proportions matter."""

    quality: _Fraction
    speed: _Fraction
    size: _Fraction


@dataclass(frozen=True, slots=True, kw_only=True, config=_CONFIG)
class UseCase:
    """A way to use a model. ``floors`` hold unless the command line sets other limits.

    ``comfortable_speed`` (tokens/s) is where more speed begins to matter less; ``context`` (tokens) is what
    memory is counted for; ``prompts`` are asked of every variant so that people can compare the answers.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
    title: _Text
    description: str = ""
    task: Literal["generate", "embed"] = "generate"
    weights: Weights
    floors: Budget = Budget()
    comfortable_speed: _Positive
    context: Annotated[int, Field(ge=128, le=10_000_000)]
    prompts: tuple[_Text, ...] = ()
