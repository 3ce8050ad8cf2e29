"""Carry plans out: stream a model's tensors, encoded as planned, into GGUF files."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from terazi.codecs import dequantize_rows, quantize_rows, validate_rows
from terazi.dtypes import dtype
from terazi.errors import FormatError, UsageError
from terazi.formats.gguf import Output, write_many
from terazi.formats.gguf.reader import shard_path
from terazi.model import Artifact, Tensor
from terazi.progress import Progress, silent
from terazi.quantize.mixture import role
from terazi.quantize.plan import expert_count, plain_shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from terazi.calibrate import Calibration
    from terazi.model import Model
    from terazi.quantize.plan import Entry, Plan

__all__ = ["apply", "apply_many"]

# Weights that one thread decodes and encodes at a time: its float32 rows stay in a core's own cache.
_CHUNK_WEIGHTS = 1 << 18


def apply(
    plan: Plan,
    model: Model,
    output: Path | str,
    *,
    calibration: Calibration | None = None,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> Artifact:
    """Write ``model`` as ``plan`` says and return the finished file (or parts); see `apply_many`."""
    return apply_many(
        [plan], model, [output], calibration=calibration, threads=threads, force=force, progress=progress
    )[0]


def apply_many(
    plans: Sequence[Plan],
    model: Model,
    outputs: Sequence[Path | str],
    *,
    calibration: Calibration | None = None,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> list[Artifact]:
    """Carry several plans for one GGUF model out in one pass: every weight is read and decoded once.

    Memory is bounded by the rows in flight, whatever the model's size. ``threads`` 0 uses every core this
    process may run on; the bytes do not depend on it. No file appears unless all are complete.

    Raises `UsageError` when a plan is for another model, or needs importance that ``calibration`` lacks;
    `FormatError` naming the tensor when a weight is not finite.
    """
    for plan in plans:
        _check_fit(plan, model)
        _check_importance(plan, calibration)
    helpers = (threads or _core_count()) - 1
    with ThreadPoolExecutor(max(helpers, 1), "quantize") as pool:
        encoder = _Encoder(pool, helpers, _types_by_tensor(plans), calibration or {}, str(model.path))
        wanted = [
            Output(
                path=Path(output),
                metadata=plan.metadata(model),
                tensors=[encoder.tensor(entry, model.tensors[entry.name]) for entry in plan.entries],
                split={entry.name: entry.part for entry in plan.entries} if plan.parts > 1 else None,
            )
            for plan, output in zip(plans, outputs, strict=True)
        ]
        written = write_many(wanted, force=force, progress=progress, task="quantizing")
    return [_artifact(plan, model, first) for plan, first in zip(plans, written, strict=True)]


@dataclass(slots=True)
class _Encoder:
    """Encodes row ranges of source tensors to all the types that are wanted of them.

    The last range is kept, because every output of one pass asks for it in turn.
    """

    pool: ThreadPoolExecutor
    helpers: int
    types: Mapping[str, set[str]]
    importance: Mapping[str, np.ndarray]
    where: str
    latest: tuple[str, int, int] | None = None
    encoded: dict[str, np.ndarray] = field(default_factory=dict)

    def tensor(self, entry: Entry, source: Tensor) -> Tensor:
        """Return the tensor of ``entry``, whose bytes are made when they are read."""

        def read(start: int, stop: int) -> np.ndarray:
            if self.latest != (entry.name, start, stop):
                self.encoded = self._encode(source, start, stop)
                self.latest = (entry.name, start, stop)
            return self.encoded[entry.type]

        return Tensor(name=entry.name, shape=entry.shape, type=entry.type, read=read)

    def _encode(self, source: Tensor, start: int, stop: int) -> dict[str, np.ndarray]:
        rows = stop - start
        encoded = {
            type: np.empty((rows, dtype(type).row_bytes(source.columns)), np.uint8)
            for type in self.types[source.name]
        }
        importance = self._importance_of(source)

        def work_off(spans: deque[tuple[int, int]]) -> None:
            while span := _next(spans):
                here = {type: out[span[0] - start : span[1] - start] for type, out in encoded.items()}
                _encode_rows(source, *span, importance, here)

        spans = deque(_spans(source, start, stop, len(importance)))
        jobs = [self.pool.submit(work_off, spans) for _ in range(min(self.helpers, len(spans) - 1))]
        try:
            work_off(spans)
            for job in jobs:
                job.result()
        except ValueError as error:
            raise FormatError(
                self.where,
                f"tensor {source.name}: {error}",
                hint="the model is damaged or was saved wrongly: get or convert it again",
            ) from None
        finally:
            spans.clear()
        return encoded

    def _importance_of(self, source: Tensor) -> np.ndarray:
        """Return float32[experts, columns] (one row for a plain matrix), or no rows."""
        found = self.importance.get(source.name)
        if found is None or found.size != source.columns * expert_count(source.shape):
            return np.empty((0, source.columns), np.float32)
        return found.reshape(-1, source.columns)


def _encode_rows(
    source: Tensor, start: int, stop: int, importance: np.ndarray, targets: Mapping[str, np.ndarray]
) -> None:
    """Fill ``targets`` (type -> uint8[rows, row_bytes]) from rows of ``source``, in this thread."""
    stored = source.encoded(start, stop)
    x = np.empty((0, source.columns), np.float32)
    rows_per_expert = source.row_count // max(len(importance), 1)
    weights = importance[start // rows_per_expert] if len(importance) else None
    if targets.keys() - {source.type}:
        x = dequantize_rows(stored, source.type, source.columns, threads=1)
        if not np.isfinite(x).all():
            row, column = np.argwhere(~np.isfinite(x))[0].tolist()
            raise ValueError(f"the value at row {start + row}, column {column} is not finite")
    for type, target in targets.items():
        target[:] = stored if type == source.type else quantize_rows(x, type, importance=weights, threads=1)
        try:
            validate_rows(target, type, source.columns)
        except FormatError:
            reach = f": its values reach {np.abs(x).max():.3g}" if x.size else ""
            raise ValueError(f"not finite as {type}{reach}") from None


def _spans(source: Tensor, start: int, stop: int, experts: int) -> Iterator[tuple[int, int]]:
    """Cut a row range into pieces for threads; none crosses from one expert to the next."""
    step = max(_CHUNK_WEIGHTS // source.columns, 1)
    block = source.row_count // max(experts, 1)
    while start < stop:
        end = min(start + step, stop, (start // block + 1) * block)
        yield start, end
        start = end


def _next(spans: deque[tuple[int, int]]) -> tuple[int, int] | None:
    """Take a span that no other thread took."""
    try:
        return spans.popleft()
    except IndexError:
        return None


def _types_by_tensor(plans: Sequence[Plan]) -> dict[str, set[str]]:
    types: dict[str, set[str]] = {}
    for plan in plans:
        for entry in plan.entries:
            types.setdefault(entry.name, set()).add(entry.type)
    return types


def _check_fit(plan: Plan, model: Model) -> None:
    planned = {entry.name: (entry.shape, entry.source_type) for entry in plan.entries}
    actual = {name: (plain_shape(tensor.shape), tensor.type) for name, tensor in model.tensors.items()}
    if planned != actual:
        different = sorted(
            name for name in planned.keys() | actual.keys() if planned.get(name) != actual.get(name)
        )
        raise UsageError(
            f"the plan was made for another model than {model.path} (tensor {different[0]} differs)",
            hint="make a plan for this model with --save-plan",
        )


def _check_importance(plan: Plan, calibration: Calibration | None) -> None:
    given = calibration.digest if calibration else None
    planned = plan.importance.digest if plan.importance else None
    if given != planned:
        raise UsageError(
            "the plan was made with another importance matrix than is given"
            if given and planned
            else f"the plan was made {'with' if planned else 'without'} an importance matrix",
            hint="make the plan again, or give the same --importance",
        )
    if unmet := plan.without_importance(calibration):
        names = ", ".join(f"{entry.name} ({entry.type})" for entry in unmet[:4])
        more = f" and {len(unmet) - 4} more" if len(unmet) > 4 else ""
        raise UsageError(
            f"{plan.preset} needs an importance matrix for {names}{more}",
            hint="make one with `terazi calibrate` and pass it as --importance",
        )
    sizes = {name: entry.squares.size for name, entry in calibration.sums.items()} if calibration else {}
    for entry in plan.entries:
        expected = entry.shape[-1] * expert_count(entry.shape)
        if sizes.get(entry.name, expected) != expected and _is_weighed(entry):
            raise UsageError(
                f"the importance matrix has {sizes[entry.name]} values for {entry.name}, not {expected}",
                hint="it was made from another model",
            )


def _is_weighed(entry: Entry) -> bool:
    return entry.type != entry.source_type and role(entry.name) != "token_embedding"


def _artifact(plan: Plan, model: Model, first: Path) -> Artifact:
    stem = first.name.split("-00001-of-")[0]
    files = [first.with_name(shard_path(stem, part, plan.parts)) for part in range(plan.parts)]
    return Artifact.of_files(
        files if plan.parts > 1 else [first],
        format="gguf",
        label=plan.preset,
        plan_digest=plan.digest,
        license=model.license,
    )


def _core_count() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
