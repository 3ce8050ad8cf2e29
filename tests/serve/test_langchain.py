"""LangChain's unchanged classes for both APIs."""

from typing import Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
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
def opened(request, server):
    """Open a model by one of the two APIs."""
    made = []

    def chat(model, tokens=24):
        if request.param == "openai":
            made.append(
                ChatOpenAI(
                    model=model, base_url=f"{server.url}/v1", api_key="unused", max_tokens=tokens,
                    temperature=0, seed=1,
                )
            )  # fmt: skip
        else:
            made.append(
                ChatOllama(model=model, base_url=server.url, num_predict=tokens, temperature=0, seed=1)
            )
        return made[-1]

    yield chat
    for model in made:
        (model.root_client if request.param == "openai" else model._client._client).close()


@pytest.fixture(scope="module")
def chat(opened):
    return opened(MODEL)


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


def test_tools_in_both_directions(opened, calling):
    """A model of this size calls a function when it has seen it done."""

    def turn(number, city):
        call = {"name": "weather", "args": {"city": city}, "id": f"call_{number}", "type": "tool_call"}
        return [HumanMessage(f"What is the weather in {city}?"), AIMessage("", tool_calls=[call])]

    chat = opened(calling, tokens=48).bind_tools([weather])
    seen = [
        message for number, city in enumerate(("Rome", "Paris", "Rome")) for message in turn(number, city)
    ]
    asked = chat.invoke([*seen, HumanMessage("What is the weather in Paris?")])
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    after = chat.invoke([*seen, HumanMessage("What is the weather in Paris?"), asked, result])
    assert after.content or after.tool_calls


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
