"""The devices that llama.cpp finds on this machine, and where models go by them."""

import sys

import pytest

from terazi.errors import EngineError, UnsupportedError
from terazi.runtime.llamacpp import devices, open_engine


def test_the_processor_is_there():
    found = devices.compute_devices()
    assert [device.kind for device in found].count("cpu") == 1
    assert all(0 <= device.free <= device.total for device in found)
    assert found == [device for device in found if device.name]


def test_a_driver_that_crashes_is_an_error(monkeypatch, tmp_path):
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\nkill -SEGV $$\n")
    crashing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(crashing))
    with pytest.raises(EngineError, match="cannot tell its devices"):
        devices.compute_devices()


def test_where_a_model_would_run(smollm2, minilm):
    alone = devices.fit_check("m", smollm2, 4096, [])
    assert "on the processor; all 31 layers" in alone.found
    assert "31 of 31 layers fit in 8.0 GB" in devices.fit_check("m", smollm2, 4096, [8 * 10**9]).found
    part = devices.fit_check("m", smollm2, 4096, [(1 << 30) + 100 * 10**6]).found
    assert "10 of 31 layers" in part
    assert (
        devices.fit_check("m", smollm2, 1 << 24, []).state == "missing"
    )  # its cache is larger than this machine
    with pytest.raises(UnsupportedError, match="runs GGUF files"):
        devices.fit_check("m", minilm, 512, [])


@pytest.mark.parametrize("layers", [-1, 0, 7])
def test_layers_for_gpus_that_are_not_there(two_layers, layers):
    """A build without GPU support computes everything on the processor, whatever is asked for."""
    with open_engine(two_layers, threads=1, gpu_layers=layers) as engine:
        assert engine.generate("One", max_tokens=2).tokens == 2
