"""Figures for a device that is not at hand: generation speed from memory bandwidth, energy from power.

Generating a token reads every active weight and the KV cache once, so memory bandwidth bounds the speed.
Published llama.cpp figures reach a third to two thirds of the peak bandwidth on small boards and laptops;
`EFFICIENCY` is the middle. Small models lose more to overhead, so the estimate is a guide, not a promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.evaluate.measurement import METRICS, Measurement

if TYPE_CHECKING:
    from terazi.devices import Device
    from terazi.search.candidate import Candidate

__all__ = ["EFFICIENCY", "decode_speed", "energy_per_token", "representative"]

EFFICIENCY = 0.5
"""The part of the peak bandwidth that generation is assumed to reach."""


def representative(measurement: Measurement, device: Device) -> bool:
    """Whether a time measured here tells anything of ``device``.

    MLX without Metal does not: its processor build is there to be correct, and the device would use its GPU.
    """
    runtime = str(measurement.conditions.get("runtime", ""))
    return device.detected or not (runtime.startswith("mlx") and "processor" in runtime)


def decode_speed(candidate: Candidate, device: Device) -> Measurement | None:
    """Generation speed on ``device`` (tokens/s): measured when it is this machine, else an estimate.

    Encoders do not generate: theirs is the reading speed measured on this machine, whatever the device,
    because reading is bound by arithmetic, which memory bandwidth says nothing of. None where that is not
    `representative`.
    """
    if candidate.token_bytes <= 0:
        read = candidate.measured("prefill_speed")
        return read if read is not None and representative(read, device) else None
    if device.detected:
        return candidate.measured("decode_speed")
    if candidate.failure:
        return None
    place, bandwidth = device.place(candidate.memory_needed)
    return Measurement(
        metric="decode_speed",
        value=EFFICIENCY * bandwidth / candidate.token_bytes,
        unit=METRICS["decode_speed"].unit,
        artifact=candidate.digest or "",
        device=device.name,
        estimated=True,
        conditions={
            "place": place,
            "bandwidth": bandwidth,
            "efficiency": EFFICIENCY,
            "token_bytes": candidate.token_bytes,
        },
    )


def energy_per_token(speed: Measurement | None, device: Device) -> float | None:
    """Joules per generated token: the device's power over the speed; an estimate like both."""
    if speed is None or device.power is None or speed.metric != "decode_speed" or speed.value <= 0:
        return None
    return device.power.watts / speed.value
