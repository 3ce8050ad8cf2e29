"""The unchanged `openai` client."""

import base64
import json

import openai
import pytest

MODEL = "smollm2:135m"
ASK = [{"role": "user", "content": "Name the capital city of France."}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        yield client


def test_models(client):
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="not in the store"):
        client.models.retrieve("absent")


def test_chat(client, server):
    before = server.metric("terazi_tokens_total", kind="generated")
    answer = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=16, temperature=0, seed=1)
    assert "Paris" in answer.choices[0].message.content
    assert answer.usage.completion_tokens <= 16
    again = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=16, temperature=0, seed=1)
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    counted = answer.usage.completion_tokens + again.usage.completion_tokens
    assert server.metric("terazi_tokens_total", kind="generated") - before == counted


def test_streaming_chat_gives_the_same_text(client):
    options = {"model": MODEL, "messages": ASK, "max_tokens": 16, "temperature": 0}
    whole = client.chat.completions.create(**options).choices[0].message.content
    chunks = list(
        client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole
    assert chunks[-1].usage.completion_tokens > 0
    assert len(chunks) > 4


def test_text_completion(client):
    answer = client.completions.create(model=MODEL, prompt="One, two, three,", max_tokens=3, temperature=0)
    assert "four" in answer.choices[0].text


def test_json_schema(client):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=ASK,
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    )
    found = json.loads(answer.choices[0].message.content)
    assert found.keys() == {"city", "sure"}
    assert found["city"] in ("Paris", "Rome")


def test_logprobs(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=ASK, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 4
    assert all(len(token.top_logprobs) == 3 and token.logprob <= 0 for token in content)


def test_logprobs_of_a_stream(client):
    options = {"model": MODEL, "messages": ASK, "max_tokens": 4, "temperature": 0}
    whole = client.chat.completions.create(**options, logprobs=True, top_logprobs=2)
    chunks = client.chat.completions.create(**options, logprobs=True, top_logprobs=2, stream=True)
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    streamed = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    expected = whole.choices[0].logprobs.content
    assert [token.token for token in streamed] == [token.token for token in expected]
    assert [token.logprob for token in streamed] == pytest.approx([t.logprob for t in expected], abs=1e-3)


def test_usage_of_a_stream_only_when_asked_for(client):
    options = {"model": MODEL, "messages": ASK, "max_tokens": 4, "temperature": 0}
    usage = client.chat.completions.create(**options).usage
    asked = list(
        client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
    )
    assert (asked[-1].usage.prompt_tokens, asked[-1].usage.completion_tokens) == (
        usage.prompt_tokens, usage.completion_tokens,
    )  # fmt: skip
    assert not asked[-1].choices
    assert all(chunk.usage is None for chunk in client.chat.completions.create(**options, stream=True))


def test_embeddings(client):
    answer = client.embeddings.create(model=MODEL, input=["a cat", "a kitten", "the stock market"])
    cat, kitten, market = (row.embedding for row in answer.data)
    assert len(cat) == 576

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert cosine(cat, kitten) > cosine(cat, market)
    assert answer.usage.prompt_tokens > 0


def test_an_embedding_model(client, home, minilm):
    """A BERT checkpoint, converted on the way in; its vectors are those of the reference implementation."""
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    from terazi.registry import Store
    from terazi.serve.create import create
    from terazi.serve.modelfile import Modelfile

    create(Modelfile(base=str(minilm)), "minilm", store=Store(home))
    texts = ["a cat sat on the mat", "the stock market fell"]
    answer = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    found = np.array([row.embedding for row in answer.data])
    batch = AutoTokenizer.from_pretrained(minilm)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(minilm)(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    pooled = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    wanted = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    assert np.abs(found - wanted).max() < 2e-3
    Store(home).remove("minilm")


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model": "absent:x"}, openai.NotFoundError, "not in the store"),
        ({"model": "../../etc/passwd"}, openai.BadRequestError, "not a model name"),
        ({"model": ""}, openai.BadRequestError, "names no model"),
        ({"messages": "hello"}, openai.BadRequestError, "messages must be a list"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, openai.BadRequestError, "context size"),
        ({"temperature": "hot"}, openai.APIStatusError, "temperature"),
    ],
)
def test_errors_have_the_right_kind(client, options, error, words):
    with pytest.raises(error, match=words) as failure:
        client.chat.completions.create(**{"model": MODEL, "messages": ASK, "max_tokens": 4} | options)
    assert failure.value.body["message"]


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:22/x.png", "file:///etc/passwd", "https://example.org/x"]
)
def test_pictures_are_not_fetched_for_anybody(client, address):
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": address}}]
    with pytest.raises(openai.BadRequestError, match="must be sent in the request"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])


def test_a_picture_for_a_model_that_cannot_see(client):
    picture = "data:image/png;base64," + base64.b64encode(b"\x89PNG not really").decode()
    parts = [{"type": "image_url", "image_url": {"url": picture}}]
    with pytest.raises(openai.BadRequestError, match="without a projector"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
