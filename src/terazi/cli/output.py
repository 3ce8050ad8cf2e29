"""What commands print: data to stdout (tables or JSON), progress to stderr."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from terazi.figures import count, size
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
    """Print a table to stdout; columns named in ``numeric`` are right-aligned. Readable without colour.

    Where the terminal is too narrow for columns, each row becomes a block of lines, one per column.
    """
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    if console.width < _narrowest(columns, rows):
        return _write_blocks(columns, rows, title)
    table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(escape(column), justify="right" if column in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    return console.print(table)


_PROSE = 24  # characters: a column of sentences stays readable down to this
_GAP = 2  # characters between columns


def _narrowest(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """The width at which every column shows its words whole, and sentences `_PROSE` characters a line."""
    widths = []
    for number, column in enumerate(columns):
        cells = [column, *(row[number] for row in rows)]
        longest_word = max((len(word) for cell in cells for word in cell.split()), default=0)
        widths.append(min(max(map(len, cells)), max(longest_word, _PROSE)))
    return sum(widths) + _GAP * len(widths)


def _write_blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    if title:
        click.echo(title)
    for row in rows:
        click.echo("\n" + row[0])
        for column, cell in zip(columns[1:], row[1:], strict=True):
            if cell:
                click.echo(f"  {column}: {cell}" if column else f"  {cell}")


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
