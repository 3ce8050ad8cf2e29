"""Modelfiles: what a model is made from and how it is run, as text.

Format: https://github.com/ollama/ollama/blob/main/docs/modelfile.md. Instructions may come in any order and
case; values may be quoted, and span lines between triple quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from terazi.errors import FormatError, UsageError
from terazi.serve.prepare import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.registry import Entry

__all__ = ["Modelfile", "parse", "render"]

_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)[ \t]+(.*)", re.DOTALL)
_INSTRUCTIONS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES")
_ROLES = ("system", "user", "assistant")
# Parameters for loading rather than for sampling; the others are those of `OPTIONS`.
_LOADING = ("num_ctx", "draft_model")
_IGNORED = ("num_gpu", "num_thread", "num_batch", "main_gpu", "low_vram", "use_mmap", "use_mlock", "numa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelfile:
    """The instructions of a Modelfile. ``base`` is FROM: a name, a source or a path.

    Further FROMs are ``projectors``, which let the model see. ``files`` are contents in the store by file
    name (from Ollama's API), instead of a base.
    """

    base: str = ""
    projectors: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    adapters: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    template: str = ""
    system: str = ""
    license: str = ""
    messages: tuple[Mapping[str, str], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """What the store keeps of it."""
        settings = {
            "parameters": dict(self.parameters),
            "template": self.template,
            "system": self.system,
            "messages": list(self.messages),
        }
        return {key: value for key, value in settings.items() if value}

    def parameter_lines(self) -> list[tuple[str, str]]:
        """Parameters as they are written, one value each."""
        return [
            (name, str(item))
            for name, value in self.parameters.items()
            for item in (value if isinstance(value, list | tuple) else [value])
        ]

    @staticmethod
    def of(entry: Entry) -> Modelfile:
        """Describe a stored model."""
        settings = entry.manifest.settings
        return Modelfile(
            base=entry.name,
            parameters=settings.get("parameters", {}),
            template=settings.get("template", ""),
            system=settings.get("system", ""),
            license=entry.manifest.license or "",
            messages=tuple(settings.get("messages", ())),
        )

    @staticmethod
    def from_request(body: Mapping[str, Any]) -> Modelfile:
        """Read the fields of a request to ``/api/create``; a whole Modelfile as text is accepted too."""
        if isinstance(body.get("modelfile"), str):
            return parse(body["modelfile"])
        license = body.get("license") or ""
        messages = body.get("messages") or ()
        parameters = body.get("parameters") or {}
        if not isinstance(parameters, dict) or not isinstance(messages, list | tuple):
            raise UsageError("parameters must be an object, messages a list")
        return Modelfile(
            base=str(body.get("from") or ""),
            files=_digests(body.get("files")),
            adapters=tuple(_digests(body.get("adapters")).values()),
            parameters={
                name: _checked(name, value) for name, value in parameters.items() if name not in _IGNORED
            },
            template=str(body.get("template") or ""),
            system=str(body.get("system") or ""),
            license=license if isinstance(license, str) else "\n".join(map(str, license)),
            messages=tuple(_message(m.get("role"), m.get("content")) for m in messages),
        )


def parse(text: str, origin: str = "Modelfile") -> Modelfile:
    """Read a Modelfile. Raises `FormatError` naming the line that is wrong."""
    found: dict[str, Any] = {"parameters": {}, "projectors": (), "adapters": (), "messages": ()}
    for number, keyword, value in _instructions(text, origin):
        try:
            _take(found, keyword, value)
        except UsageError as error:
            raise FormatError(f"{origin}, line {number}", error.message, hint=error.hint) from None
    if "base" not in found:
        raise FormatError(origin, "no FROM", hint="begin with FROM and a model, such as FROM smollm2:135m")
    return Modelfile(**found)


def _instructions(text: str, origin: str) -> list[tuple[int, str, str]]:
    """Line number, keyword and value of each instruction."""
    found = []
    lines = text.lstrip("\ufeff").splitlines()
    index = 0
    while index < len(lines):
        number, line = index + 1, lines[index]
        index += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _INSTRUCTION.fullmatch(line)
        keyword = match[1].upper() if match else ""
        if match is None or keyword not in _INSTRUCTIONS:
            hint = f"an instruction is one of {', '.join(_INSTRUCTIONS)}"
            raise FormatError(
                f"{origin}, line {number}", f"{line.strip()[:60]!r} is no instruction", hint=hint
            )
        head, quote, value = match[2].partition('"""')
        if quote and not head.strip().strip("abcdefghijklmnopqrstuvwxyz_"):
            while '"""' not in value:
                if index == len(lines):
                    raise FormatError(f"{origin}, line {number}", 'the """ is never closed')
                value += "\n" + lines[index]
                index += 1
            found.append((number, keyword, head + value.partition('"""')[0]))
        else:
            found.append((number, keyword, _unquoted(match[2].strip())))
    return found


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _take(found: dict[str, Any], keyword: str, value: str) -> None:
    if keyword == "FROM" and "base" in found:
        found["projectors"] += (value,)
    elif keyword == "FROM":
        found["base"] = value
    elif keyword == "PARAMETER":
        name, _, text = value.partition(" ")
        name = name.lower()
        if name in _IGNORED:
            return
        text = _unquoted(text.strip())
        checked = _checked(name, [text] if name == "stop" else text)
        found["parameters"][name] = found["parameters"].get(name, []) + checked if name == "stop" else checked
    elif keyword == "MESSAGE":
        role, _, content = value.partition(" ")
        found["messages"] += (_message(role.lower(), _unquoted(content.strip())),)
    elif keyword == "ADAPTER":
        found["adapters"] += (value,)
    elif keyword == "LICENSE":
        found["license"] = "\n".join(filter(None, [found.get("license"), value]))
    elif keyword in ("TEMPLATE", "SYSTEM"):
        found[keyword.lower()] = value


def _checked(name: str, value: Any) -> Any:
    """Return a parameter's value with its type."""
    if name not in OPTIONS and name not in _LOADING:
        known = ", ".join(sorted([*OPTIONS, *_LOADING]))
        raise UsageError(f"unknown parameter {name!r}", hint=f"known are {known}")
    if name == "draft_model":
        return str(value)
    if name == "stop":
        return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]
    try:
        number = float(value)
        whole = name.startswith(("num_", "top_k", "seed", "mirostat")) and name not in (
            "mirostat_tau",
            "mirostat_eta",
        )
        if number != number or abs(number) > 1e18 or (whole and number != int(number)):
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(f"{name} cannot be {value!r}"[:200]) from None
    return int(number) if whole or name == "repeat_last_n" else number


