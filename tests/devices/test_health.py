from terazi.devices import health


def test_everything_needed_is_here():
    found = {check.name: check for check in health.checks()}
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
