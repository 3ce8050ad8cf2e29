"""Which engine to run the pick in: the device's own order of preference, and what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.search.candidate import Framework
from terazi.search.estimates import representative
from terazi.search.limits import figure
from terazi.search.variants import FORMATS

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
_READS = {
    "gguf": ("llama.cpp", "wllama"),
    "onnx": ("onnxruntime", "transformers.js"),
    "mlx": ("mlx",),
    "safetensors": ("vllm",),
}


def framework(device: Device, use_case: UseCase, ranked: Sequence[Scored]) -> Framework:
    """Recommend an engine, and say what of it was measured and what the others would need.

    Where variants of several formats ran, it is the first of the device's engines that reads the pick;
    otherwise the device's first choice.
    """
    formats = {entry.candidate.format for entry in ranked if entry.candidate.ran}
    best = ranked[0].candidate if ranked else None
    if best is not None and (len(formats) > 1 or best.format != "gguf"):
        return _between_formats(device, ranked)
    name = device.runtimes[0]
    formats = formats or {"gguf"}
    return Framework(
        name=name,
        reason=f"{name} {_WHY[name]}. {_evidence(name, device, use_case, best)}",
        measured=best is not None and name == FORMATS["gguf"].engine,
        alternatives=_alternatives(device, name, formats),
    )


def _between_formats(device: Device, ranked: Sequence[Scored]) -> Framework:
    """Choose an engine for the pick's format, and compare with the best variant of another."""
    best = ranked[0].candidate
    readers = [name for name in device.runtimes if name in _READS[best.format]]
    name = readers[0] if readers else device.runtimes[0]
    ran_in = FORMATS[best.format].engine
    text = f"{name} {_WHY[name]}. {best.label} ran in {ran_in} on this machine{_elsewhere(device)}"
    rivals = [entry.candidate for entry in ranked if entry.candidate.format != best.format]
    compared = next((words for rival in rivals if (words := _against(best, rival, device))), "")
    if compared:
        text += f": {compared}"
    formats = {entry.candidate.format for entry in ranked if entry.candidate.ran}
    return Framework(
        name=name,
        reason=f"{text}.",
        measured=name == ran_in,
        alternatives=_alternatives(device, name, formats),
    )


def _elsewhere(device: Device) -> str:
    return "" if device.detected else ", not on the device itself"


def _against(best: Candidate, rival: Candidate, device: Device) -> str:
    """Compare by what was measured of both and means something for the device; empty where nothing was."""
    for metric, each in (("latency", _sentence), ("decode_speed", _token)):
        ours, theirs = best.measured(metric), rival.measured(metric)
        if ours is None or theirs is None or not ours.value or not theirs.value:
            continue
        if not (representative(ours, device) and representative(theirs, device)):
            continue
        factor = theirs.value / ours.value if metric == "latency" else ours.value / theirs.value
        return (
            f"{figure(max(factor, 1 / factor))} times as {'fast' if factor >= 1 else 'slow'} as the best "
            f"{FORMATS[rival.format].engine} variant ({rival.label}; {each(ours.value, theirs.value)})"
        )
    return ""


def _sentence(ours: float, theirs: float) -> str:
    return f"{figure(ours * 1e3)} ms a sentence against {figure(theirs * 1e3)} ms"


def _token(ours: float, theirs: float) -> str:
    return f"{figure(ours, 3)} tokens/s against {figure(theirs, 3)}"


def _alternatives(device: Device, chosen: str, formats: set[str]) -> tuple[tuple[str, str], ...]:
    """Say of each other engine whether variants in its format ran here, and what it would need."""
    return tuple(
        (name, f"{_WHY[name]}; {_need(name, formats)}") for name in device.runtimes if name != chosen
    )


def _need(name: str, ran: set[str]) -> str:
    format = next((format for format, readers in _READS.items() if name in readers), "")
    if format in ran:
        measured = FORMATS[format].engine
        where = "it" if name == measured else measured
        return f"it runs the {FORMATS[format].title} variants as they are; they were measured in {where}"
    if format in FORMATS:
        return (
            "it needs the model in its own format, and nothing was measured with it here: "
            f"--formats gguf,{format} does"
        )
    return "it needs the model in its own format, and nothing was measured with it here"


def _evidence(name: str, device: Device, use_case: UseCase, pick: Candidate | None) -> str:
    measured = pick and (pick.measured("decode_speed") or pick.measured("prefill_speed"))
    if name == FORMATS["gguf"].engine and measured:
        speed = f"{figure(measured.value, 3)} tokens/s"
        text = f"The figures here come from it: {speed} measured on this machine{_elsewhere(device)}."
    elif name == FORMATS["gguf"].engine:
        text = "The quality figures here come from it."
    elif name in _READS["gguf"]:
        text = "The figures here come from llama.cpp itself."
    else:
        text = (
            f"Nothing was measured with it here; it needs the model in its own format ({device.formats[0]})"
        )
        text += f": --formats gguf,{device.formats[0]} measures it." if device.formats[0] in FORMATS else "."
    gpus = [accelerator.name for accelerator in device.accelerators if name in accelerator.runtimes]
    if gpus:
        text += f" It can use the device's {gpus[0]}."
    if use_case.task == "embed" and "onnxruntime" in device.runtimes and name != "onnxruntime":
        text += " For an encoder, compare with onnxruntime as well."
    return text
