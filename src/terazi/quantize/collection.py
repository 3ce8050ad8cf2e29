"""A collection: a whole series of presets of one model, each in a file of its own."""

from __future__ import annotations

import contextlib
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import UsageError
from terazi.quantize.plan import Plan, make_plan
from terazi.quantize.presets import ALIASES, PRESETS, preset

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from terazi.calibrate import Calibration
    from terazi.model import Model

__all__ = ["collection_directory", "collection_path", "plan_collection"]

# Left out of the usual series: no saving, or meant for models trained with such weights.
_SPECIAL = {"F32", "BF16", "F16", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0", "MXFP4_MOE"}


def plan_collection(
    model: Model, presets: Sequence[str] = (), *, calibration: Calibration | None = None, **options: Any
) -> list[Plan]:
    """Plan several presets; without any named, the usual series from Q8_0 down to the smallest.

    The usual series leaves out what needs importance that ``calibration`` lacks, and has MXFP4_MOE for
    models with experts. ``options`` are those of `make_plan`.
    """
    if presets:
        names = list(dict.fromkeys(preset(name).name for name in presets))
        return [make_plan(model, name, calibration=calibration, **options) for name in names]
    left_out = _SPECIAL - ({"MXFP4_MOE"} if model.config.expert_count > 1 else set())
    plans = [
        make_plan(model, name, calibration=calibration, **options) for name in PRESETS if name not in left_out
    ]
    return [plan for plan in plans if not plan.without_importance(calibration)]


@contextmanager
def collection_directory(path: Path | str) -> Iterator[None]:
    """Have the directory ``path`` for the block; made for it, it is removed when the block leaves it empty.

    Raises `UsageError` when a file is in its place.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file", hint="a series of files goes into a directory: name one")
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # it holds files
                folder.rmdir()


def collection_path(directory: Path | str, model: Model, plan: Plan) -> Path:
    """Return where a plan's file goes: ``directory/model-PRESET.gguf``, without the source's own type."""
    if model.path.is_dir():  # its name may be one in the store, such as org/model:tag
        stem = model.name.rpartition("/")[2].removesuffix(":latest").replace(":", "-")
    else:
        stem = re.sub(r"(-00001-of-\d{5})?\.gguf$", "", model.path.name)
    types = "|".join(sorted([*PRESETS, *ALIASES], key=len, reverse=True))
    stem = re.sub(rf"(?i)[-._]({types})$", "", stem)
    return Path(directory) / f"{stem}-{plan.preset}.gguf"
