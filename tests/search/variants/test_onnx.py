"""ONNX variants beside GGUF presets: what is proposed, made, judged, delivered and cleaned up."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi import devices, search
from terazi.devices import Budget
from terazi.errors import ExistsError, UsageError
from terazi.quantize import open_source
from terazi.search import recommend
from terazi.search.variants import family

EMBED = replace(devices.use_case("embeddings-search"), floors=Budget())
PI = devices.device("raspberry-pi-5")


@pytest.fixture(scope="module")
def encoder(minilm):
    return open_source(minilm)


@pytest.fixture
def embedder(variant):
    """Make an encoder's variant with chosen figures."""

    def make(label, megabytes, bits, *, cosine=None, speed=1000, latency=0.01, **more):
        made = variant(label, megabytes, bits=bits, prefill_speed=speed, latency=latency, **more)
        if cosine is not None:
            made = variant(
                label, megabytes, bits=bits, prefill_speed=speed, latency=latency, cosine=cosine, **more
            )
        return replace(made, token_bytes=0)

    return make


@pytest.mark.parametrize(
    ("name", "expected"),
    [("INT8", "onnx:int8"), ("onnx:F32", "onnx:f32"), ("q4_k_m", "Q4_K_M"), ("F32", "F32")],
)
def test_names_have_one_spelling(name, expected):
    assert search.variant_type(name) == expected


@pytest.mark.parametrize("name", ["onnx:none", "onnx:", "nothing"])
def test_unknown_names_are_usage_errors(name):
    with pytest.raises(UsageError):
        search.variant_type(name)


def test_an_encoder_directory_is_proposed_in_both_formats(encoder):
    study = search.propose(encoder, "minilm", PI, EMBED, Budget())
    by_label = {p.candidate.label: p for p in study.proposals}
    assert {"F32", "Q8_0", "ONNX F32", "ONNX int8", "ONNX int4"} <= set(by_label)
    assert by_label["ONNX int8"].candidate.precision == "medium"
    assert by_label["ONNX int4"].candidate.precision == "low"
    digests = [p.plan.digest for p in study.proposals if isinstance(p.plan, search.RecipePlan)]
    assert len(set(digests)) == 3
    assert all(p.candidate.token_bytes == 0 for p in study.proposals)


def test_what_cannot_be_made_or_run_says_why(encoder, two_layers, monkeypatch):
    def skipped(source, device, use_case=EMBED):
        study = search.propose(source, "x", device, use_case, Budget(), types=("int8",))
        return study.proposals[-1].skipped

    assert skipped(open_source(two_layers), PI, devices.use_case("chat")) is None
    assert "runs ONNX" in skipped(encoder, replace(PI, formats=("gguf",)))
    assert skipped(encoder, PI) is None
    monkeypatch.setattr(family, "_installed", lambda package: package != "torch")
    assert "terazi[hf]" in skipped(encoder, PI)


def test_an_onnx_pick_names_its_engine_and_why(embedder, board):
    source = embedder("F32", 90, 32, type="F32", source=True, latency=0.02)
    small = embedder("Q8_0", 25, 8.5, type="Q8_0", cosine=0.9996, speed=2000, latency=0.012)
    fast = embedder("ONNX int8", 22, 8, type="I8", cosine=0.9996, speed=9000, latency=0.004, format="onnx")
    for detected in (True, False):
        found = recommend([source, small, fast], board(detected=detected), EMBED, Budget())
        assert found.pick is not None
        assert found.pick.label == "ONNX int8"
        assert found.framework.name == "onnxruntime"
        assert found.framework.measured
        assert (
            "3.0 times as fast as the best llama.cpp variant (Q8_0; 4.0 ms a sentence"
            in found.framework.reason
        )
        words = " ".join((*found.reasons, *found.against, *found.caveats))
        assert "read 9,000 tokens/s here, one sentence in 4.0 ms" in words
        assert "KV cache" not in words
        assert "generat" not in words
        assert ("measured on this machine, not on" in words) is not detected


@given(
    cosine=st.floats(0.5, 0.999),
    speed=st.floats(1, 1e5),
    by=st.floats(0.1, 0.9),
    better=st.sampled_from(["cosine", "speed", "size"]),
    detected=st.booleans(),
)
def test_a_better_encoder_never_scores_lower(variant, board, cosine, speed, by, better, detected):
    def scored(cosine, speed, bits):
        made = variant("x", 100, bits=bits, cosine=cosine, prefill_speed=speed)
        found = recommend([replace(made, token_bytes=0)], board(detected=detected), EMBED, Budget())
        assert found.pick is not None
        assert found.pick.energy is None
        return found.pick.score

    old = scored(cosine, speed, 8)
    new = {
        "cosine": scored(1 - (1 - cosine) * by, speed, 8),
        "speed": scored(cosine, speed / by, 8),
        "size": scored(cosine, speed, 8 * by),
    }
    assert new[better] >= old


def test_directories_are_delivered_whole_and_replace_only_models(tmp_path):
    made, target = tmp_path / "made", tmp_path / "target"
    for folder, text in ((made, "new"), (target, "old")):
        folder.mkdir()
        (folder / "model.onnx").write_text(text)
    (target / "left.txt").touch()
    search.deliver(made, target)
    assert [path.name for path in target.iterdir()] == ["model.onnx"]
    assert (target / "model.onnx").read_text() == "new"
    (target / "model.onnx").unlink()
    with pytest.raises(ExistsError):
        search.deliver(made, target)
    assert {path.name for path in tmp_path.iterdir()} == {"made", "target"}


@pytest.mark.slow
def test_a_real_encoder_in_both_formats(encoder, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(
        "\n\n".join(f"Sentence {n} tells of {n * 7} boats that crossed the bay." for n in range(12))
    )
    settings = search.Settings(tokens=64, text=text, threads=1)
    names = ("Q8_0", "onnx:f32", "onnx:w8")
    study = search.propose(encoder, "minilm", PI, EMBED, Budget(), types=names)
    workspace = search.Workspace(study.digest, {"test": "onnx"}, root=tmp_path / "work")
    tools = search.real_tools(study, settings)
    calls = []

    def stopping(plan, path):
        calls.append(plan)
        if isinstance(plan, search.RecipePlan) and plan.recipe == "w8":
            raise KeyboardInterrupt
        return tools.quantize(plan, path)

    with pytest.raises(KeyboardInterrupt):
        search.optimize(study, replace(tools, quantize=stopping), workspace)
    assert len(calls) == 4
    calls.clear()

    def counting(plan, path):
        calls.append(plan)
        return tools.quantize(plan, path)

    found = search.optimize(study, replace(tools, quantize=counting), workspace)
    assert [plan.label for plan in calls] == ["ONNX w8"]
    ran = {entry.label: entry.candidate for entry in found.ranked}
    assert set(ran) == {"F32", "Q8_0", "ONNX F32", "ONNX w8"}
    for label, candidate in ran.items():
        assert candidate.measured("latency").value > 0, label
        assert candidate.measured("prefill_speed").value > 0, label
        assert candidate.value("cosine") > 0.995, label
    small = ran["ONNX w8"]
    assert 22e6 < small.size < 25e6
    assert small.memory_needed == small.measured("peak_memory").value
    assert 8 < small.bits_per_weight < 8 * small.size / encoder.parameters
    assert small.operators["MatMulNBits"] > 30
    assert small.exported["Add"] > ran["ONNX F32"].operators.get("Add", 0)
    assert small.precision == "medium"
    workspace.tidy()
    assert not [path for path in workspace.folder.iterdir() if path.suffix != ".json"]
