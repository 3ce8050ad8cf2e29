"""The hub's library and Terazi's download against a server that speaks the hub's API."""

import hashlib
import json

import pytest

from terazi.errors import DownloadError, NotFoundError, UsageError
from terazi.registry import pull, resolve_model

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


def test_several_files_ask_for_a_choice(hub, store):
    hub.publish("org/many", {"a-Q8_0.gguf": b"1", "b-Q6_K.gguf": b"2", "mmproj-f16.gguf": b"3"})
    with pytest.raises(UsageError, match="has 2 GGUF files") as failure:
        pull("hf:org/many", store=store)
    assert failure.value.hint == "add one: hf:org/many/a-Q8_0.gguf"
    with pytest.raises(NotFoundError, match=r"no file 'c\.gguf'"):
        pull("hf:org/many/c.gguf", store=store)
    hub.publish("org/none", {"pytorch_model.bin": b"\x80\x04"})
    with pytest.raises(NotFoundError, match="neither safetensors nor GGUF"):
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
