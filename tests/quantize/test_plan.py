"""Plans: exact sizes, JSON that can be edited, digests, notes, and requests that make no sense."""

import json

import numpy as np
import pytest

from terazi.errors import FormatError, UnsupportedError, UsageError
from terazi.quantize import PRESETS, Plan, apply, make_plan
from terazi.quantize.mixture import is_quantizable, loader_order, row_fallback


def types(plan):
    return {entry.name: entry.type for entry in plan.entries}


def test_order_is_the_loaders(small):
    names = [entry.name for entry in make_plan(small, "Q8_0").entries]
    assert names == sorted(small.tensors, key=loader_order)
    assert names[:2] == ["output_norm.weight", "token_embd.weight"]
    assert loader_order("blk.9.a") < loader_order("blk.10.a")


def test_vectors_norms_and_routers_keep_their_type(small, make_model, numbers):
    kept = {e.name for e in make_plan(small, "Q4_0").entries if e.reason == "kept"}
    assert kept == {name for name in small.tensors if "norm" in name}
    model = make_model(
        {"blk.0.ffn_gate_inp.weight": numbers(4, 256), "blk.0.ssm_conv1d.weight": numbers(4, 256)}
    )
    assert not any(is_quantizable(tensor, "llama") for tensor in model.tensors.values())


def test_size_is_exact(small, tmp_path):
    for name in ("F32", "F16", "Q8_0", "Q4_K_M", "Q5_1"):
        plan = make_plan(small, name)
        path = apply(plan, small, tmp_path / "out.gguf", force=True).path
        assert path.stat().st_size == plan.size


def test_json_comes_back_the_same(small):
    plan = make_plan(small, "Q4_K_M")
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.digest == plan.digest == json.loads(plan.to_json())["digest"]


def test_an_edited_plan_is_carried_out(small, tmp_path):
    plan = make_plan(small, "Q4_K_M")
    fields = json.loads(plan.to_json())
    (down,) = [t for t in fields["tensors"] if t["name"] == "blk.1.ffn_down.weight"]
    down["type"] = "q8_0"
    edited = Plan.from_json(json.dumps(fields))
    assert edited.digest != plan.digest
    assert edited == plan.with_types({"blk.1.ffn_down.weight": "Q8_0"}) or types(edited) == types(
        plan.with_types({"blk.1.ffn_down.weight": "Q8_0"})
    )
    artifact = apply(edited, small, tmp_path / "out.gguf")
    assert artifact.size == edited.size > plan.size


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"terazi_plan": 7}, "version 7"),
        ({"preset": "Q9"}, "unknown preset"),
        ({"tensors": [{"name": "a"}]}, "not a plan"),
        ({"tensors": 3}, "not a plan"),
        (
            {
                "tensors": [
                    {"name": "a", "shape": [-1], "source_type": "F32", "type": "F32", "reason": "", "part": 0}
                ]
            },
            "impossible shape",
        ),
        ({"importance": {"digest": 1}}, "not a plan"),
    ],
)
def test_damaged_plans_are_refused(small, change, problem):
    fields = json.loads(make_plan(small, "Q8_0").to_json()) | change
    with pytest.raises(FormatError, match=problem):
        Plan.from_json(json.dumps(fields))


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense", '{"terazi_plan": 1}', "[" * 100_000, b"\xff"])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(FormatError, match="not a plan"):
        Plan.from_json(text)


@pytest.mark.parametrize("type", ["Q8_K", "I32", "Q7"])
def test_impossible_types_in_a_plan_are_refused(small, type):
    fields = json.loads(make_plan(small, "Q8_0").to_json())
    fields["tensors"][-1]["type"] = type
    with pytest.raises(FormatError, match=rf"plan: .*{type}"):
        Plan.from_json(json.dumps(fields))


def test_types_by_name_win_over_the_mixture_in_order(small):
    plan = make_plan(small, "Q4_K_M", overrides=(("ffn_.*", "Q8_0"), ("ffn_down", "Q2_K")))
    assert {type for name, type in types(plan).items() if "ffn_" in name and "norm" not in name} == {"Q8_0"}
    assert types(plan)["blk.1.attn_v.weight"] == "Q6_K"


def test_types_by_role_win_over_types_by_name(small):
    plan = make_plan(small, "Q4_K_M", overrides=(("token_embd", "Q8_0"),), token_embedding_type="q5_0")
    assert types(plan)["token_embd.weight"] == "Q5_0"


def test_a_pattern_that_matches_nothing_is_said(small):
    plan = make_plan(small, "Q4_0", overrides=(("no_such", "Q8_0"),))
    assert any("no_such" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"overrides": (("(", "Q8_0"),)}, "regular expression"),
        ({"overrides": (("a", "Q8_9"),)}, "unknown type"),
        ({"overrides": (("a", "Q8_K"),)}, "not a type to quantize to"),
        ({"token_embedding_type": "I8"}, "not a type to quantize to"),
        ({"keep_split": True}, "no split to keep"),
    ],
)
def test_senseless_options_are_refused(small, options, problem):
    with pytest.raises(UsageError, match=problem):
        make_plan(small, "Q4_0", **options)


