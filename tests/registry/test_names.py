"""Names stay inside the store whatever they say."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi.errors import FormatError, UsageError
from terazi.registry.manifest import check_file_name
from terazi.registry.names import Name, parse_name, split_source, suggest

HOSTILE = [
    "",
    ":",
    ":tag",
    "model:",
    "../up",
    "a/../b",
    "a/./b",
    "/etc/passwd",
    "//host/share",
    "C:\\models",
    "a\\b",
    "a//b",
    "a/",
    ".hidden",
    "a:..",
    "a:../../b",
    "a:b:c",
    "a\nb",
    "a\x00",
    "a\x1b[2J",
    "ａ",
    "con",
    "a/nul",
    "a:aux.txt",
    "a b",
    "a.",
    "a/b/c/d/e",
    "x" * 81,
    "a:" + "t" * 200,
    "%2e%2e",
    "~root",
    "$HOME",
    "a*",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_are_refused(text):
    with pytest.raises(UsageError, match="is not a model name"):
        parse_name(text)


def test_names_have_a_default_tag_and_no_case():
    assert parse_name("SmolLM2") == Name("smollm2", "latest")
    assert str(parse_name("Org/Model:Q4_K_M")) == "org/model:q4_k_m"


@given(st.text(max_size=100), st.text(max_size=100))
def test_any_words_make_a_valid_name(model, tag):
    name = suggest(model, tag)
    assert parse_name(str(name)) == name


@given(st.text(max_size=60))
def test_what_is_accepted_is_a_plain_relative_path(text):
    try:
        name = parse_name(text)
    except UsageError:
        return
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(f"{name.model}/{name.tag}")
        assert not path.is_absolute()
        assert ".." not in path.parts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf:org/name", ("hf", "org/name")),
        ("HF:org/name", ("hf", "org/name")),
        ("https://host/m.gguf", ("https", "https://host/m.gguf")),
        ("https:m", None),
        ("oci:localhost:5000/a:b", ("oci", "localhost:5000/a:b")),
        ("file:///tmp/x", ("file", "///tmp/x")),
        ("smollm2:135m", None),
        ("C:\\model.gguf", None),
        ("hf:", None),
    ],
)
def test_sources_are_told_from_names(text, expected):
    assert split_source(text) == expected


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/../b", "a\\b", "C:x", "", ".", "a\nb", "x" * 500, "a//b", "a/", "n?", None, 3]
)
def test_hostile_file_names_are_refused(name):
    with pytest.raises(FormatError, match="unsafe file name"):
        check_file_name(name, "test")
