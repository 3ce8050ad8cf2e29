"""ONNX models in a repository of many: which graphs and folders are one each, and what files each needs."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["onnx_variants", "usual_variant", "variant_label"]

_GENAI = "genai_config.json"
_BESIDE = re.compile(r"[\w.-]+\.(?:json|model|jinja|tiktoken|txt)|LICENSE[\w.-]*|README\.md")
_POOLING = "1_Pooling/config.json"
_WEIGHTS = re.compile(r"[\w.-]+(?:\.onnx|[._]data[\w.-]*)")
_STEM = re.compile(r"model(?:[._-](?P<label>.+))?")


def onnx_variants(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return the models among a repository's files: path -> name in the store -> name in the repository.

    A folder with genai_config.json is one (its path is "" for the root), every other .onnx file too. External
    data is known by its name, ``model.onnx_data`` or ``model.onnx.data``. Settings and tokenizer come from
    the root where a folder has none of its own.
    """
    paths = [PurePosixPath(name) for name in sorted(names)]
    root = {str(path): str(path) for path in paths if str(path) == _POOLING or _beside(path, "")}
    written = {_folder(path) for path in paths if path.name == _GENAI}
    found = {}
    for folder in sorted(written):
        own = {path.name: str(path) for path in paths if _belongs(path, folder)}
        if any(name.endswith(".onnx") for name in own):
            found[folder] = root | own
    for graph in paths:
        if graph.suffix == ".onnx" and _folder(graph) not in written:
            folder, start = _folder(graph), (f"{graph.name}_data", f"{graph.name}.data", f"{graph.stem}.data")
            own = {path.name: str(path) for path in paths if _beside(path, folder)}
            data = {p.name: str(p) for p in paths if _folder(p) == folder and p.name.startswith(start)}
            found[str(graph)] = root | own | data | {graph.name: str(graph)}
    return found


def usual_variant(variants: Sequence[str]) -> str | None:
    """Return the variant to take when none is named; None when that is for the user to say.

    It is the only one, the unquantized model.onnx, or the only folder for processors.
    """
    for chosen in (
        variants,
        [name for name in ("", "model.onnx", "onnx/model.onnx") if name in variants][:1],
        [name for name in variants if "cpu" in name.lower()],
    ):
        if len(chosen) == 1:
            return chosen[0]
    return None


def variant_label(variant: str) -> str:
    """Return what tells a variant from the others, such as ``q4`` of onnx/model_q4.onnx; often nothing."""
    path = PurePosixPath(variant)
    if path.suffix != ".onnx":
        return path.name
    match = _STEM.fullmatch(path.stem)
    return (match["label"] or "") if match else path.stem


def _folder(path: PurePosixPath) -> str:
    return "" if str(path.parent) == "." else str(path.parent)


def _beside(path: PurePosixPath, folder: str) -> bool:
    return _folder(path) == folder and bool(_BESIDE.fullmatch(path.name))


def _belongs(path: PurePosixPath, folder: str) -> bool:
    return _beside(path, folder) or (_folder(path) == folder and bool(_WEIGHTS.fullmatch(path.name)))
