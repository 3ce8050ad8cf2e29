"""Downloading one file: in parallel pieces, continued after any interruption, checked at the end.

Beside the target lie ``<name>.part`` (the pieces that have come, at their place) and ``<name>.part.json``
(which pieces, and the validator of the version they belong to). A version that changes on the server in the
meantime is noticed by its ETag and fetched from the start.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from terazi import files
from terazi.errors import DownloadError
from terazi.progress import silent
from terazi.registry.http import client, explain, open_stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

    from terazi.progress import Progress

__all__ = ["download"]

_PIECE = 8 << 20  # bytes per range request
_RETRIES = 6  # in a row, without a single new byte
_PATIENCE = 8.0  # longest pause between two tries, seconds
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class _ChangedError(Exception):
    """The server no longer has the version that the pieces belong to."""


@dataclass(slots=True)
class _Part:
    """The unfinished file: its pieces and the version they belong to."""

    path: Path
    size: int | None
    validator: str | None
    done: list[tuple[int, int]] = field(default_factory=list)
    resumed: bool = False

    @property
    def journal(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    @property
    def received(self) -> int:
        return sum(stop - start for start, stop in self.done)

    def missing(self) -> list[tuple[int, int]]:
        """Pieces of at most `_PIECE` bytes that have not come."""
        assert self.size is not None
        gaps, position = [], 0
        for start, stop in [*self.done, (self.size, self.size)]:
            gaps += [(low, min(low + _PIECE, start)) for low in range(position, start, _PIECE)]
            position = stop
        return gaps

    def record(self, start: int, stop: int) -> None:
        """Note that the bytes from ``start`` to ``stop`` are there."""
        merged: list[tuple[int, int]] = []
        for low, high in sorted([*self.done, (start, stop)]):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        self.done = merged

    def save(self) -> None:
        """Write the journal, after the bytes it speaks of."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        facts = {"size": self.size, "validator": self.validator, "done": self.done}
        files.write_text(self.journal, json.dumps(facts), force=True)

    def load(self) -> None:
        """Take over what an earlier run left of the same version."""
        try:
            facts = json.loads(self.journal.read_text())
            done = [(int(start), int(stop)) for start, stop in facts["done"]]
            same = (facts["size"], facts["validator"]) == (self.size, self.validator)
            fits = self.path.stat().st_size >= max((stop for _, stop in done), default=0)
        except (OSError, ValueError, TypeError, KeyError):
            return
        if same and fits and self.validator:
            for start, stop in done:
                if 0 <= start <= stop <= (self.size or 0):
                    self.record(start, stop)
            self.resumed = bool(self.done)

    def discard(self) -> None:
        """Delete everything."""
        self.path.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)


def download(
    url: str,
    target: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    headers: Mapping[str, str] | None = None,
    connections: int = 4,
    progress: Progress = silent,
) -> Path:
    """Fetch ``url`` into ``target``, continuing what an earlier run left, and return ``target``.

    ``size`` and ``sha256``, when known, are what the file must have. ``headers`` may carry credentials: they
    never follow a redirect to another host. Raises `DownloadError` (what is there so far is kept unless it
    is wrong) or `NotFoundError`.
    """
    if target.is_file() and sha256 and files.sha256(target) == sha256:
        return target
    with client() as session:
        for _ in range(4):
            try:
                job = _Job(session, url, dict(headers or {}), target, size, sha256, progress)
                resumed = job.run(connections)
            except _ChangedError:
                continue
            actual = files.sha256(job.part.path) if sha256 else None
            if actual == sha256:
                job.part.journal.unlink(missing_ok=True)
                job.part.path.replace(target)
                return target
            job.part.discard()
            if not resumed:
                raise DownloadError(
                    f"{url}: SHA-256 is {actual}, expected {sha256}", hint="the source is not to be trusted"
                )
    raise DownloadError(f"{url}: keeps changing while it is downloaded", hint="try again later")


