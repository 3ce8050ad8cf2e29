"""What llama.cpp computes on here: ``python -m terazi.runtime.llamacpp.devices`` prints it as JSON.

Looking starts the drivers of GPUs. `compute_devices` does it in a child process, because a driver may crash
or hang.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from terazi.devices.device import ComputeDevice
from terazi.errors import EngineError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from terazi.devices.health import Check

__all__ = ["compute_devices", "fit_check", "fitting_layers", "look"]

_PATIENCE = 30.0  # seconds
_KINDS: dict[int, Literal["cpu", "gpu", "accelerator"]] = {
    1: "gpu",
    2: "gpu",
    3: "accelerator",
}  # enum ggml_backend_dev_type; 2 is integrated


def compute_devices() -> list[ComputeDevice]:
    """Return the devices of the installed llama.cpp. Raises `EngineError` when looking fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", __name__],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        return [ComputeDevice(**found) for found in json.loads(done.stdout.splitlines()[-1])]
    except subprocess.TimeoutExpired:
        raise EngineError(f"llama.cpp did not find its devices within {_PATIENCE:.0f} s") from None
    except (OSError, ValueError, IndexError):
        raise EngineError(
            "llama.cpp cannot tell its devices", hint="terazi doctor checks its version"
        ) from None


def look() -> list[ComputeDevice]:
    """Return the devices, found in this process."""
    xllamacpp: Any = import_module("xllamacpp")
    return [
        ComputeDevice(
            name=found["name"],
            description=found["description"],
            kind=_KINDS.get(int(found["type"]), "cpu"),
            total=found["memory_total"],
            free=found["memory_free"],
        )
        for found in xllamacpp.get_device_info()
    ]


def fitting_layers(path: Path, context: int) -> int:
    """Return how many layers of a GGUF file fit on this process's GPUs; 0 without any."""
    from terazi.formats import open_model
    from terazi.model.offload import plan_offload

    free = [device.free for device in look() if device.kind == "gpu"]
    return plan_offload(open_model(path), context, free).layers if free else 0


def fit_check(name: str, path: Path, context: int, free: Sequence[int]) -> Check:
    """Say what a GGUF model needs, and how many layers GPUs with ``free`` bytes each would take."""
    from terazi.devices.health import Check
    from terazi.devices.machine import this_machine
    from terazi.formats import open_model
    from terazi.model.memory import memory_needed
    from terazi.model.offload import plan_offload

    model = open_model(path)
    if model.format != "gguf":
        raise UnsupportedError(f"{name} is {model.format}; llama.cpp runs GGUF files")
    need = memory_needed(model.nbytes, model.config, context).total
    text = f"needs about {need / 1e9:.2f} GB at {context} tokens"
    plan = plan_offload(model, context, free)
    if not free:
        text += (
            f"; on the processor; all {plan.total} layers on a GPU need {plan.whole / 1e9:.2f} GB free there"
        )
    else:
        text += f"; {plan.layers} of {plan.total} layers fit in {sum(free) / 1e9:.1f} GB of GPU memory"
        text += f", {plan.needed / 1e9:.2f} GB of it"
    if not plan.layers and need > this_machine().memory.usable:
        return Check(name, "missing", text, "more than this machine has: terazi optimize finds a smaller one")
    return Check(name, "ok", text)


if __name__ == "__main__":
    print(json.dumps([asdict(device) for device in look()]))
