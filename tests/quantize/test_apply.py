"""Carrying plans out: the same bytes however it runs, damaged weights named, little memory."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from parity_models import calibration_of

from terazi.codecs import quantize_rows
from terazi.errors import ExistsError, FormatError, UsageError
from terazi.formats import gguf, open_model
from terazi.model import Tensor
from terazi.quantize import apply, apply_many, make_plan, open_source, plan_collection


def test_tensors_hold_what_the_codec_makes(small, tmp_path):
    made = open_model(apply(make_plan(small, "Q4_K_M"), small, tmp_path / "out.gguf").path)
    for name, tensor in made.tensors.items():
        source = small.tensors[name].rows()
        expected = quantize_rows(source, tensor.type)
        assert np.array_equal(tensor.encoded(), expected), name


def test_threads_do_not_change_bytes(make_model, numbers, tmp_path):
    model = make_model({"blk.0.attn_q.weight": numbers(3000, 512), "token_embd.weight": numbers(1000, 512)})
    plan = make_plan(model, "Q4_K_M")
    digests = {apply(plan, model, tmp_path / f"{n}.gguf", threads=n).digest for n in (1, 2, 5)}
    assert len(digests) == 1


def test_each_expert_has_its_own_importance(make_model, numbers, tmp_path):
    stack = numbers(4, 6, 256)
    model = make_model({"blk.0.ffn_up_exps.weight": stack}, expert_count=4)
    importance = np.abs(numbers(4, 256, seed=1)) + 0.01
    calibration = calibration_of({"blk.0.ffn_up_exps.weight": importance})
    plan = make_plan(model, "Q4_0", calibration=calibration)
    path = apply(plan, model, tmp_path / "out.gguf", calibration=calibration).path
    written = open_model(path).tensors["blk.0.ffn_up_exps.weight"].encoded().reshape(4, 6, -1)
    for expert in range(4):
        expected = quantize_rows(stack[expert], "Q4_0", importance=importance[expert])
        assert np.array_equal(written[expert], expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["blk.1.ffn_up.weight", "blk.1.attn_norm.weight"])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_damaged_weights_are_named_and_nothing_is_written(small, tmp_path, bad, name, kind):
    values = small.tensors[name].rows().reshape(small.tensors[name].shape).astype(kind)
    values.flat[-3] = bad
    model = replace(small, tensors=dict(small.tensors) | {name: Tensor.from_array(name, values)})
    with pytest.raises(FormatError, match=rf"tensor {re.escape(name)}: .*not finite"):
        apply(make_plan(model, "Q4_K_M"), model, tmp_path / "out.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("preset", ["F16", "Q8_0", "Q4_0", "Q4_K_M", "Q6_K", "Q2_K"])
def test_weights_beyond_a_types_range_are_refused(make_model, numbers, tmp_path, preset):
    values = numbers(4, 256)
    values[2, 7] = 1e9
    model = make_model({"blk.0.attn_q.weight": values})
    with pytest.raises(FormatError, match=r"tensor blk\.0\.attn_q\.weight: .* reach 1e\+09"):
        apply(make_plan(model, preset), model, tmp_path / "out.gguf")


def test_a_plan_for_another_model_is_refused(small, make_model, numbers, tmp_path):
    other = make_model({"blk.0.attn_q.weight": numbers(4, 256)})
    with pytest.raises(UsageError, match="another model"):
        apply(make_plan(small, "Q8_0"), other, tmp_path / "out.gguf")


def test_a_plan_keeps_to_its_importance(small, tmp_path):
    calibration = calibration_of({"blk.0.attn_q.weight": np.ones(256, np.float32)})
    with pytest.raises(UsageError, match="made without an importance matrix"):
        apply(make_plan(small, "Q4_0"), small, tmp_path / "out.gguf", calibration=calibration)
    with pytest.raises(UsageError, match="made with an importance matrix"):
        apply(make_plan(small, "Q4_0", calibration=calibration), small, tmp_path / "out.gguf")


def test_importance_of_the_wrong_size_is_refused(small, tmp_path):
    calibration = calibration_of({"blk.0.attn_q.weight": np.ones(512, np.float32)})
    plan = make_plan(small, "Q4_0", calibration=calibration)
    with pytest.raises(UsageError, match=r"512 values for blk\.0\.attn_q\.weight, not 256"):
        apply(plan, small, tmp_path / "out.gguf", calibration=calibration)


def test_existing_files_need_force(small, tmp_path):
    (tmp_path / "out.gguf").write_text("precious")
    with pytest.raises(ExistsError):
        apply(make_plan(small, "Q8_0"), small, tmp_path / "out.gguf")
    assert (tmp_path / "out.gguf").read_text() == "precious"
    apply(make_plan(small, "Q8_0"), small, tmp_path / "out.gguf", force=True)


def test_a_collection_is_its_members(small, tmp_path):
    plans = plan_collection(small, ["Q8_0", "Q4_K_M", "F16", "Q4_K"])
    assert [plan.preset for plan in plans] == ["Q8_0", "Q4_K_M", "F16"]
    together = apply_many(plans, small, [tmp_path / f"{plan.preset}.gguf" for plan in plans])
    for plan, artifact in zip(plans, together, strict=True):
        alone = apply(plan, small, tmp_path / "alone.gguf", force=True)
        assert (artifact.digest, artifact.label) == (alone.digest, plan.preset)


def test_a_collection_decodes_every_row_once(small, tmp_path):
    asked = []

    def counted(tensor):
        def read(start, stop):
            asked.append((tensor.name, start, stop))
            return tensor.read(start, stop)

        return Tensor(name=tensor.name, shape=tensor.shape, type=tensor.type, read=read)

    model = replace(small, tensors={name: counted(tensor) for name, tensor in small.tensors.items()})
    plans = plan_collection(model, ["Q8_0", "Q5_0", "Q4_K_M", "Q2_K"])
    apply_many(plans, model, [tmp_path / f"{plan.preset}.gguf" for plan in plans])
    assert len(asked) == len(set(asked)) == len(small.tensors)


def test_the_usual_series_leaves_out_what_needs_importance(small):
    names = [plan.preset for plan in plan_collection(small)]
    assert names[0] == "Q8_0"
    assert {"Q2_K", "Q3_K_M", "Q4_0", "Q4_K_M", "Q5_K_M", "IQ4_XS"} < set(names)
    assert not {"IQ2_XS", "IQ1_S", "F16", "TQ1_0", "MXFP4_MOE"} & set(names)


def test_split_sources_stay_split_when_asked(small, tmp_path):
    tensors = list(small.tensors.values())
    source = gguf.write(
        tmp_path / "parts.gguf", small.metadata, tensors, split=gguf.split_by_size(tensors, 20_000)
    )
    model = open_model(source)
    assert len(model.files) == 7
    plan = make_plan(model, "Q8_0", keep_split=True)
    artifact = apply(plan, model, tmp_path / "out.gguf")
    assert [file.name for file in artifact.files] == [f"out-0000{n}-of-00007.gguf" for n in range(1, 8)]
    assert artifact.size == plan.size
    whole = apply(make_plan(model, "Q8_0"), model, tmp_path / "whole.gguf")
    assert len(whole.files) == 1
    parts, joined = open_model(artifact.path), open_model(whole.path)
    for name, tensor in joined.tensors.items():
        assert np.array_equal(parts.tensors[name].encoded(), tensor.encoded())


def test_hugging_face_directories_need_no_file_in_between(reference_9m, tmp_path):
    direct = open_source(reference_9m)
    between = gguf.write(tmp_path / "f.gguf", direct.metadata, list(direct.tensors.values()))
    one = apply(make_plan(direct, "Q4_K_M"), direct, tmp_path / "direct.gguf")
    two = apply(make_plan(open_model(between), "Q4_K_M"), open_model(between), tmp_path / "two.gguf")
    assert one.digest == two.digest
    assert one.plan_digest == two.plan_digest


def test_progress_reaches_the_end(small, tmp_path):
    seen = []

    def progress(task, done, total, *, unit=""):
        seen.append((task, done, total, unit))

    plan = make_plan(small, "Q8_0")
    apply(plan, small, tmp_path / "out.gguf", progress=progress)
    assert seen[-1] == ("quantizing", plan.size, plan.size, "bytes")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_model(tmp_path):
    """2 GB of weights (sparse zeros, and one tensor larger than the bound) in less than 700 MB."""
    code = f"""
import resource, numpy as np
from pathlib import Path
from terazi.formats import gguf, open_model
from terazi.model import Tensor
from terazi.quantize import apply, make_plan
rows = np.zeros((256, 8192), np.uint8)
def read(start, stop):
    return np.resize(rows, (stop - start, 8192))
def tensor(name, count):
    return Tensor(name=name, shape=(count, 4096), type="F16", read=read)
tensors = [tensor("token_embd.weight", 100_000)]
tensors += [tensor(f"blk.{{n}}.ffn_up.weight", 20_000) for n in range(8)]
metadata = {{"general.architecture": "llama", "llama.block_count": 8, "llama.attention.head_count": 8}}
path = gguf.write(Path({str(tmp_path)!r}) / "big.gguf", metadata, tensors)
model = open_model(path)
apply(make_plan(model, "Q4_K_M"), model, path.with_name("out.gguf"))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 700 << 20
