"""Tools, by both protocols: a template with a place for them, and one without."""

import json

import ollama
import openai
import pytest

MODEL = "smollm2:135m"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}


def question(city):
    return {"role": "user", "content": f"What is the weather in {city}?"}


def call(city, *, arguments):
    function = {"name": "weather", "arguments": arguments({"city": city})}
    return {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}


def openai_call(city):
    made = call(city, arguments=json.dumps)
    made["tool_calls"][0] |= {"id": f"call_{city}", "type": "function"}
    return made


def examples(made):
    """A model of this size calls a function when it has seen it done."""
    return [m for city in ("Rome", "Paris", "Rome") for m in (question(city), made(city))]


@pytest.fixture(scope="module")
def openai_client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def ollama_client(server):
    client = ollama.Client(server.url)
    yield client
    client._client.close()


def test_openai_calls_whole_and_streamed(openai_client, calling):
    messages = [*examples(openai_call), question("Paris")]
    options = {"model": calling, "messages": messages, "tools": [TOOL], "max_tokens": 48, "temperature": 0}
    choice = openai_client.chat.completions.create(**options).choices[0]
    (made,) = choice.message.tool_calls
    assert choice.finish_reason == "tool_calls"
    assert made.function.name == "weather"
    assert json.loads(made.function.arguments) == {"city": "Paris"}
    pieces = [
        piece.function
        for chunk in openai_client.chat.completions.create(**options, stream=True)
        for piece in (chunk.choices[0].delta.tool_calls or () if chunk.choices else ())
    ]
    assert "".join(piece.name or "" for piece in pieces) == "weather"
    assert json.loads("".join(piece.arguments or "" for piece in pieces)) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": made.id, "content": "Rain."}
    history = [*messages, choice.message.model_dump(exclude_none=True), result]
    after = openai_client.chat.completions.create(**options | {"messages": history})
    assert after.usage.prompt_tokens > 250


def test_ollama_calls(ollama_client, calling):
    assert "tools" in ollama_client.show(calling).capabilities
    messages = [*examples(lambda city: call(city, arguments=dict)), question("Paris")]
    options = {"num_predict": 48, "temperature": 0}
    for stream in (False, True):
        answer = ollama_client.chat(calling, messages, tools=[TOOL], options=options, stream=stream)
        calls = [c for part in (answer if stream else [answer]) for c in part.message.tool_calls or ()]
        assert [(c.function.name, c.function.arguments) for c in calls] == [("weather", {"city": "Paris"})]


def test_a_template_without_a_place_for_them_refuses(openai_client, ollama_client):
    assert "tools" not in ollama_client.show(MODEL).capabilities
    with pytest.raises(openai.BadRequestError, match="does not support tools"):
        openai_client.chat.completions.create(model=MODEL, messages=[question("Rome")], tools=[TOOL])
    with pytest.raises(ollama.ResponseError, match="does not support tools") as refused:
        ollama_client.chat(MODEL, [question("Rome")], tools=[TOOL])
    assert refused.value.status_code == 400
    answer = openai_client.chat.completions.create(
        model=MODEL, messages=[question("Rome")], tools=[TOOL], tool_choice="none", max_tokens=2
    )
    assert answer.choices[0].message.content
