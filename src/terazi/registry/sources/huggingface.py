"""Models on the Hugging Face hub: ``hf:org/name[@revision][/path]``; honours HF_ENDPOINT and HF_TOKEN.

The hub's library lists a repository and finds the token; the files come by Terazi's own parallel download,
checked against the SHA-256 that the hub keeps for large files.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from terazi.errors import DownloadError, NotFoundError, UsageError
from terazi.registry.names import suggest
from terazi.registry.sources import Offer, Remote
from terazi.registry.sources.onnx_variants import onnx_variants, usual_variant, variant_label

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from terazi.progress import Progress

__all__ = ["offer"]

_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REFERENCE = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>{_PART}))?(?:/(?P<file>.+))?")
_LABEL = re.compile(r"(?:^|[._-])(I?Q\d\w*|T?Q\d_\w+|B?F16|F32|MXFP4\w*)(?:[._-]|$)", re.IGNORECASE)
_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_SHOWN = 12
_CONNECT = 4.0  # seconds until an unreachable hub is passed over
# What a Hugging Face directory needs to be converted and run; never pickles.
_WANTED = re.compile(
    r"(?:[\w.-]+/)?[\w.-]+\.(?:safetensors|json|model|jinja|tiktoken|txt)|LICENSE[\w.-]*|README\.md"
)
_ENOUGH = re.compile(r"model.*\.safetensors(?:\.index\.json)?$")


def offer(reference: str, *, workplace: Path, progress: Progress) -> Offer:
    """Offer one GGUF file of a repository (all its parts when it is split), the checkpoint directory, or one
    ONNX model with its tokenizer.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(
            f"hf:{reference[:200]} is not a repository", hint="use hf:org/name or hf:org/name/file.gguf"
        )
    info = _model_info(match["repo"], match["revision"])
    names = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    chosen = _choose(list(names), match["file"], match["repo"])
    return Offer(
        source=f"hf:{match['repo']}@{info.sha}{f'/{chosen.path}' if chosen.path else ''}",
        name=suggest(match["repo"], chosen.label),
        files=tuple(
            _remote(match["repo"], info.sha, names[remote], stored) for stored, remote in chosen.files.items()
        ),
        license=(info.card_data or {}).get("license") if info.card_data else None,
    )


def _model_info(repo: str, revision: str | None) -> Any:
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    try:
        return HfApi(endpoint=_endpoint()).model_info(
            repo, revision=revision, files_metadata=True, timeout=_CONNECT
        )
    except hub.GatedRepoError:
        hint = f"accept its terms at https://huggingface.co/{repo}, then set HF_TOKEN"
        raise DownloadError(f"hf:{repo} asks you to accept its terms first", hint=hint) from None
    except hub.RepositoryNotFoundError:
        hint = "check the name; a private repository needs HF_TOKEN"
        raise NotFoundError(f"hf:{repo} does not exist", hint=hint) from None
    except hub.RevisionNotFoundError:
        raise NotFoundError(f"hf:{repo} has no revision {revision}") from None
    except (hub.HfHubHTTPError, hub.HFValidationError, ValueError) as error:
        raise DownloadError(f"the Hugging Face hub does not answer as it should: {_reason(error)}") from None
    except (httpx2.HTTPError, OSError) as error:
        raise DownloadError(f"the Hugging Face hub cannot be reached: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT")


@dataclass(frozen=True, slots=True)
class _Choice:
    """One model: name in the store -> name in the repository; its path there if there are others; a label."""

    files: Mapping[str, str]
    path: str = ""
    label: str = ""


def _choose(names: list[str], wanted: str | None, repo: str) -> _Choice:
    variants = onnx_variants(names)
    if wanted:
        return _named(wanted.rstrip("/"), names, variants, repo)
    if any(_ENOUGH.fullmatch(name) for name in names):
        return _Choice({name: name for name in sorted(names) if _WANTED.fullmatch(name)})
    weights = [
        name
        for name in _gguf(names)
        if (not _SHARD.search(name) or "-00001-of-" in name)
        and not PurePosixPath(name).name.lower().startswith("mmproj")
    ]
    preferred = [name for name in weights if "Q4_K_M" in name.upper()] or weights
    if len(preferred) == 1:
        choice = _files(preferred[0], names)
        return choice if choice.label else replace(choice, path="")
    if weights:
        raise _ambiguous(repo, "GGUF files", weights)
    usual = usual_variant(list(variants))
    if usual is not None:
        return _Choice(variants[usual], usual, variant_label(usual))
    if variants:
        raise _ambiguous(repo, "ONNX models", list(variants))
    raise NotFoundError(f"hf:{repo} has neither safetensors nor GGUF or ONNX files")


def _named(wanted: str, names: list[str], variants: Mapping[str, Mapping[str, str]], repo: str) -> _Choice:
    if wanted in variants:
        others = any(_ENOUGH.fullmatch(name) for name in names)
        return _Choice(variants[wanted], wanted, variant_label(wanted) or ("onnx" if others else ""))
    if wanted not in names:
        known = [*_gguf(names), *filter(None, variants)]
        raise NotFoundError(
            f"hf:{repo} has no file {wanted!r}", hint=f"it has {_list(known)}" if known else None
        )
    return _files(wanted, names)


def _files(name: str, names: list[str]) -> _Choice:
    """A file, with all its parts when it is split."""
    label = _LABEL.search(PurePosixPath(name).stem) if name.endswith(".gguf") else None
    files = {PurePosixPath(part).name: part for part in _with_parts(name, names)}
    return _Choice(files, name, label[1] if label else "")


def _gguf(names: list[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(".gguf"))


def _ambiguous(repo: str, kind: str, choices: list[str]) -> UsageError:
    return UsageError(
        f"hf:{repo} has {len(choices)} {kind}: {_list(choices)}", hint=f"add one: hf:{repo}/{choices[0]}"
    )


def _list(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (" and others" if len(names) > _SHOWN else "")


def _with_parts(name: str, names: list[str]) -> list[str]:
    shard = _SHARD.search(name)
    if shard is None:
        return [name]
    stem, total = name[: shard.start()], shard[2]
    parts = [f"{stem}-{number:05d}-of-{total}.gguf" for number in range(1, int(total) + 1)]
    if missing := [part for part in parts if part not in names]:
        raise NotFoundError(f"the repository lacks {missing[0]}")
    return parts


def _remote(repo: str, revision: str, sibling: Any, stored: str) -> Remote:
    from huggingface_hub import get_token, hf_hub_url

    token = get_token()
    return Remote(
        name=stored,
        url=hf_hub_url(repo, sibling.rfilename, revision=revision, endpoint=_endpoint()),
        size=sibling.size,
        sha256=sibling.lfs.sha256 if sibling.lfs else None,
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )
