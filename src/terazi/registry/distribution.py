"""The OCI distribution protocol: manifests and blobs on a container registry.

Protocol: https://github.com/opencontainers/distribution-spec. Plain HTTP is spoken with this machine only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import DownloadError, FormatError, NotFoundError, UsageError
from terazi.progress import silent
from terazi.registry.http import client, explain, open_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx2

    from terazi.progress import Progress

__all__ = ["Repository", "parse_repository"]

_REPOSITORY = re.compile(
    r"(?P<host>[A-Za-z0-9.-]+(?::\d{1,5})?|\[[0-9a-fA-F:]+\](?::\d{1,5})?)"
    r"/(?P<path>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)
_LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_ACCEPTED = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
_MANIFEST = 8 << 20  # bytes; registries refuse larger ones
_CHUNK = 16 << 20  # bytes per upload request


class Repository:
    """One repository on a registry, for as long as its ``with`` block."""

    def __init__(self, host: str, path: str, *, actions: str = "pull") -> None:
        self.host, self.path, self.actions = host, path, actions
        scheme = "http" if _LOCAL.fullmatch(host) else "https"
        self.base = f"{scheme}://{host}/v2/{path}"
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Repository:
        self.http = client()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()

    def manifest(self, reference: str) -> tuple[dict[str, Any], str]:
        """Return a manifest and its digest (64 hexadecimal digits) by tag or by ``sha256:...``."""
        with self._open("GET", f"{self.base}/manifests/{reference}", {"Accept": _ACCEPTED}) as response:
            if response.status_code == 404:
                raise NotFoundError(f"{self.host}/{self.path} has no {reference}")
            data = self._body(response, _MANIFEST)
        digest = hashlib.sha256(data).hexdigest()
        if reference.startswith("sha256:") and reference != f"sha256:{digest}":
            raise DownloadError(f"{self.host}/{self.path}: the manifest's digest is not {reference}")
        try:
            manifest = json.loads(data)
            layers = manifest["layers"]
            for layer in [*layers, manifest.get("config") or {"digest": "sha256:" + "0" * 64, "size": 0}]:
                check_layer(layer)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FormatError(f"{self.host}/{self.path}", f"not a model's manifest ({error})") from None
        return manifest, digest

    def blob_url(self, digest: str) -> str:
        """Return the address of a blob (``sha256:...``)."""
        return f"{self.base}/blobs/{digest}"

    def blob(self, layer: Mapping[str, Any]) -> bytes:
        """Return a small blob, checked."""
        with self._open("GET", self.blob_url(layer["digest"]), {}) as response:
            data = self._body(response, _MANIFEST)
        if hashlib.sha256(data).hexdigest() != layer["digest"].removeprefix("sha256:"):
            raise DownloadError(f"{self.host}/{self.path}: {layer['digest']} does not match its content")
        return data

    def has_blob(self, digest: str) -> bool:
        """Whether the registry has a blob already."""
        with self._open("HEAD", self.blob_url(digest), {}) as response:
            return response.status_code == 200

    def put_blob(self, digest: str, path: Path, *, progress: Progress = silent) -> None:
        """Upload a file in chunks, unless the registry has it."""
        size = path.stat().st_size
        title = f"pushing {path.name[:30]}"
        if self.has_blob(digest):
            return progress(title, size, size, unit="bytes")
        with self._open("POST", f"{self.base}/blobs/uploads/", {"Content-Length": "0"}) as response:
            target = self._location(response, 202)
        with path.open("rb") as file:
            done = 0
            while chunk := file.read(_CHUNK):
                headers = {
                    "Content-Type": "application/octet-stream",
                    "Content-Range": f"{done}-{done + len(chunk) - 1}",
                }
                with self._open("PATCH", target, headers, chunk) as response:
                    target = self._location(response, 202)
                done += len(chunk)
                progress(title, done, size, unit="bytes")
        joint = "&" if "?" in target else "?"
        with self._open("PUT", f"{target}{joint}digest={digest}", {"Content-Length": "0"}) as response:
            self._location(response, 201)
        return None

    def put_manifest(self, tag: str, manifest: bytes, media_type: str) -> str:
        """Upload a manifest under a tag and return its digest (``sha256:...``)."""
        url = f"{self.base}/manifests/{tag}"
        with self._open("PUT", url, {"Content-Type": media_type}, manifest) as response:
            if response.status_code != 201:
                raise explain(response)
        return f"sha256:{hashlib.sha256(manifest).hexdigest()}"

    def _location(self, response: httpx2.Response, expected: int) -> str:
        if response.status_code != expected:
            raise explain(response)
        return str(response.url.join(response.headers.get("location", "")))

    @staticmethod
    def _body(response: httpx2.Response, limit: int) -> bytes:
        if response.status_code != 200:
            raise explain(response)
        data = bytearray()
        for chunk in response.iter_bytes():
            data += chunk
            if len(data) > limit:
                raise DownloadError(f"{response.url.host} sent more than {limit} bytes for a small document")
        return bytes(data)

    @contextmanager
    def _open(
        self, method: str, url: str, headers: dict[str, str], content: bytes | None = None
    ) -> Iterator[httpx2.Response]:
        """Send a request, logging in once when the registry asks for it."""
        import httpx2

        try:
            for logged_in in (False, True):
                sent = self.headers | headers
                with open_stream(self.http, url, sent, method, content) as response:
                    if response.status_code != 401 or logged_in or response.url.host != httpx2.URL(url).host:
                        yield response
                        return
                    challenge = response.headers.get("www-authenticate", "")
                self.headers["Authorization"] = self._log_in(challenge)
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
            raise DownloadError(f"{self.host} cannot be reached: {reason}") from None

    def _log_in(self, challenge: str) -> str:
        """Return the Authorization header that answers a challenge (RFC 9110; Docker's token scheme)."""
        kind, _, rest = challenge.partition(" ")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        password = _credentials(self.host)
        if kind.lower() == "basic" and password:
            return f"Basic {password}"
        if kind.lower() != "bearer" or not fields.get("realm", "").startswith(("https://", "http://")):
            hint = f"log in with `docker login {self.host}`"
            raise DownloadError(f"{self.host} asks for a login", hint=hint)
        if fields["realm"].startswith("http://") and not _LOCAL.fullmatch(self.host):
            raise DownloadError(f"{self.host} wants a password sent without encryption")
        scope = f"repository:{self.path}:{self.actions}"
        query = {"service": fields.get("service", ""), "scope": scope}
        headers = {"Authorization": f"Basic {password}"} if password else {}
        answer = self.http.get(fields["realm"], params=query, headers=headers)
        if answer.status_code != 200:
            raise explain(answer)
        try:
            found = answer.json()
            return f"Bearer {found.get('token') or found['access_token']}"
        except (ValueError, KeyError, AttributeError):
            raise DownloadError(f"{self.host}: the login answer has no token") from None


def parse_repository(reference: str) -> tuple[str, str, str]:
    """Split ``host/path[:tag][@sha256:...]`` into host, path, and tag or digest. Raises `UsageError`."""
    match = _REPOSITORY.fullmatch(reference)
    if match is None:
        hint = "use oci:host/name:tag, such as oci:localhost:5000/team/model:v1"
        raise UsageError(f"oci:{reference[:200]} is not a repository", hint=hint)
    return match["host"], match["path"], match["digest"] or match["tag"] or "latest"


def check_layer(layer: Any) -> None:
    """Raise `ValueError` unless a descriptor has a SHA-256 and a size."""
    size = layer["size"]
    if not _DIGEST.fullmatch(layer["digest"]) or not isinstance(size, int) or size < 0:
        raise ValueError(f"bad descriptor {str(layer)[:100]}")


def _credentials(host: str) -> str | None:
    """What `docker login` or `podman login` stored for a registry: base64 of ``user:password``."""
    folder = os.environ.get("DOCKER_CONFIG", str(Path.home() / ".docker"))
    try:
        stored = json.loads((Path(folder) / "config.json").read_text())["auths"][host]["auth"]
        return stored if base64.b64decode(stored, validate=True) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
