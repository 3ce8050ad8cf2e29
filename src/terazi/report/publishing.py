"""A finished study as a folder: the report, the picked file, and the command that runs it."""

from __future__ import annotations

import contextlib
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import ExistsError
from terazi.registry.reports import keep_report
from terazi.report.documents import document
from terazi.report.methods import method
from terazi.report.write import write_report
from terazi.search import deliver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.report.documents import Subject
    from terazi.search import Recommendation, Settings, Study

__all__ = ["check_free", "publish", "repeat_command"]

_REPORTS = ("report.html", "report.json")


def check_free(directory: Path | str, *, force: bool) -> None:
    """Raise `ExistsError` early when a report is there already and ``force`` is false."""
    for name in _REPORTS:
        if not force and (path := Path(directory) / name).exists():
            raise ExistsError(path)


def publish(
    recommendation: Recommendation,
    subject: Subject,
    directory: Path | str,
    *,
    pick: Path | None,
    commands: Sequence[str] = (),
    force: bool = False,
) -> Recommendation:
    """Write report.html, report.json and the pick's file (unless the pick is the source) into a folder.

    ``pick`` is the file or ONNX directory of the pick. The store keeps a copy of the report, which
    `terazi serve` shows. Returns the recommendation with the pick's new path.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    run = None
    best = recommendation.pick
    if best is not None and pick is not None:
        label = best.candidate.label
        target = pick
        name = subject.path
        if not best.candidate.source:
            suffix = "" if pick.is_dir() else pick.suffix
            target = directory / f"{_stem(subject)}-{re.sub(r'[^A-Za-z0-9_.]+', '-', label)}{suffix}"
            deliver(pick, target)
            name = str(target)
        moved = replace(best, candidate=replace(best.candidate, path=target))
        recommendation = replace(recommendation, ranked=(moved, *recommendation.ranked[1:]))
        run = _run(name, recommendation)
    report = document(
        recommendation,
        subject,
        run=run,
        method=method(recommendation),
        commands=commands,
    )
    html, _ = write_report(report, directory, force=force)
    with contextlib.suppress(OSError):  # the report is written; a full store only lacks the copy
        keep_report(report, html.read_text(encoding="utf-8"))
    return recommendation


def repeat_command(study: Study, settings: Settings, directory: Path | str) -> str:
    """Return the command line that repeats a study."""
    words = [
        "terazi",
        "optimize",
        study.name,
        "--device",
        study.device.name,
        "--use-case",
        study.use_case.name,
    ]
    words += ["--context", str(study.context), "--types", ",".join(study.types)]
    words += ["--tokens", str(settings.tokens)]
    if settings.text is not None:
        words += ["--text", str(settings.text)]
    if settings.threads is not None:
        words += ["--threads", str(settings.threads)]
    if settings.calibrate:
        words.append("--calibrate")
    for name, value in asdict(study.budget).items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", f"{value:.12g}"]
    return shlex.join([*words, "--output", str(directory)])


def _stem(subject: Subject) -> str:
    """A file name made of what the user calls the model."""
    name = Path(subject.path).name.removesuffix(".gguf")
    name = re.sub(r"(?i)[-._](q\d\w*|iq\d\w*|tq\d\w*|bf16|f16|f32)$", "", name)
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip(".-") or "model"


def _run(name: str, recommendation: Recommendation) -> str | None:
    if recommendation.use_case.task != "generate":
        return None
    prompt = (recommendation.use_case.prompts or ("Hello!",))[0]
    return f"terazi run {shlex.quote(name)} {shlex.quote(prompt)}"
