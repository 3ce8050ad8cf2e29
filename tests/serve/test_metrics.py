"""Metrics: the dashboard asks for those that exist, and they tell what an engine does."""

import json
import re
import urllib.request
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


def test_the_cache_and_the_batch_while_a_model_writes(start):
    """On a server of its own: gauges add up a model's engines, and others' tests load one for embeddings."""
    server = start("--context", 512, "--parallel", 2)
    body = {
        "model": "smollm2:135m", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 48,
        "stream": True, "ignore_eos": True,
    }  # fmt: skip
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        answer.readline()
        assert server.metric("terazi_batch", model="smollm2:135m") == 1
        answer.read()
    assert server.metric("terazi_batch", model="smollm2:135m") == 0
    assert server.metric("terazi_kv_cache_tokens", model="smollm2:135m") > 48
    assert server.metric("terazi_kv_cache_size_tokens", model="smollm2:135m") == 2 * 512
