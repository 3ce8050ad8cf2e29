"""The loop on real files in the real engine: reuse, interruption, a variant that does not run."""

import os
from dataclasses import replace

import pytest

from terazi import devices, search
from terazi.devices import Budget
from terazi.errors import EngineError
from terazi.formats import open_model
from terazi.search.variants.family import Contents
from terazi.search.workspace import Finding

SETTINGS = search.Settings(tokens=64, window=32, threads=1, answer_tokens=6)
FREE = replace(devices.use_case("chat"), floors=Budget(), prompts=("Say hello.",), context=256)


@pytest.fixture(scope="module")
def study(two_layers):
    return search.propose(
        open_model(two_layers),
        "two",
        devices.device("raspberry-pi-5"),
        FREE,
        Budget(),
        types=("Q8_0", "Q4_0"),
    )


@pytest.fixture
def work(study):
    return search.open_workspace(study, SETTINGS), search.real_tools(study, SETTINGS)


def counting(tools, calls):
    """The real tools, with a list of what was called."""

    def quantize(plan, path):
        calls.append(("quantize", plan.preset))
        return tools.quantize(plan, path)

    def evaluate(path, reference):
        calls.append(("evaluate", path.name))
        return tools.evaluate(path, reference)

    return search.Tools(quantize=quantize, evaluate=evaluate, ask=tools.ask)


def test_finished_work_is_reused(study, work):
    workspace, tools = work
    calls = []

    def stopping(plan, path):
        if plan.preset == "Q4_0":
            raise KeyboardInterrupt
        return tools.quantize(plan, path)

    with pytest.raises(KeyboardInterrupt):
        search.optimize(study, replace(counting(tools, calls), quantize=stopping), workspace)
    assert len(calls) == 2  # the source and Q8_0 were measured before the interruption
    calls.clear()
    found = search.optimize(study, counting(tools, calls), workspace)
    assert [call for call in calls if call[0] == "quantize"] == [("quantize", "Q4_0")]
    assert len(calls) == 2
    calls.clear()
    workspace.tidy()
    again = search.optimize(study, counting(tools, calls), workspace)
    assert not calls
    assert [(e.candidate.label, e.score) for e in again.ranked] == [
        (e.candidate.label, e.score) for e in found.ranked
    ]
    best = again.pick
    assert best is not None
    assert search.pick_file(again, study, tools, workspace) is not None

    ran = {entry.candidate.label: entry.candidate for entry in found.ranked}
    assert set(ran) == {"Q4_1", "Q8_0", "Q4_0"}
    for label, candidate in ran.items():
        assert candidate.measured("decode_speed").value > 0
        assert candidate.measured("peak_memory").value > 1e6
        assert candidate.samples[0].prompt == "Say hello."
        assert label == "Q4_1" or candidate.measured("kl_divergence").value > 0
    assert ran["Q8_0"].value("kl_divergence") < ran["Q4_0"].value("kl_divergence")


def test_other_settings_measure_again(study, work):
    workspace, _ = work
    other = search.open_workspace(study, replace(SETTINGS, tokens=128))
    key = study.proposals[1].plan.digest
    held = Contents(size=1, weights=1, read=1, types={"Q8_0": 1})
    workspace.write(key, Finding("0" * 64, held, (), ()))
    assert workspace.read(key) is not None
    assert other.read(key) is None
    assert workspace.file("Q8_0", key) == other.file("Q8_0", key)


def test_a_damaged_record_counts_as_absent(study, work):
    workspace, _ = work
    key = study.proposals[2].plan.digest
    for text in ("", "{", "[]", '{"digest": 1, "contents": {}, "measurements": [], "samples": []}'):
        workspace.folder.mkdir(parents=True, exist_ok=True)
        workspace._record(key).write_text(text)
        assert workspace.read(key) is None


def test_a_variant_that_does_not_run_stays_with_the_reason(study, two_layers, tmp_path):
    workspace = search.Workspace(study.digest, {"test": "broken"}, root=tmp_path)
    tools = search.real_tools(study, SETTINGS)

    def damaging(plan, path):
        tools.quantize(plan, path)
        if plan.preset == "Q4_0":
            os.truncate(path, path.stat().st_size // 2)

    found = search.optimize(study, replace(tools, quantize=damaging), workspace)
    (rejection,) = found.rejected
    assert rejection.candidate.label == "Q4_0"
    assert rejection.candidate.failure
    assert "Q4_0" in rejection.reasons[0]
    assert {entry.candidate.label for entry in found.ranked} == {"Q4_1", "Q8_0"}


def test_a_source_that_does_not_run_is_an_error(study, tmp_path):
    workspace = search.Workspace(study.digest, {"test": "source"}, root=tmp_path)
    tools = search.real_tools(study, SETTINGS)

    def crash(path, reference):
        raise EngineError("the engine crashed")

    with pytest.raises(EngineError, match="crashed"):
        search.optimize(study, replace(tools, evaluate=crash), workspace)


def test_delivering_replaces_whole_files(tmp_path):
    source, target = tmp_path / "a.gguf", tmp_path / "b.gguf"
    source.write_bytes(b"new")
    target.write_bytes(b"old")
    assert search.deliver(source, target) == target
    assert target.read_bytes() == b"new"
    source.unlink()
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]
