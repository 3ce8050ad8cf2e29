"""The store: model files by digest, and the names that point to them.

::

    blobs/sha256-<hex>         file contents and manifests, read-only, each stored once
    refs/<model>/<tag>         one line: the digest of a manifest ("/" in a model's name is written "+")
    models/<digest>/<file>     the same blobs under their own names, as engines want them (hard links)
    partial/                   downloads under way

Every change is a rename made under one lock, so a crash or a second process never leaves half an entry.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from terazi import files
from terazi.errors import ExistsError, FormatError, NotFoundError, TeraziError
from terazi.progress import silent
from terazi.registry.manifest import Entry, Manifest, StoredFile, check_file_name
from terazi.registry.names import Name, parse_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from terazi.model import Model
    from terazi.progress import Progress

__all__ = ["Store"]

Share = Literal["copy", "link", "move"]
_CHUNK = 1 << 22
_STALE = 7 * 24 * 3600.0  # unfinished downloads that nobody came back to for a week


class Store:
    """A content-addressed store of models, by default in ``$TERAZI_HOME`` or ``~/.terazi``."""

    def __init__(self, root: Path | str | None = None) -> None:
        chosen = root or os.environ.get("TERAZI_HOME") or Path.home() / ".terazi"
        self.root = Path(chosen).absolute()

    # Reading

    def entries(self) -> list[Entry]:
        """Return every model that can be read, sorted by name."""
        return self._read()[0]

    def damaged(self) -> dict[str, str]:
        """Return what is wrong by name, of models whose manifests cannot be read."""
        return self._read()[1]

    def _read(self) -> tuple[list[Entry], dict[str, str]]:
        entries, damaged = [], {}
        for name in sorted(Name(ref.parent.name.replace("+", "/"), ref.name) for ref in self._refs()):
            try:
                entries.append(self.entry(str(name)))
            except NotFoundError:  # removed by another process meanwhile
                continue
            except TeraziError as error:
                damaged[str(name)] = error.message
        return entries, damaged

    def entry(self, name: str) -> Entry:
        """Return what ``name`` points to. Raises `NotFoundError`."""
        parsed = parse_name(name)
        path = self._ref(parsed)
        try:
            digest, added = _digest(path), path.stat().st_mtime
        except FileNotFoundError:
            raise NotFoundError(
                f"{parsed} is not in the store", hint="see `terazi list` and `terazi catalog`"
            ) from None
        blob = self.blob(digest)
        if blob is None:
            raise FormatError(path, "its manifest is missing", hint=f"pull {parsed} again")
        return Entry(
            name=str(parsed),
            digest=digest,
            manifest=Manifest.from_bytes(blob.read_bytes(), blob),
            added=added,
        )

    def __contains__(self, name: str) -> bool:
        return self._ref(parse_name(name)).is_file()

    def blob(self, digest: str) -> Path | None:
        """Return the file with this SHA-256, or None when it is not stored."""
        path = self.root / "blobs" / f"sha256-{digest}"
        return path if len(digest) == 64 and digest.isalnum() and path.is_file() else None

    def resolve(self, name: str) -> Path:
        """Return the model's path: its GGUF file (of a split one the first part), else its directory."""
        entry = self.entry(name)
        weights = entry.manifest.weights
        if not weights:
            raise FormatError(entry.name, "its manifest names no weights", hint=f"pull {entry.name} again")
        directory = self._view(entry)
        single = len(weights) == 1 or entry.manifest.format == "gguf"
        return directory / weights[0].name if single else directory

    def file(self, entry: Entry, stored: StoredFile) -> Path:
        """Return the path of one file of an entry, under its own name."""
        return self._view(entry) / stored.name

    def from_source(self, source: str) -> Entry | None:
        """Return an entry that was pulled from exactly this source, if any."""
        return next((entry for entry in self.entries() if entry.manifest.source == source), None)

    # Changing

    def add(
        self,
        path: Path | str,
        name: str,
        *,
        share: Share = "copy",
        progress: Progress = silent,
        **described: Any,
    ) -> Entry:
        """Store a model file or directory under a name; an existing name moves to the new content.

        ``share="link"`` hard-links instead of copying: for files that nothing will change in place.
        ``described`` are `Manifest` fields (``source``, ``license``, ``lineage``, ...); format and licence
        are read from the model. Raises `FormatError` for anything that is no model.
        """
        parse_name(name)
        return self.commit(name, self.take(path, share=share, progress=progress, **described))

    def take(
        self, path: Path | str, *, share: Share = "copy", progress: Progress = silent, **described: Any
    ) -> Manifest:
        """Store a model's contents without a name yet; otherwise like `add`."""
        path = Path(path)
        model, found = _opened(path)
        described = {"format": model.format, "license": model.license} | described
        total = sum(file.stat().st_size for file in found.values())
        stored, done = [], 0
        for relative, file in found.items():
            size = file.stat().st_size
            stored.append(StoredFile(relative, self.put(file, share=share), size))
            done += size
            progress(f"storing {path.name}", done, total, unit="bytes")
        return Manifest(files=tuple(stored), **described)

    def put(self, path: Path, *, share: Share = "copy", digest: str | None = None) -> str:
        """Store one file's content and return its SHA-256.

        Pass ``digest`` only when it was just computed from this very file. The content is safe from
        `collect` for a week even when no name points to it yet.
        """
        blobs = self._made("blobs")
        temporary = blobs / f".{uuid.uuid4().hex}.part"
        try:
            if share == "copy" or not _linked(path, temporary):
                digest = _copied(path, temporary)
            digest = digest or files.sha256(temporary)
            target = self._blob_path(digest)
            if target.exists():
                target.touch()  # still wanted: see `collect`
            else:
                if share != "link":
                    temporary.chmod(0o444)
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        if share == "move":
            path.unlink()
        return digest

    def put_bytes(self, data: bytes) -> str:
        """Store a small content and return its SHA-256."""
        digest = hashlib.sha256(data).hexdigest()
        target = self._made("blobs") / f"sha256-{digest}"
        if target.exists() and target.read_bytes() == data:
            target.touch()
        else:
            files.write_bytes(target, data, force=True)
            target.chmod(0o444)
        return digest

    def commit(self, name: str, manifest: Manifest) -> Entry:
        """Point a name at a manifest whose files are all stored. Raises `TeraziError` when one is missing."""
        parsed = parse_name(name)
        with self.lock():
            for file in manifest.files:
                check_file_name(file.name, str(parsed))
                if self.blob(file.digest) is None:
                    raise TeraziError(f"{parsed}: content of {file.name} is missing", hint="pull it again")
            self._point(parsed, self.put_bytes(manifest.to_bytes()))
        return self.entry(str(parsed))

    def tag(self, name: str, alias: str, *, force: bool = False) -> Entry:
        """Give a stored model another name. Raises `ExistsError` when the name is taken by another model."""
        target = parse_name(alias)
        with self.lock():
            digest = self.entry(name).digest
            if str(target) in self and not force and self.entry(str(target)).digest != digest:
                raise ExistsError(str(target))
            self._point(target, digest)
        return self.entry(str(target))

    def remove(self, name: str) -> int:
        """Forget a name and delete what nothing else uses. Returns the bytes freed."""
        parsed = parse_name(name)
        with self.lock():
            if str(parsed) not in self:
                raise NotFoundError(f"{parsed} is not in the store", hint="see `terazi list`")
            path = self._ref(parsed)
            mine = self._mentioned([path])
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()
            return self._sweep(mine - self._mentioned(self._refs()))

    def collect(self, *, older_than: float = _STALE) -> int:
        """Delete content that no name uses and unfinished downloads. Returns the bytes freed.

        What is younger than ``older_than`` seconds stays: another process may be about to name it.
        """
        limit = time.time() - older_than
        freed = 0
        with self.lock():
            used = self._mentioned(self._refs())
            unused = {
                path.name.removeprefix("sha256-")
                for path in self._listed("blobs")
                if path.name.startswith("sha256-") and path.stat().st_mtime < limit
            }
            freed += self._sweep(unused - used)
            for path in self._listed("blobs"):
                if path.suffix == ".part" and path.stat().st_mtime < limit:
                    freed += path.stat().st_size
                    path.unlink()
            for path in self._listed("partial"):
                if path.stat().st_mtime < limit:
                    freed += sum(part.stat().st_size for part in path.rglob("*") if part.is_file())
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        return freed

    def verify(self, *, progress: Progress = silent) -> dict[str, str]:
        """Hash everything again. Returns problem by blob digest or name; empty when all is well."""
        problems: dict[str, str] = {}
        blobs = [path for path in self._listed("blobs") if path.name.startswith("sha256-")]
        total, done = sum(path.stat().st_size for path in blobs), 0
        for path in blobs:
            expected = path.name.removeprefix("sha256-")
            if (actual := files.sha256(path)) != expected:
                problems[f"sha256:{expected}"] = f"its content now has SHA-256 {actual}"
            done += path.stat().st_size
            progress("verifying", done, total, unit="bytes")
        for ref in self._refs():
            name = f"{ref.parent.name.replace('+', '/')}:{ref.name}"
            try:
                entry = self.entry(name)
            except TeraziError as error:
                problems[name] = error.message
                continue
            for file in entry.manifest.files:
                blob = self.blob(file.digest)
                if blob is None:
                    problems[name] = f"{file.name} is missing"
                elif f"sha256:{file.digest}" in problems or blob.stat().st_size != file.size:
                    problems[name] = f"{file.name} is damaged"
        return problems

    def discard_damaged(self, problems: Mapping[str, str]) -> None:
        """Delete the damaged contents that `verify` found, so that the next pull fetches them again."""
        with self.lock():
            self._sweep({key.removeprefix("sha256:") for key in problems if key.startswith("sha256:")})

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one change; other processes and threads wait."""
        from filelock import FileLock

        with FileLock(self._made(".") / "lock"):
            yield

    def workplace(self, key: str) -> Path:
        """Return a directory for an unfinished download that later runs with the same key find again."""
        return self._made(f"partial/{hashlib.sha256(key.encode()).hexdigest()[:32]}")

    # Layout

    def _made(self, folder: str) -> Path:
        path = self.root / folder
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _listed(self, folder: str) -> list[Path]:
        path = self.root / folder
        return sorted(path.iterdir()) if path.is_dir() else []

    def _blob_path(self, digest: str) -> Path:
        return self.root / "blobs" / f"sha256-{digest}"

    def _ref(self, name: Name) -> Path:
        return self.root / "refs" / name.model.replace("/", "+") / name.tag

    def _refs(self) -> list[Path]:
        folders = [folder for folder in self._listed("refs") if folder.is_dir()]
        return [ref for folder in folders for ref in folder.iterdir() if ref.name[0] != "." and ref.is_file()]

    def _point(self, name: Name, digest: str) -> None:
        path = self._ref(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, f"{digest}\n", force=True)

    def _mentioned(self, refs: Sequence[Path]) -> set[str]:
        """Digests of the manifests and files that these refs need; a damaged manifest names no files."""
        found: set[str] = set()
        for ref in refs:
            digest = _digest(ref)
            found.add(digest)
            if blob := self.blob(digest):
                with suppress(FormatError):
                    found.update(file.digest for file in Manifest.from_bytes(blob.read_bytes(), blob).files)
        return found

    def _sweep(self, digests: set[str]) -> int:
        freed = 0
        for digest in digests:
            view = self.root / "models" / digest
            if view.is_dir():
                shutil.rmtree(view)
            if path := self.blob(digest):
                freed += path.stat().st_size
                path.unlink()
        return freed

    def _view(self, entry: Entry) -> Path:
        """The directory with an entry's files under their own names, made on first use."""
        directory = self.root / "models" / entry.digest
        if directory.is_dir() and all((directory / file.name).exists() for file in entry.manifest.files):
            return directory
        building = self._made("models") / f".{uuid.uuid4().hex}"
        try:
            for file in entry.manifest.files:
                blob = self.blob(file.digest)
                if blob is None:
                    raise FormatError(entry.name, f"{file.name} is missing", hint=f"pull {entry.name} again")
                target = building / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                if not _linked(blob, target):
                    target.symlink_to(blob)
            with self.lock():
                if directory.is_dir():
                    shutil.rmtree(directory)
                building.rename(directory)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return directory


