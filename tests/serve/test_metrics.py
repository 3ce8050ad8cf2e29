"""The dashboard asks for metrics that exist."""

import json
import re
from pathlib import Path

from terazi.serve.metrics import Metrics

DASHBOARD = Path(__file__).parents[2] / "docs" / "guides" / "serve-dashboard.json"


def test_the_dashboard_asks_for_what_there_is():
    known = set()
    for family in Metrics().registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(
            family.type, ("",)
        )
        known |= {family.name + suffix for suffix in suffixes}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in _names(target["expr"])}
    assert asked <= known
    assert len(asked) >= 11
    assert len({panel["id"] for panel in panels}) == len(panels)


def _names(expression):
    return re.findall(r"terazi_\w+", expression)
