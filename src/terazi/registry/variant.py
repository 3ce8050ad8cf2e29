"""Names of quantized variants: ``smollm2:135m-q4_k_m`` is the Q4_K_M of ``smollm2:135m``; and making them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from terazi.errors import NotFoundError
from terazi.progress import silent
from terazi.registry import catalog
from terazi.registry.names import Name, parse_name
from terazi.registry.pull import resolve_model
from terazi.registry.store import Store

if TYPE_CHECKING:
    from terazi.progress import Progress
    from terazi.registry.manifest import Entry

__all__ = ["known_base", "make_variant", "split_variant", "variant_name"]


def variant_name(base: str, preset: str) -> str:
    """Return the name that a preset of a stored model goes by."""
    name = parse_name(base)
    tag = preset.lower() if name.tag == "latest" else f"{name.tag}-{preset.lower()}"
    return str(Name(name.model, tag))


def split_variant(name: str) -> tuple[str, str] | None:
    """Return the base's name and the preset, or None when the name does not end with a preset."""
    from terazi.quantize import PRESETS

    parsed = parse_name(name)
    for preset in sorted(PRESETS, key=len, reverse=True):
        base, found, _ = parsed.tag.rpartition(preset.lower())
        if found and parsed.tag.endswith(preset.lower()) and (not base or base.endswith("-")):
            return str(Name(parsed.model, base.rstrip("-") or "latest")), preset
    return None


def known_base(name: str, store: Store) -> tuple[str, str] | None:
    """Return base and preset of a variant that could be made: its base is stored or in the catalog."""
    parts = split_variant(name)
    return parts if parts and (parts[0] in store or catalog.find(parts[0])) else None


def make_variant(name: str, *, store: Store | None = None, progress: Progress = silent) -> Entry:
    """Quantize the base that ``name`` speaks of and store the result under ``name``.

    The base is pulled when the store lacks it. Raises `NotFoundError` when no base is known.
    """
    from terazi.quantize import apply, make_plan, open_source

    store = store or Store()
    parts = known_base(name, store)
    if parts is None:
        raise NotFoundError(f"{name} is not in the store, nor is a model that it could be made from")
    base, preset = parts
    source = open_source(resolve_model(base, store=store, progress=progress))
    entry = store.entry(base)
    plan = make_plan(source, preset)
    workplace = store.workplace(f"variant {name} {entry.digest} {plan.digest}")
    artifact = apply(
        plan,
        source,
        workplace / f"{base.replace('/', '-').replace(':', '-')}-{preset}.gguf",
        force=True,
        progress=progress,
    )
    lineage = {"base": base, "source_digest": entry.digest, "plan_digest": plan.digest, "recipe": preset}
    made = store.add(
        artifact.path,
        name,
        share="move",
        source=entry.manifest.source,
        license=entry.manifest.license,
        notes=entry.manifest.notes,
        settings=entry.manifest.settings,
        lineage=lineage,
    )
    workplace.rmdir()
    return made
