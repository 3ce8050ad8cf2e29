"""What commands print: data to stdout (tables or JSON), progress to stderr."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from terazi.progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from terazi.progress import Progress

__all__ = ["count", "json_option", "progress_bars", "size", "write_json", "write_table"]


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json`` (parameter ``as_json``) to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON with stable keys.")(function)


def write_json(value: Any) -> None:
    """Print one JSON document to stdout, whole or not at all."""
    readable = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=not readable, default=str) + "\n")


def write_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[str] = (), title: str = ""
) -> None:
    """Print a table to stdout; columns named in ``numeric`` are right-aligned. Readable without colour."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(escape(column), justify="right" if column in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)


def size(nbytes: float) -> str:
    """Format bytes in decimal units: ``98.4 MB``."""
    value = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def count(number: float) -> str:
    """Format a number of weights: ``135 M``."""
    for limit, divisor, unit in ((1e3, 1, ""), (1e6, 1e3, " k"), (1e9, 1e6, " M"), (1e12, 1e9, " B")):
        if number < limit:
            return f"{number / divisor:.3g}{unit}"
    return f"{number / 1e12:.3g} T"


@contextmanager
def progress_bars(*, enabled: bool = True) -> Iterator[Progress]:
    """Yield a progress callable that draws bars with an ETA on stderr; silent when stderr is no terminal."""
    if not enabled or not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    tasks: dict[str, TaskID] = {}

    def report(task: str, done: int, total: int, *, unit: str = "") -> None:
        if task not in tasks:
            tasks[task] = bars.add_task(task, total=total or None)
        elif done == 0:
            bars.reset(tasks[task])
        shown = done < total or not total or len(tasks) == 1  # finished parts make room for the next
        bars.update(tasks[task], completed=done, total=total or None, visible=shown)

    with bars:
        yield report