class _Job:
    """One attempt at one version of a file."""

    def __init__(
        self,
        http: httpx2.Client,
        url: str,
        headers: dict[str, str],
        target: Path,
        size: int | None,
        sha256: str | None,
        progress: Progress,
    ) -> None:
        self.http, self.url, self.headers, self.progress = http, url, headers, progress
        self.title = f"downloading {target.name}"
        self.lock = threading.Lock()
        self.stop = threading.Event()
        self.saved = time.monotonic()
        self.part = _Part(target.with_name(target.name + ".part"), size, sha256)

    def run(self, connections: int) -> bool:
        """Fetch all that is missing. Returns whether some bytes came from an earlier run."""
        try:
            ranges = self._probe()
        except _ChangedError:  # not even a first byte: the file is empty
            ranges = False
        part = self.part
        part.path.parent.mkdir(parents=True, exist_ok=True)
        if part.size is not None:
            free = shutil.disk_usage(part.path.parent).free
            if part.size - part.received > free:
                raise DownloadError(f"{self.title}: needs {part.size} bytes, the disk has {free} left")
        if not ranges or part.size is None:
            part.discard()
            self._stream_whole()
            return False
        part.load()
        with part.path.open("r+b" if part.resumed else "wb") as file:
            file.truncate(part.size)
        pool = ThreadPoolExecutor(connections, thread_name_prefix="download")
        try:
            waiting = [pool.submit(self._fetch, start, stop) for start, stop in part.missing()]
            for future in waiting:
                future.result()
        except BaseException as error:
            self.stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            if isinstance(error, _ChangedError):
                part.discard()
            else:
                with suppress(OSError):
                    part.save()
            raise
        pool.shutdown()
        self.progress(self.title, part.size, part.size, unit="bytes")
        return part.resumed

    def _probe(self) -> bool:
        """Learn the size, the validator and whether the server serves ranges."""
        with self._request({"Range": "bytes=0-0"}) as response:
            length = response.headers.get("content-length", "")
            if response.status_code == 206:
                _, _, length = response.headers.get("content-range", "").rpartition("/")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise DownloadError(f"{self.url}: the server insists on compressing")
            size = int(length) if length.isdigit() else None
            if self.part.size is not None and size is not None and size != self.part.size:
                raise DownloadError(f"{self.url}: has {size} bytes, expected {self.part.size}")
            self.part.size = size
            self.part.validator = _validator(response) or self.part.validator
            return response.status_code == 206

    @staticmethod
    def _delay(failures: int, response_headers: Mapping[str, str]) -> float:
        asked = response_headers.get("retry-after", "")
        return min(float(asked) if asked.isdigit() else 0.1 * 2**failures, _PATIENCE)

    def _request(self, extra: dict[str, str]) -> Any:
        """Open the file, trying again while the server is unreachable or busy."""
        return _Opened(self, extra)

    def _fetch(self, start: int, stop: int) -> None:
        """Fetch the bytes from ``start`` to ``stop`` into their place."""
        with self.part.path.open("r+b") as file:
            file.seek(start)
            failures = 0
            while start < stop and not self.stop.is_set():
                before = start
                try:
                    start = self._fetch_once(file, start, stop)
                except _transport_errors() as error:
                    start = file.tell()
                    failures = 0 if start > before else failures + 1
                    if failures > _RETRIES:
                        raise DownloadError(
                            f"{self.url}: {error or type(error).__name__}", hint="run it again to continue"
                        ) from None
                    self.stop.wait(self._delay(failures, {}))

    def _fetch_once(self, file: IO[bytes], start: int, stop: int) -> int:
        wanted = {"Range": f"bytes={start}-{stop - 1}"}
        if self.part.validator and self.part.validator.startswith('"'):
            wanted["If-Range"] = self.part.validator
        with self._request(wanted) as response:
            where = response.headers.get("content-range", "")
            if response.status_code != 206 or not where.startswith(f"bytes {start}-"):
                raise _ChangedError
            if not where.endswith(f"/{self.part.size}") or _validator(response) not in (
                None,
                self.part.validator,
            ):
                raise _ChangedError
            for chunk in response.iter_raw():
                piece = chunk[: stop - start]
                file.write(piece)
                file.flush()
                self._advance(start, start + len(piece))
                start += len(piece)
                if start == stop or self.stop.is_set():
                    break
        if start < stop and not self.stop.is_set():
            raise EOFError("the connection ended early")
        return start

    def _advance(self, start: int, stop: int) -> None:
        with self.lock:
            self.part.record(start, stop)
            self.progress(self.title, self.part.received, self.part.size or 0, unit="bytes")
            if time.monotonic() - self.saved > 2:
                self.part.save()
                self.saved = time.monotonic()

    def _stream_whole(self) -> None:
        """Fetch from a server without ranges: in one go, or again from the start."""
        problem = ""
        for failures in range(_RETRIES + 1):
            received = 0
            try:
                with self.part.path.open("wb") as file, self._request({}) as response:
                    for chunk in response.iter_raw():
                        file.write(chunk)
                        received += len(chunk)
                        if self.part.size is not None and received > self.part.size:
                            raise DownloadError(f"{self.url}: sends more than its {self.part.size} bytes")
                        self.progress(self.title, received, self.part.size or 0, unit="bytes")
                if self.part.size not in (None, received):
                    raise EOFError("the connection ended early")
                return
            except _transport_errors() as error:
                problem = str(error) or type(error).__name__
                self.stop.wait(self._delay(failures, {}))
        self.part.discard()
        raise DownloadError(f"{self.url}: {problem}", hint="the server cannot continue downloads; try again")


class _Opened:
    """A context manager around a response that has a usable status."""

    def __init__(self, job: _Job, extra: dict[str, str]) -> None:
        self.job, self.extra = job, extra

    def __enter__(self) -> httpx2.Response:
        job = self.job
        for failures in range(_RETRIES + 1):
            self.opened = open_stream(job.http, job.url, job.headers | self.extra)
            try:
                response = self.opened.__enter__()
            except _transport_errors() as error:
                if failures == _RETRIES or _unreachable(error):
                    raise DownloadError(
                        f"{job.url}: {error or type(error).__name__}", hint="run it again to continue"
                    ) from None
                job.stop.wait(job._delay(failures, {}))
                continue
            if response.status_code in (200, 206):
                return response
            self.opened.__exit__(None, None, None)
            if response.status_code == 416:
                raise _ChangedError
            if response.status_code not in _RETRIED or failures == _RETRIES:
                raise explain(response)
            job.stop.wait(job._delay(failures, response.headers))
        raise AssertionError

    def __exit__(self, *error: Any) -> None:
        self.opened.__exit__(*error)


def _transport_errors() -> tuple[type[BaseException], ...]:
    import httpx2

    return (httpx2.TransportError, EOFError)


def _unreachable(error: BaseException) -> bool:
    """Whether trying again is of no use: the host is unknown or nobody listens."""
    import httpx2

    return isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol))


def _validator(response: httpx2.Response) -> str | None:
    """What tells one version of the file from another: a strong ETag, else the date of its last change."""
    etag = response.headers.get("etag", "")
    return etag if etag.startswith('"') else response.headers.get("last-modified")
