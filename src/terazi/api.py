"""The verbs: what can be done with a model, one short function each; no loops over tensors, no maths."""

from __future__ import annotations

__all__: list[str] = []
