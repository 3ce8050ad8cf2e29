"""Ollama's API for managing models: list, show, pull, create, copy, delete, and uploaded files."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from terazi.errors import TeraziError
from terazi.serve.create import create
from terazi.serve.errors import RequestError
from terazi.serve.http import Answer, Head, read_json
from terazi.serve.modelfile import Modelfile, render
from terazi.serve.ollama import LINES, error_body, failure, json_line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from starlette.requests import Request

    from terazi.model import Model
    from terazi.progress import Progress
    from terazi.registry import Entry, Store
    from terazi.serve.gateway import Gateway

__all__ = ["routes"]

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_UPLOAD = 200 << 30


def routes(gateway: Gateway) -> list[Route]:
    """Return the routes that manage models."""
    handlers = {
        ("GET", "/api/tags"): _tags,
        ("GET", "/api/ps"): _ps,
        ("POST", "/api/show"): _show,
        ("POST", "/api/pull"): _pull,
        ("POST", "/api/push"): _push,
        ("POST", "/api/create"): _create,
        ("POST", "/api/copy"): _copy,
        ("DELETE", "/api/delete"): _delete,
        ("HEAD", "/api/blobs/{digest}"): _has_blob,
        ("POST", "/api/blobs/{digest}"): _put_blob,
    }

    def guarded(handler: Callable[..., Any]) -> Any:
        async def handle(request: Request) -> Response:
            try:
                return await handler(gateway, request)
            except (TeraziError, OSError) as error:
                return failure(error)

        return handle

    async def version(request: Request) -> Response:
        return JSONResponse({"version": metadata.version("terazi")})

    made = [Route(path, guarded(handler), methods=[method]) for (method, path), handler in handlers.items()]
    return [*made, Route("/api/version", version)]


async def _tags(gateway: Gateway, request: Request) -> Response:
    entries = await gateway.entries()
    listed = [await asyncio.to_thread(_listed, gateway.store, entry) for entry in entries]
    return JSONResponse({"models": listed})


def _listed(store: Store, entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "model": entry.name,
        "modified_at": datetime.fromtimestamp(entry.added, UTC).isoformat(),
        "size": entry.manifest.size,
        "digest": entry.digest,
        "details": _details(store, entry),
    }


def _details(store: Store, entry: Entry) -> dict[str, Any]:
    """What the header says, or only the format: one that cannot be read must not hide the others."""
    try:
        return _facts(str(store.resolve(entry.name)))["details"]
    except (TeraziError, OSError):
        unknown = {"parent_model": "", "family": "unknown", "families": [], "parameter_size": ""}
        return unknown | {"format": entry.manifest.format, "quantization_level": "unknown"}


@lru_cache(maxsize=256)
def _facts(path: str) -> dict[str, Any]:
    """What a model's header says. The path names the content, so the answer never changes."""
    from terazi.formats import open_model

    model = open_model(path)
    matrices = [tensor for tensor in model.tensors.values() if len(tensor.shape) > 1]
    types = [tensor.packed.name if tensor.packed else tensor.type for tensor in matrices]
    usual = max(set(types), key=types.count) if types else "unknown"
    return {
        "details": {
            "parent_model": "",
            "format": model.format,
            "family": model.config.architecture,
            "families": [model.config.architecture],
            "parameter_size": _short(model.parameters),
            "quantization_level": usual,
        },
        "info": _info(model),
        "embedding": model.variant == "embedding" or "last_hidden_state" in model.metadata.get("outputs", ()),
        "template": model.tokenizer.chat_template if model.tokenizer else None,
        "parameters": model.parameters,
        "context": model.config.context_length,
    }


def _info(model: Model) -> dict[str, Any]:
    """A GGUF file's own keys; of other formats the usual ones, under GGUF's names, which clients look for."""
    if model.format == "gguf":
        return {key: _plain(value) for key, value in model.metadata.items() if not _is_long(value)}
    config = model.config
    own = {
        "block_count": config.block_count,
        "context_length": config.context_length,
        "embedding_length": config.embedding_length,
        "feed_forward_length": config.feed_forward_length,
        "attention.head_count": config.head_count,
        "attention.head_count_kv": max(config.head_counts_kv, default=0),
        "vocab_size": config.vocabulary_size,
    }
    return {"general.architecture": config.architecture} | {
        f"{config.architecture}.{key}": value for key, value in own.items()
    }


