"""``terazi doctor``: what this machine can do, and how to get what is missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from terazi.cli.output import json_option, progress_bars, write_json, write_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.devices.device import ComputeDevice
    from terazi.devices.health import Check

__all__ = ["command"]

_MARKS = {"ok": "ok", "missing": "--", "problem": "!!"}
_EXAMPLES = """\b
Examples:
  terazi doctor
  terazi doctor --json
  terazi doctor smollm2:135m --context 8192
  terazi doctor ./model.gguf --gpu-memory 8GB
"""


@click.command(
    "doctor",
    short_help="Check engines, kernels, memory and disk; say how to fix what is missing.",
    epilog=_EXAMPLES,
)
@click.argument("model", required=False)
@click.option(
    "--context", type=click.IntRange(1), default=4096, show_default=True, help="Tokens that MODEL remembers."
)
@click.option("--gpu-memory", metavar="SIZE", help="Free memory of a GPU to plan MODEL for, such as 8GB.")
@json_option
def command(model: str | None, context: int, gpu_memory: str | None, as_json: bool) -> None:
    """Check this machine: engines, kernels, processor, GPUs, memory, disk, store.

    Optional parts that are missing are listed with the command that installs them. With MODEL (a GGUF file or
    a name), also how much memory it needs and how many of its layers fit on the GPUs, by estimate. Exit code
    1 when something that Terazi always needs is broken.
    """
    from terazi.devices.health import checks
    from terazi.errors import EngineError
    from terazi.runtime.llamacpp.devices import compute_devices

    if gpu_memory and not model:
        raise click.UsageError("--gpu-memory needs a MODEL to plan for")
    try:
        compute = compute_devices()
    except EngineError:
        compute = None
    found = checks(compute)
    if model:
        found.append(_fit(model, context, compute or (), gpu_memory))
    if as_json:
        write_json([{"name": c.name, "state": c.state, "found": c.found, "fix": c.fix} for c in found])
    else:
        write_table(
            ("", "check", "found", "to fix"),
            [(_MARKS[check.state], check.name, check.found, check.fix) for check in found],
        )
    if any(check.state == "problem" for check in found):
        raise click.exceptions.Exit(1)


def _fit(model: str, context: int, compute: Sequence[ComputeDevice], gpu_memory: str | None) -> Check:
    """Where the model would run."""
    from terazi.devices.quantities import parse_bytes
    from terazi.registry import resolve_model
    from terazi.runtime.llamacpp.devices import fit_check

    free = [device.free for device in compute if device.kind == "gpu"]
    if gpu_memory:
        free = [parse_bytes(gpu_memory)]
    with progress_bars() as progress:
        return fit_check(model, resolve_model(model, progress=progress), context, free)
