"""Layers for GPUs: as many as fit, and never more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi.formats import open_model
from terazi.model import kv_cache_bytes
from terazi.model.offload import layers_that_fit, plan_offload

GIB = 1 << 30
sizes = st.lists(st.integers(0, 10**9), min_size=1, max_size=80)


@given(sizes, st.integers(0, 10**10), st.integers(0, 10**11))
def test_the_most_that_fit_from_the_end(layers, output, room):
    count = layers_that_fit(layers, output, room)
    assert 0 <= count <= len(layers) + 1

    def taken(n):
        return (output + sum(layers[::-1][: n - 1])) if n else 0

    assert taken(count) <= max(room, 0)
    assert count == len(layers) + 1 or taken(count + 1) > room


@given(sizes, st.integers(0, 10**10), st.integers(0, 10**11), st.integers(0, 10**10))
def test_more_room_never_holds_less(layers, output, room, more):
    assert layers_that_fit(layers, output, room) <= layers_that_fit(layers, output, room + more)


@pytest.fixture(scope="module")
def model(smollm2):
    return open_model(smollm2)


def test_all_parts_are_counted_once(model):
    """Everything on one GPU is weights (the tied embedding again as output), cache and buffers."""
    from terazi.model import memory_needed

    context = 4096
    plan = plan_offload(model, context, [100 * GIB], margin=0)
    assert plan.layers == plan.total == 31
    assert plan.needed == plan.whole
    need = memory_needed(model.nbytes, model.config, context)
    assert plan.whole == pytest.approx(need.total, abs=2)
    untied = 49152 * 576 * 2
    fixed = plan_offload(_untied(model, untied), context, [100 * GIB], margin=0)
    assert fixed.needed - plan.needed == untied - model.tensors["token_embd.weight"].stored_bytes


def _untied(model, size):
    from dataclasses import replace

    from terazi.model import Tensor

    output = Tensor.from_array("output.weight", np.zeros((49152, 576), np.float16))
    assert output.stored_bytes == size
    return replace(model, tensors={**model.tensors, "output.weight": output})


@given(st.lists(st.integers(0, 3 * GIB), max_size=4), st.sampled_from([256, 4096, 65536]))
def test_a_plan_leaves_the_margin_free(model, free, context):
    plan = plan_offload(model, context, free)
    assert 0 <= plan.layers <= plan.total
    usable = [one for one in free if one > GIB]
    assert plan.needed <= sum(usable) - GIB * len(usable) or plan.layers == plan.needed == 0
    if len(free) == 1:
        assert (plan.layers == plan.total) == (free[0] >= plan.whole)


def test_a_longer_context_leaves_fewer_layers(model):
    free = [GIB + 200 * 10**6]
    plans = [plan_offload(model, context, free) for context in (1024, 8192, 65536)]
    assert [p.layers for p in plans] == sorted((p.layers for p in plans), reverse=True)
    assert plans[0].layers == 31
    assert 0 < plans[1].layers < 31
    assert kv_cache_bytes(model.config, 8192) > 150e6


def test_no_gpu_no_layers(model):
    assert plan_offload(model, 4096, []).layers == 0
    assert plan_offload(model, 4096, [GIB]).layers == 0