def _is_long(value: Any) -> bool:
    """Vocabularies and the like, which Ollama leaves out as well."""
    return isinstance(value, list | tuple) or getattr(value, "shape", ()) != ()


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _short(number: int) -> str:
    """A number of weights as Ollama writes it: ``134.52M``."""
    for limit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= limit:
            return f"{number / limit:.2f}".rstrip("0").rstrip(".") + letter
    return str(number)


async def _ps(gateway: Gateway, request: Request) -> Response:
    def described(loaded: Any, entry: Entry) -> dict[str, Any]:
        left = min(loaded.expires_in, 10 * 365 * 86400)
        return _listed(gateway.store, entry) | {
            "size": loaded.engine.memory or loaded.need,
            "size_vram": 0,
            "expires_at": (datetime.now(UTC) + timedelta(seconds=left)).isoformat(),
            "context_length": loaded.engine.options.context,
        }

    # A name may be gone while its model is still in memory, under another name or none.
    stored = {entry.digest: entry for entry in await gateway.entries()}
    stored |= {
        model.entry.digest: model.entry for model in gateway.pool.loaded if model.entry in stored.values()
    }
    loaded = [model for model in gateway.pool.loaded if model.entry.digest in stored]
    return JSONResponse({"models": [described(model, stored[model.entry.digest]) for model in loaded]})


async def _show(gateway: Gateway, request: Request) -> Response:
    body = await read_json(request)
    entry = await gateway.entry(body.get("model") or body.get("name"))
    facts = await asyncio.to_thread(lambda: _facts(str(gateway.store.resolve(entry.name))))
    settings = entry.manifest.settings
    template = settings.get("template") or facts["template"] or ""
    capabilities = ["embedding"] if facts["embedding"] else ["completion"]
    if "tools" in template and facts["details"]["format"] == "gguf":
        capabilities.append("tools")
    if any(file.role == "projector" for file in entry.manifest.files):
        capabilities.append("vision")
    modelfile = Modelfile.of(entry)
    return JSONResponse(
        {
            "modelfile": render(modelfile),
            "parameters": "\n".join(f"{key} {value}" for key, value in modelfile.parameter_lines()),
            "template": template,
            "system": settings.get("system", ""),
            "license": entry.manifest.license or "",
            "details": facts["details"],
            "model_info": facts["info"] | {"general.parameter_count": facts["parameters"]},
            "capabilities": capabilities,
            "modified_at": datetime.fromtimestamp(entry.added, UTC).isoformat(),
        }
    )


async def _pull(gateway: Gateway, request: Request) -> Response:
    from terazi.registry import pull
    from terazi.registry.catalog import find
    from terazi.registry.names import parse_name, split_source

    body = await read_json(request)
    name = body.get("model") or body.get("name")
    if not isinstance(name, str) or not name:
        raise RequestError("the request names no model", code="missing_model")
    source = split_source(name)
    if source and source[0] == "file":
        raise RequestError("files of the server cannot be pulled over the network")
    known = source or find(name) or name in gateway.store
    reference = name if known else f"ollama:{parse_name(name)}"

    def work(progress: Progress) -> None:
        if source or name not in gateway.store:
            pull(reference, name=None if source else name, store=gateway.store, progress=progress)

    return _told("/api/pull", gateway, body, work, first="pulling manifest")


async def _push(gateway: Gateway, request: Request) -> Response:
    from terazi.registry.push import push

    body = await read_json(request)
    entry = await gateway.entry(body.get("model") or body.get("name"))
    target = body.get("target")
    if not isinstance(target, str):
        raise RequestError("say where to push: target = oci:host/name:tag")
    return _told(
        "/api/push",
        gateway,
        body,
        lambda progress: push(entry.name, target, store=gateway.store, progress=progress),
        first="pushing",
    )


