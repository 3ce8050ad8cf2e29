"""LangChain's unchanged classes for both APIs."""

from typing import Literal

import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

MODEL = "smollm2:135m"
QUESTION = "Name the capital city of France."


class City(BaseModel):
    """A city."""

    name: Literal["Paris", "Rome"]
    capital: bool


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"Rain in {city}."


@pytest.fixture(scope="module", params=["openai", "ollama"])
def chat(request, server):
    if request.param == "openai":
        model = ChatOpenAI(
            model=MODEL, base_url=f"{server.url}/v1", api_key="unused", max_tokens=24, temperature=0, seed=1
        )
        yield model
        model.root_client.close()
    else:
        model = ChatOllama(model=MODEL, base_url=server.url, num_predict=24, temperature=0, seed=1)
        yield model
        model._client._client.close()


def test_whole_and_streamed(chat):
    answer = chat.invoke(QUESTION)
    assert "Paris" in answer.content
    assert answer.usage_metadata["output_tokens"] > 0
    chunks = list(chat.stream([HumanMessage(QUESTION)]))
    assert "".join(chunk.content for chunk in chunks) == answer.content
    assert len(chunks) > 4


def test_batch(chat):
    answers = chat.batch([QUESTION, "Say hello."])
    assert all(answer.content for answer in answers)


def test_structured_output(chat):
    found = chat.with_structured_output(City, method="json_schema").invoke(f"{QUESTION} Answer in JSON.")
    assert isinstance(found, City)


def test_tools_in_both_directions(chat):
    """Whether a model of this size calls one is its own affair; request and history must be understood."""
    question = HumanMessage("What is the weather in Paris?")
    asked = chat.bind_tools([weather]).invoke([question])
    assert asked.content or asked.tool_calls
    call = {"name": "weather", "args": {"city": "Paris"}, "id": "call_1", "type": "tool_call"}
    history = [question, asked.model_copy(update={"tool_calls": [call], "content": ""})]
    answer = chat.invoke([*history, ToolMessage(weather.invoke({"city": "Paris"}), tool_call_id="call_1")])
    assert answer.content


def test_text(server):
    model = OllamaLLM(model=MODEL, base_url=server.url, num_predict=12, temperature=0)
    assert "Paris" in model.invoke(QUESTION)
    model._client._client.close()


@pytest.mark.parametrize("kind", ["openai", "ollama"])
def test_embeddings(server, kind):
    if kind == "openai":
        model = OpenAIEmbeddings(
            model=MODEL, base_url=f"{server.url}/v1", api_key="unused", check_embedding_ctx_length=False
        )
    else:
        model = OllamaEmbeddings(model=MODEL, base_url=server.url)
    cat, kitten, market = model.embed_documents(["a cat", "a kitten", "the stock market"])
    assert len(cat) == len(model.embed_query("a cat")) == 576

    def cosine(a, b):
        length = sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5
        return sum(x * y for x, y in zip(a, b, strict=True)) / length

    assert cosine(cat, kitten) > cosine(cat, market)
    if kind == "openai":
        model.client._client.close()
    else:
        model._client._client.close()
