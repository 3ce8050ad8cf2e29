"""The hub's library and Terazi's download against a server that speaks the hub's API."""

import hashlib
import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from terazi.errors import DownloadError, NotFoundError, UsageError
from terazi.formats import open_model
from terazi.registry import pull, resolve_model
from terazi.runtime.onnxruntime import open_engine

SHA = "ab810cf68114990406fdf996510dd3d3c6adbdf5"


@pytest.fixture
def hub(serve, monkeypatch):
    """A hub whose large files lie on another host, as on the real one."""
    site, storage = serve(), serve()
    monkeypatch.setenv("HF_ENDPOINT", site.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    def publish(repo, files, *, license="apache-2.0"):
        siblings = []
        for name, data in files.items():
            digest = hashlib.sha256(data).hexdigest()
            large = not name.endswith((".json", ".txt", ".md"))
            sibling = {"rfilename": name, "size": len(data), "blobId": "0" * 40}
            if large:
                sibling["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 130}
                storage.files[f"/{digest}"] = data
                site.redirects[f"/{repo}/resolve/{SHA}/{name}"] = f"{storage.url}/{digest}?signature=1"
            else:
                site.files[f"/{repo}/resolve/{SHA}/{name}"] = data
            siblings.append(sibling)
        info = {
            "id": repo,
            "modelId": repo,
            "sha": SHA,
            "siblings": siblings,
            "cardData": {"license": license},
        }
        for path in (f"/api/models/{repo}", f"/api/models/{repo}/revision/{SHA}"):
            site.files[path] = json.dumps(info).encode()

    site.publish, site.storage = publish, storage
    return site


def test_one_file_of_a_repository(hub, store, make_gguf):
    data = make_gguf(rows=4096).read_bytes()
    hub.publish("Org/Tiny-GGUF", {"Tiny-Q4_K_M.gguf": data, "Tiny-Q8_0.gguf": data[:-1], "README.md": b"#"})
    hub.storage.breaks = 2
    entry = pull("hf:Org/Tiny-GGUF/Tiny-Q4_K_M.gguf", store=store)
    assert entry.name == "org/tiny-gguf:q4_k_m"
    assert entry.manifest.source == f"hf:Org/Tiny-GGUF@{SHA}/Tiny-Q4_K_M.gguf"
    assert entry.manifest.license == "apache-2.0"
    assert store.resolve(entry.name).read_bytes() == data
    assert "hf_secret" in str(hub.requests)
    assert "hf_secret" not in str(hub.storage.requests)
    sent = hub.storage.sent
    assert (
        pull(f"hf:Org/Tiny-GGUF@{SHA}", store=store).digest == entry.digest
    )  # the Q4_K_M is the usual choice
    assert hub.storage.sent == sent  # the content is there already
    assert resolve_model(entry.manifest.source, store=store) == store.resolve(entry.name)


def test_a_checkpoint_directory(hub, store, minilm):
    files = {
        p.relative_to(minilm).as_posix(): p.read_bytes()
        for p in minilm.rglob("*")
        if p.is_file() and not p.name.startswith(".")
    }
    hub.publish("org/minilm", {**files, "pytorch_model.bin": b"\x80\x04", "onnx/model.onnx": b"x"})
    entry = pull("hf:org/minilm", store=store)
    assert entry.manifest.format == "huggingface"
    names = {file.name for file in entry.manifest.files}
    assert {"config.json", "model.safetensors"} <= names
    assert not {"pytorch_model.bin", "onnx/model.onnx"} & names
    assert (store.resolve(entry.name) / "config.json").read_bytes() == files["config.json"]


def test_a_quantized_mlx_repository(hub, store, minilm, tmp_path):
    from terazi import api

    made = tmp_path / "mlx"
    api.convert(minilm, "mlx", output=made)
    files = {p.relative_to(made).as_posix(): p.read_bytes() for p in made.rglob("*") if p.is_file()}
    hub.publish("mlx-community/minilm-4bit", files)
    entry = pull("hf:mlx-community/minilm-4bit", store=store)
    assert entry.manifest.format == "mlx"


def graph(scale, location=None):
    """y = scale * x @ w as an .onnx file; with a ``location`` w lies in that file."""
    weight = numpy_helper.from_array(np.full((32, 32), scale, np.float32), "w")
    data = weight.raw_data
    if location:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 32]) for name in "xy")
    made = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    return helper.make_model(made, ir_version=10).SerializeToString(), data


def product(path):
    with open_engine(path, threads=1) as engine:
        return float(engine.run({"x": np.ones((1, 32), np.float32)})[0][0, 0])


