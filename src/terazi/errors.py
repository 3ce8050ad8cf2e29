"""The errors Terazi raises, each with one clear line and, where there is one, the next step.

Tree::

    TeraziError             anything a user can act on; exit code 1
    ├── UsageError          the request makes no sense as asked; exit code 2
    ├── FormatError         a file is damaged, hostile or not what its name says
    ├── UnsupportedError    the file is fine, Terazi (or the asked-for runtime) cannot handle it
    ├── NotFoundError       a model, device, preset or command does not exist
    ├── ExistsError         the output exists and ``force`` was not given
    ├── MissingExtraError   an optional library is needed
    ├── EngineError         a runtime failed, ran out of memory or crashed
    ├── DownloadError       a source could not be reached or sent wrong bytes
    └── LimitError          a quality or size limit was not met; exit code 3
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "DownloadError",
    "EngineError",
    "ExistsError",
    "FormatError",
    "LimitError",
    "MissingExtraError",
    "NotFoundError",
    "TeraziError",
    "UnsupportedError",
    "UsageError",
]


class TeraziError(Exception):
    """A failure that the user can act on: one line of text, an optional hint, an exit code."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class UsageError(TeraziError):
    """The request makes no sense as asked."""

    exit_code = 2


class FormatError(TeraziError):
    """A file is damaged, hostile or not what its name says."""

    def __init__(self, path: Path | str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"{path}: {problem}", hint=hint)
        self.path = path
        self.problem = problem


class UnsupportedError(TeraziError):
    """The input is valid, but neither Terazi nor the asked-for runtime can handle it."""


class NotFoundError(TeraziError):
    """A model, device, preset or file does not exist."""


class ExistsError(TeraziError):
    """The output exists and overwriting was not asked for."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"{path}: already exists", hint="choose another output or pass --force")


class MissingExtraError(TeraziError):
    """An optional library is needed for this."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs optional libraries that are not installed",
            hint=f"pip install 'terazi[{extra}]'",
        )


class EngineError(TeraziError):
    """A runtime failed, ran out of memory or crashed."""


class DownloadError(TeraziError):
    """A source could not be reached, or what it sent does not match its checksum."""


class LimitError(TeraziError):
    """A quality or size limit was not met."""

    exit_code = 3
