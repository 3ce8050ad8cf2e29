"""Requests of OpenAI's protocol: what is understood, and that nothing is left out silently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terazi.errors import TeraziError, UnsupportedError, UsageError
from terazi.runtime.openai.request import read_ask, read_texts

ASK = [{"role": "user", "content": "Hello"}]
CAN = frozenset({"top_k", "response_format"})


def read(chat=True, can=CAN, **fields):
    return read_ask(({"messages": ASK} if chat else {"prompt": "Hello"}) | fields, chat=chat, can=can)


def test_defaults():
    ask = read()
    assert ask.prompt == ({"role": "user", "content": "Hello"},)
    assert (ask.max_tokens, ask.stop, ask.schema, ask.stream) == (None, (), None, False)
    assert ask.sampling.seed is None
    assert read(chat=False).prompt == "Hello"


def test_what_is_said_is_taken():
    ask = read(
        temperature=0, top_p=0.5, top_k=7, seed=-1, max_completion_tokens=5, max_tokens=9, stop="end",
        stream=True, stream_options={"include_usage": True}, chat_template_kwargs={"enable_thinking": False},
        response_format={"type": "json_object"},
    )  # fmt: skip
    assert (ask.sampling.temperature, ask.sampling.top_p, ask.sampling.top_k) == (0, 0.5, 7)
    assert ask.sampling.seed is None
    assert (ask.max_tokens, ask.stop) == (5, ("end",))
    assert ask.stream
    assert ask.include_usage
    assert ask.template_values == {"enable_thinking": False}
    assert ask.schema == {"type": "object"}
    assert read(seed=1 << 40, stop=["a", ""]).stop == ("a",)
    assert read(max_tokens=-1).max_tokens is None


def test_parts_are_joined():
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    assert read(messages=[{"role": "user", "content": parts}]).prompt[0]["content"] == "one two"
    assert read(messages=[{"role": "assistant", "content": None}]).prompt[0]["content"] == ""


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "tools": [], "tool_choice": "auto", "user": "somebody"},
        {"top_logprobs": None, "logit_bias": {}, "min_p": 0.0, "presence_penalty": 0, "repeat_penalty": 1},
        {"response_format": {"type": "text"}},
    ],
)
def test_what_asks_for_nothing_is_accepted(fields):
    assert read(can=frozenset(), **fields) == read()


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"n": True},
        {"logprobs": True},
        {"logprobs": 1},
        {"tools": [{}]},
        {"tool_choice": "required"},
        {"min_p": 0.1},
        {"presence_penalty": 1},
        {"unheard_of": 1},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
    ],
)
def test_what_cannot_be_done_is_refused(fields):
    with pytest.raises(UnsupportedError):
        read(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": "hot"},
        {"temperature": float("nan")},
        {"temperature": True},
        {"top_p": 2},
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"seed": "x"},
        {"stop": 3},
        {"stop": [1]},
        {"messages": []},
        {"messages": "Hello"},
        {"messages": [1]},
        {"stream_options": 1},
        {"chat_template_kwargs": []},
        {"response_format": "json"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"response_format": {"type": "json_object", "schema": 3}},
    ],
)
def test_nonsense_is_refused(fields):
    with pytest.raises(UsageError):
        read(**fields)


@pytest.mark.parametrize("prompt", [None, 3, [], ["a", "b"], [[1, 2]]])
def test_prompts_are_one_text(prompt):
    with pytest.raises(UsageError):
        read(chat=False, prompt=prompt)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["messages", "prompt", "temperature", "stop", "seed", "response_format", "stream", "tools", "n", "top_k"]
)


@given(st.dictionaries(FIELDS, JSON), st.booleans())
def test_anything_is_an_ask_or_one_line(body, chat):
    said = "fine"
    try:
        read_ask(body, chat=chat, can=CAN)
    except TeraziError as error:
        said = str(error)
    assert said.strip()
    assert "\n" not in said


def test_embeddings():
    assert read_texts({"input": "a"}) == (["a"], False)
    assert read_texts({"input": ["a", "b"], "encoding_format": "base64"}) == (["a", "b"], True)
    for body in ({}, {"input": []}, {"input": [1]}, {"input": "a", "encoding_format": "text"}):
        with pytest.raises(UsageError):
            read_texts(body)
    with pytest.raises(UnsupportedError):
        read_texts({"input": "a", "dimensions": 3})