async def _create(gateway: Gateway, request: Request) -> Response:
    body = await read_json(request)
    name = body.get("model") or body.get("name")
    if not isinstance(name, str):
        raise RequestError("the request names no model", code="missing_model")
    modelfile = Modelfile.from_request(body)
    return _told(
        "/api/create",
        gateway,
        body,
        lambda progress: create(
            modelfile,
            name,
            store=gateway.store,
            quantize=body.get("quantize"),
            progress=progress,
            local_files=False,
        ),
        first="reading model metadata",
    )


async def _copy(gateway: Gateway, request: Request) -> Response:
    body = await read_json(request)
    source = await gateway.entry(body.get("source"))
    target = body.get("destination")
    if not isinstance(target, str):
        raise RequestError("the request names no destination")
    await asyncio.to_thread(gateway.store.tag, source.name, target, force=True)
    return Response()


async def _delete(gateway: Gateway, request: Request) -> Response:
    body = await read_json(request)
    entry = await gateway.entry(body.get("model") or body.get("name"))
    await gateway.pool.unload(entry)
    await asyncio.to_thread(gateway.store.remove, entry.name)
    return Response()


async def _has_blob(gateway: Gateway, request: Request) -> Response:
    found = gateway.store.blob(_digest(request))
    return Response(status_code=200 if found else 404)


async def _put_blob(gateway: Gateway, request: Request) -> Response:
    expected = _digest(request)
    folder = gateway.store.workplace("uploads")
    handle, name = await asyncio.to_thread(tempfile.mkstemp, dir=folder)
    digest, size = hashlib.sha256(), 0
    try:
        with os.fdopen(handle, "wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size > _UPLOAD:
                    raise RequestError("the file is too large", status=413)
                digest.update(chunk)
                file.write(chunk)
        if digest.hexdigest() != expected:
            raise RequestError(f"the content has SHA-256 {digest.hexdigest()}, expected {expected}")
        await asyncio.to_thread(gateway.store.put, Path(name), share="move")
    finally:
        Path(name).unlink(missing_ok=True)
    return Response(status_code=201)


def _digest(request: Request) -> str:
    match = _DIGEST.fullmatch(request.path_params["digest"])
    if match is None:
        raise RequestError("not a digest: sha256: and 64 hexadecimal digits")
    return match[1]


def _told(
    route: str, gateway: Gateway, body: dict[str, Any], work: Callable[[Progress], Any], *, first: str
) -> Answer:
    """Run work in a thread and stream its progress in Ollama's form."""
    stream = body.get("stream") is not False

    async def produce() -> AsyncGenerator[Head | bytes]:
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        stopped = False
        last: dict[str, int] = {}

        def progress(task: str, done: int, total: int, *, unit: str = "") -> None:
            if stopped:
                raise KeyboardInterrupt  # the client left: stop as Ctrl-C would, and keep what has come
            step = done * 200 // max(total, 1)
            if last.get(task) == step:
                return
            last[task] = step
            digest = f"sha256:{hashlib.sha256(task.encode()).hexdigest()}"
            fields = {"status": task, "digest": digest, "total": total, "completed": done}
            loop.call_soon_threadsafe(steps.put_nowait, fields)

        def run() -> None:
            with contextlib.suppress(KeyboardInterrupt):
                work(progress)

        running = asyncio.create_task(asyncio.to_thread(run))
        try:
            if stream:
                yield Head(200, LINES)
                yield json_line({"status": first})
            while not (running.done() and steps.empty()):
                waiting = asyncio.create_task(steps.get())
                await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
                if waiting.done():
                    if stream:
                        yield json_line(waiting.result())
                else:
                    waiting.cancel()
            await running
            if not stream:
                yield Head(200, "application/json")
            yield json_line({"status": "success"})
        finally:
            stopped = True

    def ended(status: int) -> None:
        gateway.metrics.requests.labels("", route, str(status)).inc()

    return Answer(produce(), explain=error_body, late=error_body, ended=ended)
