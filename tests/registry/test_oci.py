"""Pushing and pulling against Debian's docker-registry; Ollama's media types on the same protocol."""

import base64
import hashlib
import json
import shutil
import subprocess

import pytest

from terazi.errors import DownloadError, FormatError, NotFoundError, UnsupportedError, UsageError
from terazi.registry import Store, pull
from terazi.registry import distribution as module
from terazi.registry.distribution import Repository, parse_repository
from terazi.registry.push import push

DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"


def test_what_is_pushed_comes_back_with_its_history(oci_host, store, make_gguf, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 5000)
    lineage = {"recipe": "Q8_0", "plan_digest": "1" * 64}
    entry = store.add(
        make_gguf(rows=512), "a:1", lineage=lineage, settings={"system": "Be brief."}, notes="n"
    )
    steps = []
    pinned = push(
        "a:1", f"oci:{oci_host}/team/a:v1", store=store,
        progress=lambda task, done, total, unit="": steps.append((done, total)),
    )  # fmt: skip
    assert len(steps) > 10  # in chunks
    other = Store(tmp_path / "other")
    pulled = pull(f"oci:{oci_host}/team/a:v1", store=other)
    assert (pulled.name, pulled.manifest.source) == ("team/a:v1", pinned)
    assert pulled.manifest.files == entry.manifest.files
    assert (pulled.manifest.lineage, pulled.manifest.settings) == (lineage, {"system": "Be brief."})
    assert (pulled.manifest.notes, pulled.manifest.license) == ("n", "mit")
    assert pull(pinned, store=other, name="pinned").digest == pulled.digest
    steps.clear()
    assert push("a:1", f"oci:{oci_host}/team/a:v1", store=store) == pinned


def test_a_directory_keeps_its_file_names(oci_host, store, minilm, tmp_path):
    entry = store.add(minilm, "minilm")
    push("minilm", f"oci:{oci_host}/minilm:1", store=store)
    pulled = pull(f"oci:{oci_host}/minilm:1", store=Store(tmp_path / "other"))
    assert pulled.manifest.files == entry.manifest.files


@pytest.mark.parametrize("format", [pytest.param("onnx", marks=pytest.mark.slow), "mlx"])
def test_a_directory_of_another_format_stays_one(oci_host, store, two_layers, tmp_path, format):
    from terazi import api

    api.convert(two_layers, format, output=tmp_path / "made")
    entry = store.add(tmp_path / "made", "made")
    push("made", f"oci:{oci_host}/made:{format}", store=store)
    other = Store(tmp_path / "other")
    pulled = pull(f"oci:{oci_host}/made:{format}", store=other)
    assert (pulled.manifest.format, pulled.manifest.files) == (format, entry.manifest.files)
    assert api.open_model(other.resolve(pulled.name)).format == format


def test_another_tool_reads_what_we_push(oci_host, store, make_gguf, tmp_path):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed (Debian: apt install skopeo)")
    entry = store.add(make_gguf(), "a")
    push("a", f"oci:{oci_host}/skopeo/a:v1", store=store)
    command = ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false"]
    source = f"docker://{oci_host}/skopeo/a:v1"
    subprocess.run([*command, source, f"dir:{tmp_path}/copy"], check=True, capture_output=True)
    assert (tmp_path / "copy" / entry.manifest.files[0].digest).stat().st_size == entry.manifest.size


def test_what_is_absent(oci_host, store):
    with pytest.raises(NotFoundError, match="has no v9"):
        pull(f"oci:{oci_host}/team/absent:v9", store=store)
    with pytest.raises(NotFoundError, match="not in the store"):
        push("absent", f"oci:{oci_host}/team/absent:v9", store=store)
    with pytest.raises(DownloadError, match="cannot be reached"):
        pull("oci:127.0.0.1:9/a:b", store=store)


@pytest.mark.parametrize(
    "reference",
    ["a", "host/", "host/UPPER", "host/a:b:c", "host/../a", "host/a@sha256:12", "ho st/a", "host/a:-"],
)
def test_bad_addresses(reference):
    with pytest.raises(UsageError):
        parse_repository(reference)


def test_push_needs_an_address(store, make_gguf):
    store.add(make_gguf(), "a")
    for target in ("b", "hf:a/b", f"oci:host/a@sha256:{'0' * 64}"):
        with pytest.raises(UsageError):
            push("a", target, store=store)


def layer(repository, tmp_path, data, media_type, annotations=None):
    digest = hashlib.sha256(data).hexdigest()
    path = tmp_path / digest
    path.write_bytes(data)
    repository.put_blob(f"sha256:{digest}", path)
    found = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
    return found | ({"annotations": annotations} if annotations else {})


def publish(oci_host, path, tmp_path, layers, media_type=OCI):
    with Repository(oci_host, path, actions="pull,push") as repository:
        made = [layer(repository, tmp_path, *each) for each in layers]
        config = layer(repository, tmp_path, b"{}", "application/vnd.docker.container.image.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": made}
        return repository.put_manifest("latest", json.dumps(manifest).encode(), media_type)


