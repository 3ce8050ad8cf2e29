"""Making models as Modelfiles say: base, projector, adapters and draft model become files of one manifest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from terazi.errors import NotFoundError, UnsupportedError, UsageError
from terazi.progress import silent
from terazi.registry import Manifest, Store, StoredFile, pull
from terazi.registry.names import parse_name, split_source
from terazi.serve.engine import SERVERS
from terazi.serve.template import to_jinja

if TYPE_CHECKING:
    from collections.abc import Mapping

    from terazi.progress import Progress
    from terazi.registry import Entry
    from terazi.serve.modelfile import Modelfile

__all__ = ["create"]


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
    if modelfile.files:
        base = _from_blobs(modelfile.files, store)
    else:
        base = _found(modelfile.base, store, folder, progress)
    draft = modelfile.parameters.get("draft_model")
    if base.format != "gguf" and (quantize or modelfile.projectors or modelfile.adapters or draft):
        raise UnsupportedError(
            f"the base is {base.format}; only GGUF models are quantized or get adapters, projectors, drafts",
            hint="convert it first: terazi convert DIRECTORY model.gguf",
        )
    if quantize:
        base = _quantized(base, quantize, store, progress)
    for projector in modelfile.projectors:
        base = _with(base, _projector(projector, store, folder))
    for number, adapter in enumerate(modelfile.adapters):
        base = _with(base, _adapter(adapter, number, base, store, folder))
    if draft:
        base = _drafted(base, draft, store, folder, progress)
    own = modelfile.settings
    inherited = base.settings
    parameters = {**inherited.get("parameters", {}), **own.get("parameters", {})}
    settings = {**inherited, **own, **({"parameters": parameters} if parameters else {})}
    made = replace(
        base,
        settings=settings,
        license=modelfile.license.partition("\n")[0][:100] or base.license,
    )
    return store.commit(target, made)


def _found(name: str, store: Store, folder: Path | None, progress: Progress) -> Manifest:
    """Return the model that FROM names: a path, a name in the store, or what can be pulled."""
    if not name:
        raise UsageError("say what to make it from (FROM)")
    if split_source(name) is None:
        path = folder / Path(name).expanduser() if folder else None
        if path is not None and path.exists():
            return _imported(path, store, progress)
        if name in store:
            return store.entry(name).manifest
    elif folder is None and name.startswith("file:"):
        raise UsageError("files of the server cannot be named over the network")
    return pull(name, store=store, progress=progress).manifest


def _with(base: Manifest, file: StoredFile) -> Manifest:
    """Add a file; a projector or draft model takes the place of an earlier one."""
    alone = file.role in ("projector", "draft")
    return replace(base, files=(*(f for f in base.files if not alone or f.role != file.role), file))


def _imported(path: Path, store: Store, progress: Progress) -> Manifest:
    from terazi.convert import converter
    from terazi.formats import open_model

    model = open_model(path)
    source = f"file:{path.resolve()}"
    if model.format in SERVERS:
        return store.take(path, source=source, progress=progress)
    output = store.workplace(f"create {path.resolve()}") / f"{path.resolve().name}.gguf"
    converter("gguf", output)(model, output, force=True, progress=progress)
    return store.take(output, share="move", source=source, license=model.license, progress=progress)


def _from_blobs(files: Mapping[str, str], store: Store) -> Manifest:
    from terazi.registry.manifest import check_file_name

    stored = []
    for name, digest in files.items():
        blob = _gguf_blob(name, digest, store)
        role = "projector" if _is_projector(blob) else "weights"
        stored.append(
            StoredFile(check_file_name(Path(name).name, "files"), digest, blob.stat().st_size, role)
        )
    if all(file.role == "projector" for file in stored):
        raise UnsupportedError("these files have no weights of a language model")
    return Manifest(format="gguf", files=tuple(stored))


def _gguf_blob(what: str, digest: str, store: Store) -> Path:
    blob = store.blob(digest)
    if blob is None:
        raise NotFoundError(f"{what}: its content sha256:{digest[:12]}… was not uploaded")
    with blob.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UnsupportedError(f"{what} is no GGUF file", hint="terazi convert makes one of a checkpoint")
    return blob


def _is_projector(path: Path) -> bool:
    from terazi.formats import open_model

    return open_model(path).config.architecture == "clip"


def _projector(name: str, store: Store, folder: Path | None) -> StoredFile:
    path = folder / Path(name).expanduser() if folder is not None else None
    if path is None or not path.is_file():
        raise NotFoundError(f"FROM {name}: no such file", hint="a second FROM is a projector, a GGUF file")
    if not _is_projector(path):
        raise UnsupportedError(
            f"FROM {name}: a second FROM is a projector (general.architecture clip), which this is not",
            hint="a model is made from one other",
        )
    return StoredFile("projector.gguf", store.put(path), path.stat().st_size, "projector")


def _drafted(base: Manifest, name: str, store: Store, folder: Path | None, progress: Progress) -> Manifest:
    """Keep the draft model beside the weights, so that it is pinned and never missing."""
    from terazi.formats import open_model
    from terazi.runtime.llamacpp.server import NGRAM
    from terazi.serve.draft import check_draft

    without = replace(base, files=tuple(file for file in base.files if file.role != "draft"))
    if name == NGRAM:
        return without
    draft = _found(name, store, folder, progress)
    blob = _only_blob(draft, store)
    check_draft(open_model(_only_blob(base, store)), open_model(blob))
    file = draft.weights[0]
    return _with(without, StoredFile("draft.gguf", file.digest, file.size, "draft"))


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
    if store.blob(digest) is None:
        raise NotFoundError(f"adapter {adapter}: no such file")
    blob = _gguf_blob(f"adapter {adapter}", digest, store)
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
