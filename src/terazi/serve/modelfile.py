"""Modelfiles: what a model is made from and how it is run, as text; and making models by them.

Format: https://github.com/ollama/ollama/blob/main/docs/modelfile.md. Instructions may come in any order and
case; values may be quoted, and span lines between triple quotes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from terazi.errors import FormatError, NotFoundError, UnsupportedError, UsageError
from terazi.progress import silent
from terazi.registry import Manifest, Store, StoredFile, pull
from terazi.registry.names import parse_name, split_source
from terazi.serve.prepare import OPTIONS
from terazi.serve.template import to_jinja

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.progress import Progress
    from terazi.registry import Entry

__all__ = ["Modelfile", "create", "parse", "render"]

_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)[ \t]+(.*)", re.DOTALL)
_INSTRUCTIONS = ("FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES")
_ROLES = ("system", "user", "assistant")
# Parameters for loading rather than for sampling; the others are those of `OPTIONS`.
_LOADING = ("num_ctx",)
_IGNORED = ("num_gpu", "num_thread", "num_batch", "main_gpu", "low_vram", "use_mmap", "use_mlock", "numa")


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelfile:
    """The instructions of a Modelfile. ``base`` is FROM: a name, a source or a path.

    ``files`` are contents in the store by file name (from Ollama's API), instead of a base.
    """

    base: str = ""
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
    found: dict[str, Any] = {"parameters": {}, "adapters": (), "messages": ()}
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
    if keyword == "FROM":
        if "base" in found:
            raise UsageError("a second FROM", hint="a model is made from one other")
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

    lines = [f"FROM {modelfile.base}"]
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


def create(
    modelfile: Modelfile,
    name: str,
    *,
    store: Store | None = None,
    quantize: str | None = None,
    directory: Path | None = None,
    local_files: bool = True,
    progress: Progress = silent,
) -> Entry:
    """Store a model under ``name`` as a Modelfile says; paths in it are relative to ``directory``.

    ``quantize`` names a preset to quantize the base to. ``local_files`` allows paths at all: what comes over
    a network must not name this machine's files. Raises `NotFoundError`, `UnsupportedError`, `UsageError`.
    """
    store = store or Store()
    target = str(parse_name(name))
    to_jinja(modelfile.template)  # refuse now what could not be served later
    folder = (directory or Path.cwd()) if local_files else None
    base = _base(modelfile, store, folder, progress)
    if quantize:
        base = _quantized(base, quantize, store, progress)
    adapters = tuple(
        _adapter(adapter, number, base, store, folder) for number, adapter in enumerate(modelfile.adapters)
    )
    own = modelfile.settings
    inherited = base.settings
    parameters = {**inherited.get("parameters", {}), **own.get("parameters", {})}
    settings = {**inherited, **own, **({"parameters": parameters} if parameters else {})}
    made = replace(
        base,
        files=(*base.files, *adapters),
        settings=settings,
        license=modelfile.license.partition("\n")[0][:100] or base.license,
    )
    return store.commit(target, made)


def _base(modelfile: Modelfile, store: Store, folder: Path | None, progress: Progress) -> Manifest:
    if modelfile.files:
        return _from_blobs(modelfile.files, store)
    base = modelfile.base
    if not base:
        raise UsageError("say what to make it from (FROM)")
    if split_source(base) is None:
        path = folder / Path(base).expanduser() if folder else None
        if path is not None and path.exists():
            return _imported(path, store, progress)
        if base in store:
            return store.entry(base).manifest
    elif folder is None and base.startswith("file:"):
        raise UsageError("files of the server cannot be named over the network")
    return pull(base, store=store, progress=progress).manifest


def _imported(path: Path, store: Store, progress: Progress) -> Manifest:
    from terazi.convert import converter
    from terazi.formats import open_model

    model = open_model(path)
    source = f"file:{path.resolve()}"
    if model.format == "gguf":
        return store.take(path, source=source, progress=progress)
    output = store.workplace(f"create {path.resolve()}") / f"{path.resolve().name}.gguf"
    converter("gguf", output)(model, output, force=True, progress=progress)
    return store.take(output, share="move", source=source, license=model.license, progress=progress)


def _from_blobs(files: Mapping[str, str], store: Store) -> Manifest:
    from terazi.registry.manifest import check_file_name

    stored = []
    for name, digest in files.items():
        blob = store.blob(digest)
        if blob is None:
            raise NotFoundError(f"{name}: its content sha256:{digest[:12]}… was not uploaded")
        with blob.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UnsupportedError(
                    f"{name} is no GGUF file", hint="terazi convert makes one of a checkpoint"
                )
        stored.append(StoredFile(check_file_name(Path(name).name, "files"), digest, blob.stat().st_size))
    return Manifest(format="gguf", files=tuple(stored))


def _adapter(adapter: str, number: int, base: Manifest, store: Store, folder: Path | None) -> StoredFile:
    from terazi.convert.lora import convert_adapter, is_peft
    from terazi.formats import open_model

    path = folder / Path(adapter).expanduser() if folder is not None else None
    digest = adapter
    if path is not None and is_peft(path):
        shape = open_model(_only_blob(base, store)).config
        output = store.workplace(f"adapter {path.resolve()}") / "adapter.gguf"
        digest = store.put(convert_adapter(path, shape, output, force=True), share="move")
    elif path is not None and path.is_dir():
        raise UnsupportedError(f"adapter {adapter} is a directory without adapter_config.json")
    elif path is not None and path.exists():
        digest = store.put(path)
    blob = store.blob(digest)
    if blob is None:
        raise NotFoundError(f"adapter {adapter}: no such file")
    with blob.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UnsupportedError(f"adapter {adapter} is no GGUF file")
    return StoredFile(f"adapter-{number}.gguf", digest, blob.stat().st_size, "adapter")


def _quantized(base: Manifest, preset_name: str, store: Store, progress: Progress) -> Manifest:
    from terazi.quantize import apply, make_plan, open_source, preset

    chosen = preset(preset_name).name
    weights, source = base.weights[0], open_source(_only_blob(base, store))
    plan = make_plan(source, chosen)
    output = store.workplace(f"create {weights.digest} {chosen}") / f"{Path(weights.name).stem}-{chosen}.gguf"
    apply(plan, source, output, force=True, progress=progress)
    lineage = {"source_digest": weights.digest, "plan_digest": plan.digest, "recipe": chosen}
    small = StoredFile(output.name, "", output.stat().st_size)
    small = replace(small, digest=store.put(output, share="move"))
    return replace(base, files=(small, *(f for f in base.files if f.role != "weights")), lineage=lineage)


def _only_blob(base: Manifest, store: Store) -> Path:
    blob = store.blob(base.weights[0].digest)
    if len(base.weights) != 1 or blob is None:
        raise UnsupportedError("a split model cannot be changed here", hint="use terazi quantize and convert")
    return blob
