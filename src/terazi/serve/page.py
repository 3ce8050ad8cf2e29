"""The page in the browser: its files, and what it asks beside the two APIs (models in detail, reports)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from terazi.errors import TeraziError
from terazi.registry.reports import kept_reports
from terazi.serve.errors import RequestError
from terazi.serve.openai import failure

if TYPE_CHECKING:
    from starlette.requests import Request

    from terazi.registry import Entry, Store
    from terazi.registry.reports import KeptReport
    from terazi.serve.gateway import Gateway

__all__ = ["OPEN", "routes"]

OPEN = ("/page/", "/reports/")  # begin what a browser fetches without the password; see `_ticket`

_KINDS = {"css": "text/css", "js": "text/javascript"}
_ASSETS = ("style.css", "app.js", "chat.js", "models.js", "reports.js")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
# A report is a page of its own: nothing it holds may reach this server, its storage or the network.
_REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def routes(gateway: Gateway) -> list[Route]:
    """Return the page's routes."""

    async def front(request: Request) -> Response:
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse("Terazi is running")
        return HTMLResponse(_asset("index.html"), headers=_HEADERS | {"Content-Security-Policy": _POLICY})

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            return failure(RequestError(f"no file of the page: {name}", status=404, code="not_found"))
        return Response(_asset(name), headers=_HEADERS, media_type=_KINDS[name.rpartition(".")[2]])

    async def models(request: Request) -> Response:
        try:
            return JSONResponse(await _models(gateway))
        except (TeraziError, OSError) as error:
            return failure(error)

    async def reports(request: Request) -> Response:
        found = await asyncio.to_thread(kept_reports, gateway.store)
        return JSONResponse({"reports": [_listed(gateway, report) for report in found]})

    async def report(request: Request) -> Response:
        asked = request.path_params["ticket"].encode()
        for found in await asyncio.to_thread(kept_reports, gateway.store):
            if hmac.compare_digest(asked, _ticket(gateway, found).encode()):
                page = await asyncio.to_thread(found.page.read_bytes)
                return HTMLResponse(page, headers=_HEADERS | {"Content-Security-Policy": _REPORT_POLICY})
        error = RequestError(
            "no such report; the page's list has its new address", status=404, code="not_found"
        )
        return failure(error)

    return [
        Route("/", front, methods=["GET", "HEAD"]),
        Route("/page/{name}", asset),
        Route("/terazi/models", models),
        Route("/terazi/reports", reports),
        Route("/reports/{ticket}", report),
    ]


def _asset(name: str) -> str:
    return files("terazi.serve").joinpath("web", name).read_text(encoding="utf-8")


# Reports


def _listed(gateway: Gateway, report: KeptReport) -> dict[str, Any]:
    return {"name": report.name, "url": f"/reports/{_ticket(gateway, report)}", **report.facts}


def _ticket(gateway: Gateway, report: KeptReport) -> str:
    """The word that opens one report: a frame cannot send a password, so its address must be unguessable.

    It holds as long as the server runs, and is compared, never made a path.
    """
    return hmac.new(gateway.secret, report.name.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[
        :32
    ]


# Models


async def _models(gateway: Gateway) -> dict[str, Any]:
    """Everything in the store, whether it can be served or not, and what else is known by name."""
    from terazi.registry.catalog import catalog

    served = {entry.name for entry in await gateway.entries()}
    entries = await asyncio.to_thread(gateway.store.entries)
    damaged = await asyncio.to_thread(gateway.store.damaged)
    origins = {entry.name: _origin(entry, entries) for entry in entries}
    listed = [
        await asyncio.to_thread(_described, gateway.store, entry)
        | {
            "served": entry.name in served,
            "made_from": origins[entry.name],
            "variants": sorted(name for name, origin in origins.items() if origin == entry.name),
        }
        for entry in entries
    ]
    known = [
        {"name": entry.name, "title": entry.title, "license": entry.license, "size": entry.size}
        for entry in catalog().values()
    ]
    budget = gateway.limits.memory
    return {
        "models": listed,
        "damaged": damaged,
        "catalog": known,
        "memory_budget": budget,
        "read_only": gateway.read_only,
    }


def _described(store: Store, entry: Entry) -> dict[str, Any]:
    from terazi.model.license import check_license

    manifest = entry.manifest
    licence = check_license(manifest.license, "commercial")
    try:
        facts = _facts(str(store.resolve(entry.name)))
    except (TeraziError, OSError) as error:
        facts = {"problem": str(error)}
    return {
        "name": entry.name,
        "digest": entry.digest,
        "files": [
            {"name": f.name, "size": f.size, "digest": f.digest, "role": f.role} for f in manifest.files
        ],
        "format": manifest.format,
        "size": manifest.size,
        "added": entry.added,
        "source": manifest.source,
        "notes": manifest.notes,
        "license": licence.title,
        "commercial": licence.verdict,
        "license_note": licence.reason,
        "recipe": manifest.lineage.get("recipe"),
        **facts,
    }


@lru_cache(maxsize=256)
def _facts(path: str) -> dict[str, Any]:
    """What a model's headers say. The path names the content, so the answer never changes."""
    from terazi.formats import open_model
    from terazi.model.description import describe

    found = describe(open_model(path))
    return {
        "architecture": found.config.architecture,
        "parameters": found.parameters,
        "bits_per_weight": found.bits_per_weight,
        "type": max(found.types, key=lambda share: share.weights).type if found.types else None,
        "context": found.config.context_length,
        "embedding": found.variant == "embedding",
    }


def _origin(entry: Entry, entries: list[Entry]) -> str | None:
    """The name of what a model was made from, or the digest when it is not in the store."""
    lineage = entry.manifest.lineage
    if base := lineage.get("base"):
        return str(base)
    digest = lineage.get("source_digest")
    if not digest:
        return None
    for other in entries:
        if digest in (other.digest, *(file.digest for file in other.manifest.weights)):
            return other.name
    return f"sha256:{str(digest)[:12]}"
