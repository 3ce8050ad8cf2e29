"""Modelfiles are read as Ollama reads them, and models made as they say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi.errors import FormatError, NotFoundError, TeraziError, UnsupportedError
from terazi.registry import Store
from terazi.serve.create import create
from terazi.serve.modelfile import Modelfile, parse, render

TEXT = '''# an assistant
from smollm2:135m
PARAMETER temperature 0.5
parameter num_ctx 2048
PARAMETER stop "<|end|>"
PARAMETER stop AI:
PARAMETER num_gpu 99
SYSTEM """
You are kind.
"Very" kind."""
TEMPLATE """{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}"""
MESSAGE user Hello there
MESSAGE assistant "Hi."
LICENSE Apache-2.0
'''


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def tiny(tmp_path):
    import numpy as np

    from terazi.formats import gguf
    from terazi.model import Tensor

    weights = np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)
    metadata = {"general.architecture": "llama", "general.license": "mit"}
    return gguf.write(tmp_path / "tiny.gguf", metadata, [Tensor.from_array("token_embd.weight", weights)])


def test_all_instructions():
    made = parse(TEXT)
    assert made.base == "smollm2:135m"
    assert made.parameters == {"temperature": 0.5, "num_ctx": 2048, "stop": ["<|end|>", "AI:"]}
    assert made.system == '\nYou are kind.\n"Very" kind.'
    assert made.template == "{{ if .System }}{{ .System }}{{ end }}{{ .Prompt }}"
    assert made.messages == (
        {"role": "user", "content": "Hello there"},
        {"role": "assistant", "content": "Hi."},
    )
    assert made.license == "Apache-2.0"
    assert parse(render(made)) == made


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no FROM"),
        ("PARAMETER seed 1", "no FROM"),
        ("FROM a\nBOIL water", "line 2: 'BOIL water' is no instruction"),
        ("FROM a\nSYSTEM", "line 2: 'SYSTEM' is no instruction"),
        ("FROM a\nPARAMETER speed 9", "unknown parameter 'speed'"),
        ("FROM a\nPARAMETER temperature hot", "temperature cannot be"),
        ("FROM a\nPARAMETER temperature nan", "temperature cannot be"),
        ("FROM a\nPARAMETER num_ctx 1.5", "num_ctx cannot be"),
        ("FROM a\nMESSAGE robot hi", "the role is one of"),
        ('FROM a\n\nSYSTEM """never', 'line 3: the """ is never closed'),
    ],
)
def test_mistakes_name_the_line(text, problem):
    with pytest.raises(FormatError, match=problem):
        parse(text)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text):
    for candidate in (text, f"FROM x\n{text}", f'FROM x\nSYSTEM """{text}'):
        try:
            parse(candidate)
        except FormatError:
            continue


def test_a_model_by_a_modelfile(store, tiny):
    store.add(tiny, "base:1", settings={"system": "Old.", "parameters": {"seed": 1, "top_k": 5}})
    entry = create(parse("FROM base:1\nSYSTEM New.\nPARAMETER seed 2\nLICENSE X"), "mine", store=store)
    assert entry.manifest.settings == {"system": "New.", "parameters": {"seed": 2, "top_k": 5}}
    assert entry.manifest.license == "X"
    assert entry.manifest.files == store.entry("base:1").manifest.files
    assert Modelfile.of(entry).system == "New."


def test_from_a_file_and_quantized(store, tiny):
    entry = create(parse("FROM ./tiny.gguf"), "q", store=store, quantize="q8_0", directory=tiny.parent)
    assert entry.manifest.lineage["recipe"] == "Q8_0"
    assert entry.manifest.license == "mit"
    assert entry.manifest.size < tiny.stat().st_size
    assert [e.name for e in store.entries()] == ["q:latest"]


def test_a_second_from_is_a_projector(store, tiny):
    (tiny.parent / "text.gguf").write_text("no")
    for second, error in (("./tiny.gguf", UnsupportedError), ("./no.gguf", NotFoundError)):
        with pytest.raises(error, match="FROM "):
            create(parse(f"FROM ./tiny.gguf\nFROM {second}"), "a", store=store, directory=tiny.parent)
    assert store.entries() == []


def test_adapters(store, tiny, tmp_path):
    (tmp_path / "peft").mkdir()
    (tmp_path / "text.gguf").write_text("no")
    entry = create(parse("FROM ./tiny.gguf\nADAPTER ./tiny.gguf"), "a", store=store, directory=tmp_path)
    assert [file.role for file in entry.manifest.files] == ["weights", "adapter"]
    assert store.resolve("a").name == "tiny.gguf"
    for adapter, error in (
        ("./peft", UnsupportedError),
        ("./text.gguf", UnsupportedError),
        ("./no", NotFoundError),
    ):
        with pytest.raises(error):
            create(parse(f"FROM ./tiny.gguf\nADAPTER {adapter}"), "b", store=store, directory=tmp_path)


def test_a_template_that_cannot_be_served_is_refused_at_once(store, tiny):
    with pytest.raises(UnsupportedError, match="no equal in Jinja"):
        create(
            parse('FROM ./tiny.gguf\nTEMPLATE {{ printf "%s" .Prompt }}'),
            "t",
            store=store,
            directory=tiny.parent,
        )
    assert store.entries() == []


@pytest.mark.parametrize("base", ["./tiny.gguf", "/etc/hostname", "file:/etc/hostname", "~/x.gguf"])
def test_paths_only_where_they_are_allowed(store, tiny, base):
    with pytest.raises(TeraziError):
        create(Modelfile(base=base), "x", store=store, directory=tiny.parent, local_files=False)
    assert store.entries() == []