def test_types_by_name_need_a_quantized_preset(small):
    with pytest.raises(UsageError, match="F16"):
        make_plan(small, "F16", overrides=(("ffn", "Q8_0"),))


def test_odd_rows_take_another_type_and_say_so(make_model, numbers):
    model = make_model(
        {
            "token_embd.weight": numbers(4, 256),
            "blk.0.attn_q.weight": numbers(4, 96),
            "blk.0.attn_k.weight": numbers(4, 40),
        }
    )
    plan = make_plan(model, "Q4_K_M")
    assert types(plan) == {
        "token_embd.weight": "Q6_K",
        "blk.0.attn_q.weight": "Q5_0",
        "blk.0.attn_k.weight": "F16",
    }
    assert "2 of 3 tensors" in plan.notes[0]


@pytest.mark.parametrize(("preset", "name"), [("Q1_0", "attn_q"), ("Q1_0", "attn_k")])
def test_rows_that_nothing_fits_are_listed(make_model, numbers, preset, name):
    model = make_model({f"blk.0.{name}.weight": numbers(4, 96), "token_embd.weight": numbers(4, 256)})
    with pytest.raises(UsageError, match=rf"multiples of 128.*blk\.0\.{name}\.weight.*96"):
        make_plan(model, preset)


@pytest.mark.parametrize("name", PRESETS)
def test_fallbacks_always_fit(name):
    type = PRESETS[name].type
    for columns in (1, 32, 96, 256, 320, 4096):
        chosen = row_fallback(type, columns)
        if chosen is None:
            assert type == "Q1_0"
        elif columns % 32:
            assert chosen in ("F16", type)


def test_an_already_quantized_source_is_said(small, tmp_path):
    from terazi.formats import open_model

    first = apply(make_plan(small, "Q4_0"), small, tmp_path / "q4.gguf").path
    again = make_plan(open_model(first), "Q5_0")
    assert any("already quantized (" in note for note in again.notes)
    assert not any("already" in note for note in make_plan(open_model(first), "Q4_0").notes)


def test_integers_cannot_be_quantized(make_model):
    model = make_model({"blk.0.attn_q.weight": np.ones((4, 256), np.int32)})
    with pytest.raises(UnsupportedError, match=r"blk\.0\.attn_q\.weight is stored as I32"):
        make_plan(model, "Q4_0")


def test_missing_importance_is_counted_and_listed(small, tmp_path):
    plan = make_plan(small, "IQ2_XS")
    assert any("need an importance matrix" in note for note in plan.notes)
    assert "token_embd.weight" not in {entry.name for entry in plan.without_importance(None)}
    with pytest.raises(UsageError, match=r"IQ2_XS needs .*blk\.0\.attn_k\.weight .* and \d+ more") as caught:
        apply(plan, small, tmp_path / "out.gguf")
    assert "terazi calibrate" in caught.value.hint
    assert not list(tmp_path.iterdir())