def _digest(ref: Path) -> str:
    return ref.read_text(errors="replace").strip()


def _opened(path: Path) -> tuple[Model, dict[str, Path]]:
    """Open a model and list its files by relative name. Raises `FormatError` for what is no model."""
    from terazi.formats import open_model

    model = open_model(path)
    if path.is_file():
        whole = model.files if len(model.files) > 1 else (path,)  # a split file brings its other parts
        return model, {_own_name(file): file for file in whole}
    found = {}
    for file in sorted(path.rglob("*")):
        relative = file.relative_to(path)
        if file.is_file() and not any(part.startswith(".") for part in relative.parts):
            found[check_file_name(relative.as_posix(), path)] = file
    return model, found


def _own_name(path: Path) -> str:
    try:
        return check_file_name(path.name, path)
    except FormatError:
        return f"model{path.suffix if path.suffix.isalnum() else ''}"


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        return False
    return True


def _copied(source: Path, target: Path) -> str:
    """Copy, sharing blocks where the file system can, and return the SHA-256 of the copy."""
    if _cloned(source, target):
        return files.sha256(target)
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK):
            digest.update(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest()


def _cloned(source: Path, target: Path) -> bool:
    """Clone by copy-on-write (Linux: Btrfs, XFS, bcachefs)."""
    if not sys.platform.startswith("linux"):
        return False
    import fcntl

    clone = 0x40049409  # FICLONE of linux/fs.h
    try:
        with source.open("rb") as reader, target.open("wb") as writer:
            fcntl.ioctl(writer.fileno(), clone, reader.fileno())
    except OSError:
        target.unlink(missing_ok=True)
        return False
    return True
