"""Smaller models: presets and rules as data, plans with exact sizes, and carrying them out."""

from terazi.quantize.apply import apply, apply_many
from terazi.quantize.collection import collection_directory, collection_path, plan_collection
from terazi.quantize.plan import Entry, Plan, make_plan
from terazi.quantize.presets import ALIASES, PRESETS, Preset, preset
from terazi.quantize.recipe import Recipe, Scheme
from terazi.quantize.source import open_source

__all__ = [
    "ALIASES",
    "PRESETS",
    "Entry",
    "Plan",
    "Preset",
    "Recipe",
    "Scheme",
    "apply",
    "apply_many",
    "collection_directory",
    "collection_path",
    "make_plan",
    "open_source",
    "plan_collection",
    "preset",
]
