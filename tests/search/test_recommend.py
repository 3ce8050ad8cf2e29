"""The judgement itself, on chosen figures: limits, score, reasons. Nothing runs here."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi import devices
from terazi.devices import Accelerator, Budget, Limits, Power
from terazi.search import Candidate, recommend
from terazi.search.estimates import EFFICIENCY
from terazi.search.limits import violations

CHAT = devices.use_case("chat")
FREE = replace(CHAT, floors=Budget())


@pytest.fixture(scope="module")
def series(variant):
    """A source and four variants that trade quality for size."""
    return [
        variant("F16", 270, bits=16, type="F16", source=True, perplexity=20.0, decode_speed=20),
        variant("Q8_0", 145, bits=8.5, type="Q8_0", kl_divergence=0.001, agreement=0.99, decode_speed=35),
        variant("Q4_K_M", 90, bits=4.9, kl_divergence=0.03, agreement=0.92, decode_speed=50),
        variant("Q3_K_M", 75, bits=3.9, type="Q3_K", kl_divergence=0.12, agreement=0.84, decode_speed=52),
        variant("Q2_K", 60, bits=2.9, type="Q2_K", kl_divergence=0.7, agreement=0.6, decode_speed=55),
    ]


def test_reasons_say_why_this_and_why_not_the_next_two(series, board):
    found = recommend(series, board(power=Power(watts=8, source="assumed")), CHAT, Budget())
    assert found.pick is not None
    assert found.pick.score == max(entry.score for entry in found.ranked)
    words = " ".join(found.reasons)
    assert "Test Board" in words
    assert "Estimated from memory bandwidth" in words
    assert "J per token" in words
    assert len(found.against) == 2
    for text, entry in zip(found.against, found.ranked[1:3], strict=True):
        assert entry.candidate.label in text
    assert not found.changes


def test_use_cases_pick_differently(series, board):
    tight = board(bandwidth="2 GB/s")
    picks = {
        name: recommend(series, tight, replace(devices.use_case(name), floors=Budget()), Budget()).pick
        for name in ("research", "chat", "extreme-mobile")
    }
    bits = [pick.candidate.bits_per_weight for pick in picks.values() if pick]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] > bits[-1]


def test_a_source_that_is_quantized_is_called_so(series, board, variant):
    source = variant("Q4_1", 98, bits=5, type="Q4_1", source=True, perplexity=20.0)
    found = recommend([source, *series[1:]], board(), CHAT, Budget())
    assert any("already quantized (mostly Q4_1)" in caveat for caveat in found.caveats)
    assert not any("already quantized" in c for c in recommend(series, board(), CHAT, Budget()).caveats)


def test_speed_elsewhere_is_an_estimate_from_bandwidth_and_here_a_measurement(series, board):
    there = recommend(series, board(bandwidth="10 GB/s"), FREE, Budget())
    here = recommend(series, board(detected=True), FREE, Budget())
    for entry in there.ranked:
        assert entry.decode_speed is not None
        assert entry.decode_speed.estimated
        assert entry.decode_speed.value == pytest.approx(EFFICIENCY * 10e9 / entry.candidate.token_bytes)
        assert entry.decode_speed.device == "test-board"
    for entry in here.ranked:
        assert entry.decode_speed is entry.candidate.measured("decode_speed")
        assert entry.energy is None


def test_every_limit_rejects_with_its_reason(board, variant):
    device = board(limits=Limits(file_size="90 MB", avoid_types=("IQ*",), reason="slow there"))
    budget = Budget(
        max_size=50_000_000,
        max_memory=60_000_000,
        min_speed=500,
        min_agreement=0.9,
        max_kl=0.01,
        min_cosine=0.9,
    )
    bad = variant("X", 100, type="IQ4_XS", kl_divergence=0.2, agreement=0.8, cosine=0.5, decode_speed=10)
    reasons = [problem.reason for problem in violations(bad, device, budget, 4096)]
    assert len(reasons) == 8
    for words in (
        "100 MB are more than the 50 MB asked for",
        "one file may have at most 90 MB",
        "150 MB at 4,096 tokens of context, more than the 60 MB asked for",
        "IQ4_XS should not run on Test Board: slow there",
        "tokens/s is below the floor of 500",
        "agreement with the reference of 0.800 is below the floor of 0.9",
        "cosine to the reference of 0.500",
        "KL divergence of 0.2 nats is above the limit of 0.01",
    ):
        assert any(words in reason for reason in reasons), words


def test_what_was_not_measured_does_not_pass_a_limit_on_it(board, variant):
    bare = variant("X", perplexity=9.0)
    for budget in (Budget(min_agreement=0.1), Budget(max_kl=9), Budget(min_cosine=0.1)):
        (problem,) = violations(bare, board(), budget, 512)
        assert "not measured" in problem.reason
    assert "speed" in violations(bare, board(detected=True), Budget(min_speed=1), 512)[0].reason


def test_a_variant_that_never_ran_is_judged_by_predictions_only(board, variant):
    assert violations(variant("X"), board(), Budget(min_agreement=0.9), 512) == []
    (problem,) = violations(variant("X"), board(usable="100 MB"), Budget(min_agreement=0.9), 512)
    assert "needs 150 MB" in problem.reason


def test_nothing_fits(series, board):
    found = recommend(series, board(), CHAT, Budget(max_size=70_000_000))
    assert found.pick is None
    assert found.ranked == ()
    assert len(found.rejected) == len(series)
    assert all(entry.reasons for entry in found.rejected)
    assert "No variant keeps every limit" in found.reasons[0]
    assert found.changes
    assert any("a size limit of 75 MB" in change for change in found.changes)


@given(data=st.data())
def test_the_change_that_is_proposed_is_enough(series, board, data):
    """Following the first proposal for a single broken limit admits that variant."""
    limit = data.draw(st.integers(1_000_000, 59_000_000))
    found = recommend(series[1:], board(), FREE, Budget(max_size=limit))
    assert "Q2_K would need a size limit of 60 MB." in found.changes
    again = recommend(series[1:], board(), FREE, Budget(max_size=60_000_000))
    assert again.pick is not None
    assert again.pick.candidate.label == "Q2_K"


def test_a_failed_variant_is_kept_with_the_reason(series, board):
    broken = replace(series[2], failure="the engine crashed (SIGSEGV) during 'open'", measurements=())
    found = recommend([*series[:2], broken], board(), CHAT, Budget())
    (rejection,) = found.rejected
    assert rejection.reasons == ("the engine crashed (SIGSEGV) during 'open'",)
    assert "Q4_K_M" not in found.beaten_by
    assert any("Q4_K_M" in caveat for caveat in found.caveats)


def test_memory_of_a_gpu_counts_for_what_fits_there(board, variant):
    gpu = Accelerator(name="GPU", kind="gpu", memory="24 GB", bandwidth="1000 GB/s")
    large = variant("X", 12_000, memory=20_000, kl_divergence=0.1)
    found = recommend([large], board(accelerators=(gpu,)), FREE, Budget())
    assert found.pick is not None
    assert found.pick.decode_speed is not None
    assert found.pick.decode_speed.conditions["place"] == "GPU"
    assert recommend([large], board(), FREE, Budget()).pick is None


def test_frameworks_follow_the_device(series):
    def name(device):
        return recommend(series, devices.device(device), FREE, Budget()).framework

    board = name("raspberry-pi-5")
    assert board.name == "llama.cpp"
    assert board.measured
    assert "measured on this machine, not on the device itself" in board.reason
    apple = name("apple-m-series")
    assert apple.name == "mlx"
    assert not apple.measured
    assert "Nothing was measured with it here" in apple.reason
    assert "--formats gguf,mlx measures it" in apple.reason
    assert any(other == "llama.cpp" and "measured in it" in why for other, why in apple.alternatives)
    assert name("browser").name == "wllama"


FIGURES = st.tuples(
    st.floats(10, 5000),  # MB
    st.floats(1.5, 16),  # bits
    st.floats(0, 3),  # KL divergence
    st.floats(0, 1),  # agreement
    st.floats(1, 300),  # tokens/s
)


def made(variant, label, figures) -> Candidate:
    megabytes, bits, kl, agreement, speed = figures
    return variant(label, megabytes, bits=bits, kl_divergence=kl, agreement=agreement, decode_speed=speed)


@given(figures=st.lists(FIGURES, min_size=1, max_size=8), detected=st.booleans())
def test_the_pick_keeps_every_limit_and_is_on_the_front(variant, board, figures, detected):
    candidates = [made(variant, f"V{index}", entry) for index, entry in enumerate(figures)]
    # Smaller files have fewer bits per weight, as they do for variants of one model.
    candidates = [replace(c, bits_per_weight=c.size / 3e8) for c in candidates]
    device = board(detected=detected, usable="4 GB")
    budget = Budget(max_size=2_000_000_000, min_agreement=0.3)
    found = recommend(candidates, device, CHAT, budget)
    assert len(found.ranked) + len(found.rejected) == len(candidates)
    for entry in found.ranked:
        assert not violations(entry.candidate, device, found.budget, found.context)
    if found.pick is not None:
        others = [entry.candidate for entry in found.ranked]
        alone = recommend(others, device, CHAT, budget)
        assert alone.pick is not None
        assert alone.pick.candidate.label not in alone.beaten_by
    else:
        assert found.reasons


@given(figures=FIGURES, better=st.sampled_from(["kl", "size", "speed"]), by=st.floats(0.1, 0.9))
def test_better_in_one_respect_never_scores_lower(variant, board, figures, better, by):
    megabytes, bits, kl, agreement, speed = figures
    changed = {
        "kl": (megabytes, bits, kl * by, agreement, speed),
        "size": (megabytes * by, bits * by, kl, agreement, speed),
        "speed": (megabytes, bits, kl, agreement, speed / by),
    }[better]
    device = board(detected=True, usable="8 GB")
    found = recommend([made(variant, "old", figures), made(variant, "new", changed)], device, FREE, Budget())
    scores = {entry.candidate.label: entry.score for entry in found.ranked}
    assert scores["new"] >= scores["old"]


@given(figures=st.lists(FIGURES, min_size=2, max_size=6), looser=st.integers(1, 5))
def test_a_looser_limit_never_loses_a_variant(variant, board, figures, looser):
    candidates = [made(variant, f"V{index}", entry) for index, entry in enumerate(figures)]
    tight = Budget(max_size=500_000_000, max_kl=0.5)
    loose = Budget(max_size=500_000_000 * looser, max_kl=0.5 * looser)

    def fitting(budget):
        return {e.candidate.label for e in recommend(candidates, board(), FREE, budget).ranked}

    assert fitting(tight) <= fitting(loose)


@given(figures=st.lists(FIGURES, min_size=2, max_size=6))
def test_another_variant_never_reorders_the_rest(variant, board, figures):
    candidates = [made(variant, f"V{index}", entry) for index, entry in enumerate(figures)]
    full = recommend(candidates, board(), FREE, Budget())
    fewer = recommend(candidates[:-1], board(), FREE, Budget())
    order = [e.candidate.label for e in full.ranked if e.candidate.label != candidates[-1].label]
    assert order == [entry.candidate.label for entry in fewer.ranked]
