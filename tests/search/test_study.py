"""What is proposed for a real model, before anything runs."""

import pytest

from terazi import devices, search
from terazi.devices import Budget
from terazi.errors import UsageError
from terazi.formats import open_model
from terazi.model.memory import kv_cache_bytes
from terazi.quantize import PRESETS, apply, open_source
from terazi.search.variants.gguf import of_model

CHAT = devices.use_case("chat")
PI = devices.device("raspberry-pi-5")


@pytest.fixture(scope="module")
def model(smollm2):
    return open_model(smollm2)


def test_predictions_are_what_is_written(model, tmp_path):
    study = search.propose(model, "smollm2", PI, CHAT, Budget(), types=("Q4_0", "Q8_0"))
    source, *variants = study.proposals
    assert source.candidate.source
    assert source.candidate.size == model.path.stat().st_size
    assert source.plan is None
    assert study.context == 4096
    for proposal in variants:
        path = tmp_path / f"{proposal.candidate.label}.gguf"
        apply(proposal.plan, model, path)
        made = of_model(open_model(path), "x", study.context)
        for name in ("size", "bits_per_weight", "memory_needed", "token_bytes", "types"):
            assert getattr(made, name) == getattr(proposal.candidate, name), name


def test_a_token_reads_the_tied_embedding_and_half_the_cache(model):
    study = search.propose(model, "smollm2", PI, CHAT, Budget(), types=())
    weights = sum(tensor.nbytes for tensor in model.tensors.values())
    assert "output.weight" not in model.tensors
    assert study.proposals[0].candidate.token_bytes == weights + kv_cache_bytes(model.config, 2048)


def test_what_cannot_fit_is_not_run(model):
    study = search.propose(model, "smollm2", PI, CHAT, Budget(max_size=95_000_000))
    skipped = {p.candidate.label: p.skipped for p in study.proposals if p.skipped}
    assert "more than the 95 MB asked for" in skipped["Q8_0"]
    assert {p.candidate.label for p in study.runnable} == {"Q4_1", "Q4_0", "Q3_K_M", "Q2_K"}


def test_presets_that_come_out_the_same_run_once(model):
    """SmolLM2's rows of 576 turn several presets into the same tensors; Q4_1 is the source itself."""
    study = search.propose(model, "smollm2", PI, CHAT, Budget(), types=tuple(PRESETS))
    kinds = {}
    for proposal in study.runnable:
        if proposal.plan is not None:
            types = tuple(entry.type for entry in proposal.plan.entries)
            assert types not in kinds, f"{proposal.candidate.label} repeats {kinds[types]}"
            kinds[types] = proposal.candidate.label
    reasons = {p.candidate.label: p.skipped for p in study.proposals if p.skipped}
    assert any("same types as" in reason for reason in reasons.values())
    assert len({p.candidate.label for p in study.proposals}) == len(study.proposals)


def test_types_that_a_browser_should_not_get(model):
    study = search.propose(
        model, "smollm2", devices.device("browser"), CHAT, Budget(), types=("IQ4_NL", "Q4_0")
    )
    skipped = {p.candidate.label: p.skipped for p in study.proposals}
    assert "should not run on Web browser" in skipped["IQ4_NL"]
    assert skipped["Q4_0"] is None


def test_a_hugging_face_directory_is_written_as_it_is_first(reference_9m):
    source = open_source(reference_9m)
    study = search.propose(source, "ref", PI, CHAT, Budget(), types=("Q4_K_M",))
    first = study.proposals[0]
    assert first.plan is not None
    assert first.candidate.label == first.candidate.main_type
    assert all(entry.type == entry.source_type for entry in first.plan.entries)
    assert study.context <= source.config.context_length


def test_models_that_write_are_not_for_search(model):
    with pytest.raises(UsageError, match="writes text"):
        search.propose(model, "smollm2", PI, devices.use_case("embeddings-search"), Budget())


def test_embedding_models_are_not_for_chat(minilm):
    source = open_source(minilm)
    with pytest.raises(UsageError, match="makes embeddings"):
        search.propose(source, "minilm", PI, CHAT, Budget())
    study = search.propose(source, "minilm", PI, devices.use_case("embeddings-search"), Budget())
    assert study.proposals[0].candidate.label == "F32"
