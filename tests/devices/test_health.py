from dataclasses import replace

import pytest

from terazi.devices import health, machine
from terazi.devices.device import Accelerator, ComputeDevice

CPU = ComputeDevice(name="CPU", description="a processor", kind="cpu", total=8 << 30, free=8 << 30)
GPU = ComputeDevice(name="CUDA0", description="NVIDIA RTX 4090", kind="gpu", total=24 << 30, free=20 << 30)


def test_everything_needed_is_here():
    found = {check.name: check for check in health.checks([CPU])}
    assert {"kernels", "llama.cpp", "processor", "memory", "store", "onnxruntime"} <= set(found)
    assert found["kernels"].state == found["llama.cpp"].state == "ok"
    assert all(check.fix for check in found.values() if check.state != "ok")


def test_another_engine_version_is_a_problem(monkeypatch):
    monkeypatch.setattr(health, "_version", lambda package: "1.0")
    check = health._llama_cpp()
    assert check.state == "problem"
    assert "1.0" in check.found
    assert check.fix.startswith("pip install xllamacpp==")


def test_a_store_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setenv("TERAZI_HOME", str(tmp_path / "deep" / "home"))
    monkeypatch.setattr(health.os, "access", lambda *_: False)
    check = health._store()
    assert check.state == "problem"
    assert "TERAZI_HOME" in check.fix


def test_gpus_that_llama_cpp_uses():
    (check,) = health._gpus([CPU, GPU])
    assert check.state == "ok"
    assert check.found == "CUDA0: NVIDIA RTX 4090, 21.5 of 25.8 GB free"


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("NVIDIA RTX 4090", "cu128"),
        ("AMD GPU at /dev/dri/renderD128", "rocm"),
        ("GPU at /dev/dri/x", "vulkan"),
    ],
)
def test_gpus_that_another_build_would_use(monkeypatch, name, build):
    there = replace(machine.this_machine(), accelerators=(Accelerator(name=name, kind="gpu"),))
    monkeypatch.setattr(health, "this_machine", lambda: there)
    (check,) = health._gpus([CPU])
    assert check.state == "missing"
    assert name in check.found
    assert "xllamacpp==" in check.fix
    assert f"whl/{build}" in check.fix


def test_without_gpus_or_an_answer(monkeypatch):
    there = replace(machine.this_machine(), accelerators=())
    monkeypatch.setattr(health, "this_machine", lambda: there)
    assert "models run on the processor" in next(health._gpus([CPU])).found
    assert "cannot be asked" in next(health._gpus(None)).found
