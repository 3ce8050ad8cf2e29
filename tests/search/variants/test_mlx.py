"""MLX variants beside the others: what is proposed, what stands in the way, how far its times count."""

from dataclasses import replace

import pytest

from terazi import devices, search
from terazi.devices import Budget
from terazi.errors import UsageError
from terazi.quantize import open_source
from terazi.search import recommend
from terazi.search.variants import family

CHAT = replace(devices.use_case("chat"), floors=Budget(), context=256)
EMBED = replace(devices.use_case("embeddings-search"), floors=Budget())
MAC = devices.device("apple-m-series")
PI = devices.device("raspberry-pi-5")


@pytest.mark.parametrize(("name", "expected"), [("mlx:4bit", "mlx:4bit"), ("MLX:Mixed_4_6", "mlx:mixed_4_6")])
def test_names_have_one_spelling(name, expected):
    assert search.variant_type(name) == expected


def test_unknown_names_are_usage_errors():
    with pytest.raises(UsageError, match="no MLX recipe"):
        search.variant_type("mlx:7bit")


def test_formats_are_chosen_by_name_or_by_what_the_device_runs(two_layers, minilm):
    writer, encoder = open_source(two_layers), open_source(minilm)

    def formats(source, device, use_case, **more):
        study = search.propose(source, "x", device, use_case, Budget(), **more)
        return [p.candidate.format for p in study.proposals if p.skipped is None], study.notes

    assert set(formats(writer, MAC, CHAT)[0]) == {"gguf"}
    assert set(formats(writer, MAC, CHAT, formats=("mlx",))[0][1:]) == {"mlx"}
    assert set(formats(writer, MAC, CHAT, thorough=True)[0]) == {"gguf", "onnx", "mlx"}
    assert set(formats(encoder, MAC, EMBED)[0]) == {"gguf", "onnx", "mlx"}
    found, notes = formats(encoder, PI, EMBED)
    assert set(found) == {"gguf", "onnx"}
    assert notes == ("MLX variants were left out: nothing on Raspberry Pi 5 (8 GB) runs MLX.",)
    with pytest.raises(UsageError, match="tflite"):
        formats(writer, MAC, CHAT, formats=("tflite",))


def test_what_cannot_be_made_or_run_says_why(two_layers, monkeypatch):
    def skipped(device):
        study = search.propose(
            open_source(two_layers), "x", device, CHAT, Budget(), types=("mlx:4bit", "mlx:mxfp8")
        )
        assert [p.candidate.precision for p in study.proposals[1:]] == ["low", "medium"]
        return study.proposals[1].skipped

    assert skipped(MAC) is None
    assert skipped(devices.this_machine()) is None
    assert "nothing on Raspberry Pi" in skipped(PI)
    monkeypatch.setattr(family, "_installed", lambda package: package != "mlx_lm")
    assert "terazi[mlx]" in skipped(MAC)


def _runs_on(candidate, runtime):
    return replace(
        candidate,
        measurements=tuple(replace(m, conditions={"runtime": runtime}) for m in candidate.measurements),
    )


def test_times_of_the_processor_build_never_count_for_a_mac(variant, board):
    """A fast time and a slow one must give the same score and the same words."""
    source = variant("F32", 90, bits=32, type="F32", source=True, prefill_speed=1000, latency=0.02)

    def judged(speed, place, detected):
        mlx = variant(
            "MLX 4-bit", 20, bits=4.5, type="F16", cosine=0.999, prefill_speed=speed, latency=1 / speed
        )
        mlx = replace(_runs_on(mlx, f"mlx-lm 1 (mlx 1, {place})"), format="mlx", level="low", token_bytes=0)
        device = replace(MAC, detected=detected)
        return recommend([replace(source, token_bytes=0), mlx], device, EMBED, Budget())

    def score(found):
        return next(entry.score for entry in found.ranked if entry.label == "MLX 4-bit")

    slow, fast = (judged(speed, "processor", False) for speed in (10, 100_000))
    assert score(slow) == score(fast)
    assert any("* MLX 4-bit ran in MLX's processor build" in note for note in slow.caveats)
    assert "times as" not in slow.framework.reason
    assert score(judged(10, "Metal", False)) < score(judged(100_000, "Metal", False))
    assert score(judged(10, "processor", True)) < score(judged(100_000, "processor", True))
    assert not any("processor build" in note for note in judged(10, "Metal", False).caveats)


def test_an_mlx_pick_names_its_engine(variant):
    source = variant("F16", 200, bits=16, type="F16", source=True, decode_speed=20, perplexity=9)
    mlx = variant("MLX 4-bit", 50, bits=4.5, type="F16", kl_divergence=0.01, agreement=0.95, decode_speed=5)
    mlx = replace(_runs_on(mlx, "mlx-lm 1 (mlx 1, processor)"), format="mlx", level="low")
    found = recommend([source, mlx], MAC, CHAT, Budget())
    assert found.pick is not None
    assert found.pick.label == "MLX 4-bit"
    assert found.pick.decode_speed.estimated
    assert found.framework.name == "mlx"
    assert "ran in mlx on this machine, not on the device itself" in found.framework.reason
    assert "times as" not in found.framework.reason
