"""Whole files are those of llama.cpp's own quantize: same types, order, metadata and bytes.

The recorded digests come from ``tests/golden/record_quantize_parity.py``. With TERAZI_LIBLLAMA naming a
libllama, slow tests compare with it directly, on real models too.
"""

import json
import os
from pathlib import Path

import pytest
from libllama import LibLlama
from parity_models import MODELS, OPTIONS
from record_quantize_parity import digest, reference

from terazi.errors import UsageError
from terazi.formats import gguf, open_model
from terazi.quantize import PRESETS, apply, make_plan, open_source

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "quantize_parity.json").read_text())
LIBRARY = os.environ.get("TERAZI_LIBLLAMA")
needs_library = pytest.mark.skipif(not LIBRARY, reason="TERAZI_LIBLLAMA names no build of libllama")


def own(source, output, tiny, preset, *, weighed, options=None):
    """Quantize as `reference` does; None where the request is refused."""
    model = open_model(source)
    calibration = tiny.importance() if weighed else None
    try:
        plan = make_plan(model, preset, calibration=calibration, **(options or {}))
        artifact = apply(plan, model, output, calibration=calibration, force=True, threads=1)
    except UsageError:
        return None
    assert artifact.size == plan.size == output.stat().st_size
    return artifact.path


@pytest.mark.parametrize("name", MODELS)
def test_every_preset_gives_the_recorded_file(name, tmp_path):
    tiny = MODELS[name]
    source = tiny.write(tmp_path / "source.gguf")
    assert digest(source) == RECORDED["models"][name]["source"], "the tiny model itself is another"
    for preset in PRESETS:
        for weighed in (False, True):
            made = own(source, tmp_path / "made.gguf", tiny, preset, weighed=weighed)
            found = digest(made) if made else None
            assert found == RECORDED["models"][name]["presets"][preset][weighed], (preset, weighed)


@pytest.mark.parametrize("name", OPTIONS)
def test_options_give_the_recorded_file(name, tmp_path):
    model, preset, options = OPTIONS[name]
    source = MODELS[model].write(tmp_path / "source.gguf")
    made = own(source, tmp_path / "made.gguf", MODELS[model], preset, weighed=True, options=options)
    assert digest(made) == RECORDED["options"][name]


def test_all_that_was_recorded_is_tested():
    assert RECORDED["models"].keys() == MODELS.keys()
    assert RECORDED["options"].keys() == OPTIONS.keys()
    assert all(entry["presets"].keys() == PRESETS.keys() for entry in RECORDED["models"].values())


@pytest.mark.slow
@needs_library
def test_split_files_stay_split(tmp_path):
    tiny = MODELS["llama"]
    whole = open_model(tiny.write(tmp_path / "source.gguf"))
    tensors = list(whole.tensors.values())
    split = gguf.split_by_size(tensors, 100_000)
    source = gguf.write(tmp_path / "parts.gguf", whole.metadata, tensors, split=split)
    assert len(open_model(source).files) == 3
    LibLlama(LIBRARY).quantize(source, tmp_path / "theirs", PRESETS["Q4_K_M"].file_type, keep_split=True)
    model = open_model(source)
    artifact = apply(make_plan(model, "Q4_K_M", keep_split=True), model, tmp_path / "ours.gguf")
    assert len(artifact.files) == len(model.files)
    for file in artifact.files:
        theirs = file.with_name(file.name.replace("ours", "theirs"))
        assert file.read_bytes() == theirs.read_bytes(), file.name


@pytest.mark.slow
@needs_library
@pytest.mark.parametrize("preset", ["Q2_K", "Q3_K_L", "Q4_0", "Q4_K_M", "IQ4_XS", "Q5_K_S", "Q6_K", "Q8_0"])
@pytest.mark.parametrize("fixture", ["reference_9m", "smollm2", "minilm"])
def test_real_models(fixture, preset, request, tmp_path):
    """A Hugging Face directory goes straight to the target; llama.cpp needs the GGUF file in between."""
    model = open_source(request.getfixturevalue(fixture))
    between = gguf.write(tmp_path / "between.gguf", model.metadata, list(model.tensors.values()))
    theirs = LibLlama(LIBRARY).quantize(between, tmp_path / "theirs.gguf", PRESETS[preset].file_type)
    ours = apply(make_plan(model, preset), model, tmp_path / "ours.gguf").path
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.slow
@needs_library
def test_the_record_is_what_the_library_does(tmp_path):
    library = LibLlama(LIBRARY)
    for name, preset in [("llama", "Q4_K_M"), ("mixtral", "Q2_K"), ("llama-odd-rows", "IQ3_M")]:
        source = MODELS[name].write(tmp_path / "source.gguf")
        made = reference(library, source, tmp_path / "made.gguf", MODELS[name], preset, weighed=True)
        assert digest(made) == RECORDED["models"][name]["presets"][preset][True]
