"""Which engine to run the pick in: the device's own order of preference, and what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.search.candidate import Framework
from terazi.search.limits import figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from terazi.devices import Device, UseCase
    from terazi.search.candidate import Candidate, Scored

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
_READS = {"gguf": _READS_GGUF, "onnx": ("onnxruntime", "transformers.js")}
_ENGINE = {"gguf": "llama.cpp", "onnx": "onnxruntime"}
_MEASURED_WITH = "llama.cpp"


def framework(device: Device, use_case: UseCase, ranked: Sequence[Scored]) -> Framework:
    """Recommend the device's first choice, and say what of it was measured and what the others would need."""
    pick = ranked[0] if ranked else None
    if {entry.candidate.format for entry in ranked} - {"gguf"}:
        return _between_formats(device, ranked)
    name = device.runtimes[0]
    alternatives = tuple((other, f"{_WHY[other]}; {_need(other)}") for other in device.runtimes[1:])
    return Framework(
        name=name,
        reason=f"{name} {_WHY[name]}. {_evidence(name, device, use_case, pick)}",
        measured=name == _MEASURED_WITH and pick is not None,
        alternatives=alternatives,
    )


def _between_formats(device: Device, ranked: Sequence[Scored]) -> Framework:
    """Choose the engine of the pick's format, where variants of several formats were measured."""
    best = ranked[0].candidate
    engines = [name for name in device.runtimes if name in _READS[best.format]] or [device.runtimes[0]]
    rival = next((entry.candidate for entry in ranked if entry.candidate.format != best.format), None)
    here = "" if device.detected else ", not on the device itself"
    text = (
        f"{engines[0]} {_WHY[engines[0]]}. {best.label} ran in {_ENGINE[best.format]} on this machine{here}"
    )
    if rival is not None and (measured := _against(best, rival)):
        text += f": {measured}"
    alternatives = tuple((other, _WHY[other]) for other in device.runtimes if other != engines[0])
    return Framework(
        name=engines[0],
        reason=f"{text}.",
        measured=engines[0] == _ENGINE[best.format],
        alternatives=alternatives,
    )


def _against(best: Candidate, rival: Candidate) -> str:
    """Compare by what was measured of both: time per sentence, else reading speed."""
    ours, theirs = best.measured("latency"), rival.measured("latency")
    if ours is None or theirs is None or not ours.value or not theirs.value:
        return ""
    factor = theirs.value / ours.value
    times = f"{figure(ours.value * 1e3)} ms a sentence against {figure(theirs.value * 1e3)} ms"
    return (
        f"{figure(max(factor, 1 / factor))} times as {'fast' if factor >= 1 else 'slow'} as the best "
        f"{_ENGINE[rival.format]} variant ({rival.label}; {times})"
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