def test_ollama_models(oci_host, store, make_gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("TERAZI_OLLAMA_REGISTRY", oci_host)
    prefix = "application/vnd.ollama.image."
    weights = make_gguf().read_bytes()
    layers = [
        (weights, f"{prefix}model"),
        (b"{{ .System }} {{ .Prompt }}", f"{prefix}template"),
        (b"You are kind.", f"{prefix}system"),
        (b"Apache License\nVersion 2.0", f"{prefix}license"),
        (json.dumps({"temperature": 0.5, "stop": ["<end>"]}).encode(), f"{prefix}params"),
        (json.dumps([{"role": "user", "content": "hi"}]).encode(), f"{prefix}messages"),
    ]
    publish(oci_host, "library/tiny", tmp_path, layers, DOCKER)
    entry = pull("ollama:Tiny", store=store)
    assert entry.name == "tiny:latest"
    assert entry.manifest.license == "Apache License"
    assert entry.manifest.settings == {
        "template": "{{ .System }} {{ .Prompt }}",
        "system": "You are kind.",
        "parameters": {"temperature": 0.5, "stop": ["<end>"]},
        "messages": [{"role": "user", "content": "hi"}],
    }
    assert store.resolve("tiny").read_bytes() == weights
    publish(oci_host, "me/broken", tmp_path, [(weights, f"{prefix}model"), (b"{", f"{prefix}params")], DOCKER)
    with pytest.raises(FormatError, match="params are damaged"):
        pull("ollama:me/broken", store=store)
    publish(oci_host, "library/none", tmp_path, [(b"x", f"{prefix}tensor;name=a")], DOCKER)
    with pytest.raises(UnsupportedError, match="tensor by tensor"):
        pull("ollama:none", store=store)


@pytest.mark.parametrize("name", ["../../evil.gguf", "/etc/x.gguf", "a\\..\\b.gguf"])
def test_hostile_layer_names(oci_host, store, make_gguf, tmp_path, name):
    layers = [
        (make_gguf().read_bytes(), "application/octet-stream", {"org.opencontainers.image.title": name})
    ]
    publish(oci_host, "hostile/name", tmp_path, layers)
    with pytest.raises(FormatError, match="unsafe file name"):
        pull(f"oci:{oci_host}/hostile/name", store=store)
    assert store.entries() == []


def test_archives_and_other_artifacts_are_refused(oci_host, store, tmp_path):
    publish(oci_host, "an/image", tmp_path, [(b"x" * 99, "application/vnd.oci.image.layer.v1.tar+gzip")])
    with pytest.raises(UnsupportedError, match="holds an archive"):
        pull(f"oci:{oci_host}/an/image", store=store)
    publish(oci_host, "a/text", tmp_path, [(b"just text", "text/plain")])
    with pytest.raises(FormatError, match="holds no model"):
        pull(f"oci:{oci_host}/a/text", store=store)


@pytest.mark.parametrize(
    "manifest",
    [
        "[]",
        "{}",
        '{"layers": [{"digest": "sha256:../../x", "size": 1}]}',
        '{"layers": [{"digest": "sha256:%s", "size": -1}]}' % ("0" * 64),
        '{"layers": [{"digest": "sha256:%s", "size": "1"}]}' % ("0" * 64),
        '{"layers": ' + "[" * 50_000,
    ],
)
def test_hostile_manifests(serve, store, manifest):
    site = serve(files={"/v2/a/manifests/latest": manifest.encode()})
    with pytest.raises(FormatError, match="not a model's manifest"):
        pull(f"oci:{site.url.removeprefix('http://')}/a", store=store)


def test_a_manifest_other_than_the_pinned_one(serve, store):
    pin = f"sha256:{'0' * 64}"
    site = serve(files={f"/v2/a/manifests/{pin}": b'{"layers": []}'})
    with pytest.raises(DownloadError, match="digest is not"):
        pull(f"oci:{site.url.removeprefix('http://')}/a@{pin}", store=store)


def test_logins(serve, store, make_gguf, tmp_path, monkeypatch):
    """The password goes to whoever hands out tokens, the token to the registry."""
    weights = make_gguf().read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    descriptor = {"digest": f"sha256:{digest}", "size": len(weights), "mediaType": "application/octet-stream"}
    manifest = json.dumps({"layers": [descriptor]}).encode()
    site, tokens = serve(), serve(files={"/token": b'{"token": "t0ken"}'})
    host = site.url.removeprefix("http://")
    path = "/v2/private/a/manifests/latest"
    challenge = f'Bearer realm="{tokens.url}/token",service="registry"'
    site.refusals[path] = (401, {"WWW-Authenticate": challenge})

    def unlock(requested):
        if "Bearer t0ken" in str(site.requests[-1]):
            site.refusals.clear()
            site.files |= {path: manifest, f"/v2/private/a/blobs/sha256:{digest}": weights}

    site.on_request = unlock
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    password = base64.b64encode(b"me:pass").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": password}}}))
    pull(f"oci:{host}/private/a", store=store)
    assert password in str(tokens.requests)
    assert "scope=repository%3Aprivate%2Fa%3Apull" in str(tokens.requests)
    assert password not in str(site.requests)
    site.refusals[path] = (401, {"WWW-Authenticate": 'Digest realm="x"'})
    with pytest.raises(DownloadError, match="asks for a login"):
        pull(f"oci:{host}/private/a", store=store)


def test_push_prints_the_pinned_reference(oci_host, make_gguf, monkeypatch, tmp_path, capsys):
    from terazi.cli import main

    monkeypatch.setenv("TERAZI_HOME", str(tmp_path / "home"))
    Store().add(make_gguf(), "a:1")
    with pytest.raises(SystemExit) as ended:
        main(["push", "a:1", f"oci:{oci_host}/team/printed:v1", "--json"])
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"name", "source"}  # as docs/reference/json.md says
    assert "@sha256:" in found["source"]
