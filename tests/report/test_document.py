import json

import numpy as np
import pytest

from terazi import report
from terazi.errors import ExistsError
from terazi.report import documents
from terazi.report.documents import SCHEMA, _clean


def test_keys_are_those_that_the_documentation_names(document):
    assert document["schema"] == SCHEMA
    text = documents.__doc__ or ""
    for key in document:
        assert f"``{key}``" in text, key
    for key in document["variants"][0]:
        assert f"``{key}``" in text, key
    for key in document["recommendation"]:
        assert f"``{key}``" in text, key


def test_it_is_plain_json(document):
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_order_and_status(document):
    variants = document["variants"]
    assert [v["rank"] for v in variants if v["rank"]] == list(range(1, 5))
    by_label = {v["label"]: v for v in variants}
    assert variants[0]["status"] == "pick"
    assert document["recommendation"]["pick"] == variants[0]["label"]
    assert by_label["Q2_K"]["status"] == "rejected"
    assert "below the floor" in by_label["Q2_K"]["why"][0]
    assert by_label["IQ1_S"]["status"] == "failed"
    assert by_label["F16"]["source"]
    assert by_label["Q4_K_M"]["saved_16bit"] == 1 - 90e6 / (2 * 135e6)
    assert by_label["Q4_K_M"]["device_speed"]["estimated"]


def test_controls_and_direction_changes_are_taken_out(document):
    text = json.dumps(document, ensure_ascii=False)
    assert "\u202e" not in text
    assert "\\u001b" not in text


def test_a_comparison_has_no_judgement(recommendation, subject):
    compared = report.document(recommendation, subject, judged=False)
    assert compared["recommendation"] is None
    assert all(v["score"] is None and v["rank"] is None for v in compared["variants"])
    assert "variants compared" in report.page(compared)


def test_values_that_json_has_not(recommendation, subject):
    assert _clean({"a": np.float32(1.5), "b": float("nan"), "c": (1, "\ud800"), "d": np.array([1, 2])}) == {
        "a": 1.5,
        "b": None,
        "c": [1, "\ufffd"],
        "d": [1, 2],
    }


def test_the_method_states_conditions(recommendation):
    lines = " ".join(report.method(recommendation))
    assert "4 windows of 512 tokens" in lines
    assert "1 thread" in lines
    assert "0.60 × quality (half at a KL divergence of 0.1)" in lines


def test_written_files_are_whole_and_not_overwritten(document, tmp_path):
    html, values = report.write_report(document, tmp_path)
    assert json.loads(values.read_text()) == document
    assert html.read_text().startswith("<!doctype html>")
    with pytest.raises(ExistsError):
        report.write_report(document, tmp_path)
    report.write_report(document, tmp_path, force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