def _message(role: Any, content: Any) -> dict[str, str]:
    if role not in _ROLES or not isinstance(content, str):
        raise UsageError(f"MESSAGE {role!r}: the role is one of {', '.join(_ROLES)}"[:200])
    return {"role": role, "content": content}


def _digests(files: Any) -> dict[str, str]:
    """File name -> digest without ``sha256:``, from Ollama's API."""
    if files is None:
        return {}
    if not isinstance(files, dict):
        raise UsageError("files must be an object of file names and digests")
    return {str(name): str(digest).removeprefix("sha256:") for name, digest in files.items()}


def render(modelfile: Modelfile) -> str:
    """Write a Modelfile."""

    def quoted(text: str) -> str:
        return f'"""{text}"""' if "\n" in text or '"' in text else f'"{text}"'

    lines = [f"FROM {base}" for base in (modelfile.base, *modelfile.projectors)]
    lines += [f"ADAPTER {adapter}" for adapter in modelfile.adapters]
    if modelfile.template:
        lines.append(f'TEMPLATE """{modelfile.template}"""')
    if modelfile.system:
        lines.append(f"SYSTEM {quoted(modelfile.system)}")
    for name, value in modelfile.parameter_lines():
        lines.append(f"PARAMETER {name} {quoted(value) if name == 'stop' else value}")
    lines += [f"MESSAGE {m['role']} {quoted(m['content'])}" for m in modelfile.messages]
    if modelfile.license:
        lines.append(f"LICENSE {quoted(modelfile.license)}")
    return "\n".join(lines) + "\n"
