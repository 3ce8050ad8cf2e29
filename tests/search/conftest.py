import pytest

from terazi.devices import Cpu, Device, Memory
from terazi.evaluate.measurement import METRICS, Measurement
from terazi.search import Candidate


@pytest.fixture(scope="session")
def variant():
    """Make a candidate with chosen figures: for tests of judgement, not of measurement."""

    def make(
        label="Q4_K_M", megabytes=100.0, *, bits=4.5, memory=None, type="Q4_K", token_bytes=None, **more
    ):
        values = {name: more.pop(name) for name in list(more) if name in METRICS}
        size = int(megabytes * 1e6)
        return Candidate(
            label=label,
            size=size,
            bits_per_weight=bits,
            memory_needed=int((memory or megabytes * 1.5) * 1e6),
            token_bytes=token_bytes or size,
            types={type: 900, "F32": 10},
            measurements=tuple(
                Measurement(
                    metric=metric, value=value, unit=METRICS[metric].unit, artifact="0" * 64, device="here"
                )
                for metric, value in values.items()
            ),
            **more,
        )

    return make


@pytest.fixture(scope="session")
def board():
    """Make a device with chosen figures."""

    def make(*, usable="8 GB", bandwidth="20 GB/s", **more):
        values = {
            "name": "test-board",
            "title": "Test Board",
            "memory": Memory(total="16 GB", usable=usable, bandwidth=bandwidth, source="chosen"),
            "cpu": Cpu(name="two cores", cores=2, architecture="aarch64"),
            "runtimes": ("llama.cpp", "onnxruntime"),
            "formats": ("gguf", "onnx"),
        }
        return Device(**values | more)

    return make