def test_a_repository_of_onnx_variants(hub, store, minilm):
    """As transformers.js wants them: graphs in onnx/, everything else in the root."""
    plain, data = graph(1, "model.onnx_data")
    quarter, quarter_data = graph(4, "model_q4.onnx_data")
    companions = {
        name: (minilm / name).read_bytes()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json")
    }
    hub.publish(
        "onnx-community/Mini-ONNX",
        {
            **companions,
            "onnx/model.onnx": plain,
            "onnx/model.onnx_data": data,
            "onnx/model_q4.onnx": quarter,
            "onnx/model_q4.onnx_data": quarter_data,
            "onnx/model_quantized.onnx": graph(8)[0],
            "pytorch_model.bin": b"\x80\x04",
        },
    )
    seen = {}
    for path in ("", "/onnx/model_q4.onnx", "/onnx/model_quantized.onnx"):
        entry = pull(f"hf:onnx-community/Mini-ONNX{path}", store=store)
        assert entry.manifest.format == "onnx"
        assert entry.manifest.source == f"hf:onnx-community/Mini-ONNX@{SHA}{path or '/onnx/model.onnx'}"
        assert companions.keys() <= {file.name for file in entry.manifest.files}
        assert open_model(store.resolve(entry.name)).tokenizer is not None
        seen[entry.name] = product(store.resolve(entry.name))
    name = "onnx-community/mini-onnx"
    assert seen == {f"{name}:latest": 32, f"{name}:q4": 128, f"{name}:quantized": 256}
    kept = {file.name for file in store.entry(f"{name}:q4").manifest.files}
    assert kept == companions.keys() | {"model_q4.onnx", "model_q4.onnx_data"}
    with pytest.raises(NotFoundError, match=r"no file 'onnx/model_q2\.onnx'") as failure:
        pull("hf:onnx-community/Mini-ONNX/onnx/model_q2.onnx", store=store)
    assert "onnx/model_quantized.onnx" in failure.value.hint


def test_the_graph_of_a_checkpoint_by_name(hub, store, minilm):
    files = {"model.safetensors": b"x", "config.json": (minilm / "config.json").read_bytes()}
    hub.publish("org/both", {**files, "onnx/model.onnx": graph(2)[0]})
    entry = pull("hf:org/both/onnx/model.onnx", store=store)
    assert entry.name == "org/both:onnx"
    assert {file.name for file in entry.manifest.files} == {"config.json", "model.onnx"}
    assert product(store.resolve(entry.name)) == 64


def test_folders_for_genai(hub, store, minilm):
    config = (minilm / "config.json").read_bytes()
    cpu, data = graph(1, "phi.onnx.data")
    files = {"config.json": config, "README.md": b"#"}
    folders = {
        "cpu_and_mobile/cpu-int4": {"genai_config.json": b"{}", "phi.onnx": cpu, "phi.onnx.data": data},
        "cuda/cuda-fp16": {"genai_config.json": b"{}", "phi.onnx": graph(2)[0]},
    }
    files |= {f"{folder}/{name}": data for folder, inner in folders.items() for name, data in inner.items()}
    hub.publish("org/phi", files)
    entry = pull("hf:org/phi", store=store)
    assert entry.name == "org/phi:cpu-int4"
    expected = {"README.md", "config.json", "genai_config.json", "phi.onnx", "phi.onnx.data"}
    assert {file.name for file in entry.manifest.files} == expected
    assert open_model(store.resolve(entry.name)).metadata["operators"] == {"MatMul": 1}
    assert pull("hf:org/phi/cuda/cuda-fp16", store=store).name == "org/phi:cuda-fp16"
    hub.publish(
        "org/two", {name: data for name, data in files.items() if "cpu" not in name} | {"b.onnx": cpu}
    )
    with pytest.raises(UsageError, match=r"2 ONNX models: cuda/cuda-fp16, b\.onnx") as failure:
        pull("hf:org/two", store=store)
    assert failure.value.hint == "add one: hf:org/two/cuda/cuda-fp16"


def test_several_files_ask_for_a_choice(hub, store):
    hub.publish("org/many", {"a-Q8_0.gguf": b"1", "b-Q6_K.gguf": b"2", "mmproj-f16.gguf": b"3"})
    with pytest.raises(UsageError, match="has 2 GGUF files") as failure:
        pull("hf:org/many", store=store)
    assert "a-Q8_0.gguf, b-Q6_K.gguf" in failure.value.message
    assert failure.value.hint == "add one: hf:org/many/a-Q8_0.gguf"
    with pytest.raises(NotFoundError, match=r"no file 'c\.gguf'"):
        pull("hf:org/many/c.gguf", store=store)
    hub.publish("org/none", {"pytorch_model.bin": b"\x80\x04"})
    with pytest.raises(NotFoundError, match="neither safetensors nor GGUF or ONNX"):
        pull("hf:org/none", store=store)


def test_gated_and_absent_repositories_say_what_to_do(hub, store):
    hub.refusals["/api/models/org/gated"] = (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
    with pytest.raises(DownloadError, match="accept its terms") as failure:
        pull("hf:org/gated", store=store)
    assert "HF_TOKEN" in failure.value.hint
    hub.refusals["/api/models/org/absent"] = (401, {"X-Error-Code": "RepoNotFound"})
    with pytest.raises(NotFoundError, match="does not exist"):
        pull("hf:org/absent", store=store)


def test_a_hub_that_answers_nonsense(hub, store):
    hub.files["/api/models/org/odd"] = b"<html>"
    hub.refusals["/api/models/org/down"] = (500, {})
    for name in ("odd", "down"):
        with pytest.raises(DownloadError, match="does not answer as it should"):
            pull(f"hf:org/{name}", store=store)


def test_a_file_that_is_not_what_the_hub_says(hub, store, make_gguf):
    data = make_gguf().read_bytes()
    hub.publish("org/bad", {"m.gguf": data})
    hub.storage.files[f"/{hashlib.sha256(data).hexdigest()}"] = data[:-1] + b"?"
    with pytest.raises(DownloadError, match="SHA-256"):
        pull("hf:org/bad", store=store)
    assert store.entries() == []


def test_an_unreachable_hub_is_passed_over_quickly(store, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="cannot be reached"):
        pull("hf:org/name", store=store)


@pytest.mark.parametrize("reference", ["hf:name", "hf:../x", "hf:a/b@../c", "hf:a b/c"])
def test_bad_references(reference, store):
    with pytest.raises(UsageError):
        pull(reference, store=store)
