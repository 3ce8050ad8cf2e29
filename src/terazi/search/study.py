"""A study: which variants of a model are worth making for a device, and what is known before any runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from terazi.errors import UsageError
from terazi.model import Artifact
from terazi.search.variants import FORMATS, variant_format, variant_type
from terazi.search.variants.family import Wanted
from terazi.search.variants.gguf import original

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.calibrate import Calibration
    from terazi.devices import Budget, Device, UseCase
    from terazi.model import Model
    from terazi.search.variants.family import Family, Proposal

__all__ = ["Study", "propose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What will be compared, for whom. The first proposal is the source.

    ``name`` is what the user calls the source; ``digest`` the SHA-256 of its file, or of the sorted names and
    digests of several. ``types`` are the variants that were asked for, ``calibration`` weighs the rounding;
    ``notes`` say which formats were left out, and why.
    """

    source: Model
    name: str
    digest: str
    proposals: tuple[Proposal, ...]
    device: Device
    use_case: UseCase
    budget: Budget
    context: int
    types: tuple[str, ...]
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()

    @property
    def runnable(self) -> list[Proposal]:
        """Proposals that will be made and measured."""
        return [proposal for proposal in self.proposals if proposal.skipped is None]


def propose(  # noqa: PLR0913
    source: Model,
    name: str,
    device: Device,
    use_case: UseCase,
    budget: Budget,
    *,
    context: int | None = None,
    types: Sequence[str] | None = None,
    formats: Sequence[str] = (),
    thorough: bool = False,
    calibration: Calibration | None = None,
) -> Study:
    """Plan variants of a GGUF ``source`` and predict size and memory at ``context`` tokens.

    ``types`` names them: GGUF presets, ONNX recipes (``onnx:int8``), MLX recipes (``mlx:4bit``). Without, it
    is the usual ones of each of ``formats``; those default to GGUF for a model that writes, and for an
    encoder or with ``thorough`` to everything that the device runs and that can be made here.
    What cannot fit the device or ``budget``, or would be the same as another, is kept with the reason.
    A context beyond what the model was trained for is cut to that.
    """
    _check_task(source, use_case)
    context = min(context or use_case.context, source.config.context_length or 1 << 62)
    notes: list[str] = []
    if types is None:
        chosen, notes = (list(formats), []) if formats else _formats(source, device, thorough)
        types = [name for format in chosen for name in _family(format).usual(source, thorough)]
    wanted = Wanted(
        source=source,
        device=device,
        limits=budget.over(use_case.floors),
        context=context,
        calibration=calibration,
    )
    asked: dict[str, list[str]] = {}
    for type in dict.fromkeys(map(variant_type, types)):
        asked.setdefault(variant_format(type), []).append(type)
    proposals = [original(source, context)]
    for format, names in asked.items():
        proposals += FORMATS[format].propose(names, wanted)
    return Study(
        source=source,
        name=name,
        digest=Artifact.of_files(source.files, format=source.format).digest,
        proposals=tuple(proposals),
        device=device,
        use_case=use_case,
        budget=budget,
        context=context,
        types=tuple(types),
        calibration=calibration,
        notes=tuple(notes),
    )


def _check_task(source: Model, use_case: UseCase) -> None:
    if source.variant == "embedding" and use_case.task != "embed":
        raise UsageError(
            f"{source.name} makes embeddings; {use_case.title.lower()} needs a model that writes text",
            hint="use --use-case embeddings-search",
        )
    if use_case.task == "embed" and source.variant in ("base", "instruct"):
        raise UsageError(
            f"{source.name} writes text; {use_case.title.lower()} needs a model that makes embeddings",
            hint="use another --use-case, such as chat, or a model such as all-MiniLM-L6-v2",
        )


def _formats(source: Model, device: Device, thorough: bool) -> tuple[list[str], list[str]]:
    """Choose the formats that nobody named, and say why any is left out that could have been of use."""
    if not thorough and source.variant != "embedding" and "gguf" in device.formats:
        return ["gguf"], []
    obstacles = {format: _reason(family, source, device) for format, family in FORMATS.items()}
    chosen = [format for format, obstacle in obstacles.items() if obstacle is None]
    notes = [
        f"{FORMATS[format].title} variants were left out: {obstacle}."
        for format, obstacle in obstacles.items()
        if obstacle is not None
    ]
    return chosen, notes


def _reason(family: Family, source: Model, device: Device) -> str | None:
    """Say why a format should be left out unless it is asked for; None where it should not."""
    obstacle = family.obstacle(source, device)
    if obstacle is None and family.format not in device.formats:
        return f"{family.engine} would run on the processor here; --formats {family.format} tries it"
    return obstacle


def _family(format: str) -> Family:
    if format not in FORMATS:
        raise UsageError(f"no variants in {format!r}", hint=f"choose from {', '.join(FORMATS)}")
    return FORMATS[format]
