"""Which engine to run the pick in: the device's own order of preference, and what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.search.candidate import Framework
from terazi.search.limits import figure

if TYPE_CHECKING:
    from terazi.devices import Device, UseCase
    from terazi.search.candidate import Scored

__all__ = ["framework"]

_WHY = {
    "llama.cpp": "runs GGUF on any processor with hand-written kernels for every type from 1 to 8 bits, and "
    "maps the file instead of reading it",
    "mlx": "uses the GPU and unified memory of Apple silicon without copies",
    "onnxruntime": "reaches NPUs and other accelerators through its execution providers, and suits encoders "
    "and models from other frameworks",
    "wllama": "is llama.cpp compiled for the browser, with WebGPU where there is one",
    "transformers.js": "runs ONNX in the browser through onnxruntime-web",
    "vllm": "serves many users at once on GPUs with paged attention and continuous batching",
}
_READS_GGUF = ("llama.cpp", "wllama")
_MEASURED_WITH = "llama.cpp"


def framework(device: Device, use_case: UseCase, pick: Scored | None) -> Framework:
    """Recommend the device's first choice, and say what of it was measured and what the others would need."""
    name = device.runtimes[0]
    alternatives = tuple((other, f"{_WHY[other]}; {_need(other)}") for other in device.runtimes[1:])
    return Framework(
        name=name,
        reason=f"{name} {_WHY[name]}. {_evidence(name, device, use_case, pick)}",
        measured=name == _MEASURED_WITH and pick is not None,
        alternatives=alternatives,
    )


def _need(name: str) -> str:
    if name in _READS_GGUF:
        return "it runs the recommended file as it is"
    return "it needs the model in its own format, and nothing was measured with it here"


def _evidence(name: str, device: Device, use_case: UseCase, pick: Scored | None) -> str:
    measured = None
    if pick is not None:
        ran = pick.candidate
        measured = ran.measured("decode_speed") or ran.measured("prefill_speed")
    if name == _MEASURED_WITH and measured is not None:
        where = "" if device.detected else ", not on the device itself"
        speed = f"{figure(measured.value, 3)} tokens/s"
        text = f"The figures here come from it: {speed} measured on this machine{where}."
    elif name == _MEASURED_WITH:
        text = "The quality figures here come from it."
    elif name in _READS_GGUF:
        text = "The figures here come from llama.cpp itself."
    else:
        text = (
            f"Nothing was measured with it here; it needs the model in its own format ({device.formats[0]})."
        )
    gpus = [accelerator.name for accelerator in device.accelerators if name in accelerator.runtimes]
    if gpus:
        text += f" It can use the device's {gpus[0]}."
    if use_case.task == "embed" and "onnxruntime" in device.runtimes and name != "onnxruntime":
        text += " For an encoder, compare with onnxruntime as well."
    return text
