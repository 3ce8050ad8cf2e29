"""Preset names and numbers, against the gguf package's own lists."""

import gguf
import pytest

from terazi.errors import UsageError
from terazi.quantize import ALIASES, PRESETS, preset

# llama.cpp's names for file types that differ from the presets' names only by a prefix.
THEIRS = {
    name.removeprefix("MOSTLY_").removeprefix("ALL_"): id
    for name, id in gguf.LlamaFileType.__members__.items()
}


def test_file_types_are_those_of_the_gguf_package():
    known = {name: entry.file_type for name, entry in PRESETS.items() if name in THEIRS}
    assert known == {name: int(THEIRS[name]) for name in known}
    # Newer than the package, and what cannot be asked for: a guess, and types without a quantizer.
    assert PRESETS.keys() - THEIRS.keys() <= {"Q2_0"}
    assert THEIRS.keys() - PRESETS.keys() <= {"GUESSED", "NVFP4"}


def test_ids_are_unique_and_types_can_be_written():
    assert len({entry.file_type for entry in PRESETS.values()}) == len(PRESETS)
    assert all(entry.default.importance != "none" for entry in PRESETS.values())


def test_names_are_found_in_any_case_and_by_alias():
    assert preset("q4_k_m") is PRESETS["Q4_K_M"]
    assert {alias: preset(alias).name for alias in ALIASES} == dict(ALIASES)


def test_unknown_names_suggest_near_ones():
    with pytest.raises(UsageError, match="Q4_K_X") as caught:
        preset("Q4_K_X")
    assert "Q4_K" in caught.value.hint
