"""What became of the operators of an ONNX graph, as a table and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.cli.output import write_table

if TYPE_CHECKING:
    from terazi.model import Model

__all__ = ["operators_before_and_after", "write_operators"]


def operators_before_and_after(source: Model, made: Model) -> dict[str, dict[str, int]]:
    """Return ``before`` and ``after``, each operator -> its number; before is empty where nobody counted."""
    old = source.metadata["operators"] if source.format == "onnx" else made.metadata["exported"]
    return {"before": dict(old), "after": dict(made.metadata["operators"])}


def write_operators(source: Model, made: Model) -> None:
    """Print the operators whose number changed, and all together."""
    counts = operators_before_and_after(source, made)
    old, new = counts["before"], counts["after"]
    if not old:
        return
    rows = [
        (name, str(old.get(name, 0)), str(new.get(name, 0)))
        for name in {**old, **new}
        if old.get(name, 0) != new.get(name, 0)
    ]
    rows.append(("all", str(sum(old.values())), str(sum(new.values()))))
    write_table(("operators", "before", "after"), rows, numeric=("before", "after"))
