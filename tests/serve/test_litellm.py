"""The unchanged `litellm` package, by all of its routes to such a server.

In a process of its own: the package leaves connections open when it ends.
"""

import json
import os
import subprocess
import sys

import pytest

CLIENT = """
import asyncio, json, sys
import litellm

url = sys.argv[1]
model, found = "smollm2:135m", {}
messages = [{"role": "user", "content": "Name the capital city of France."}]
for route in ("openai", "ollama", "ollama_chat"):
    where = {"model": f"{route}/{model}", "api_key": "unused"}
    where["api_base"] = f"{url}/v1" if route == "openai" else url
    whole = litellm.completion(messages=messages, max_tokens=12, temperature=0, **where)
    stream = litellm.completion(messages=messages, max_tokens=12, temperature=0, stream=True, **where)
    found[route] = {
        "text": whole.choices[0].message.content,
        "tokens": whole.usage.completion_tokens,
        "pieces": [chunk.choices[0].delta.content or "" for chunk in stream],
    }
    if route != "ollama_chat":
        made = litellm.embedding(input=["a cat", "a kitten"], **where)
        found[route]["dimensions"] = [len(row["embedding"]) for row in made.data]

where = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "unused"}

async def together():
    return await asyncio.gather(
        *(litellm.acompletion(messages=messages, max_tokens=4, **where) for _ in range(4))
    )

found["together"] = [answer.choices[0].message.content for answer in asyncio.run(together())]
try:
    litellm.completion(messages=messages, **where | {"model": "openai/absent:1"})
except litellm.NotFoundError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(server):
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, server.url],
        env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},  # it would ask the network for prices
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("route", ["openai", "ollama", "ollama_chat"])
def test_whole_and_streamed(found, route):
    answer = found[route]
    assert "Paris" in answer["text"]
    assert 0 < answer["tokens"] <= 12
    assert "".join(answer["pieces"]).strip() == answer["text"].strip()
    assert len(answer["pieces"]) > 4


@pytest.mark.parametrize("route", ["openai", "ollama"])
def test_embedding(found, route):
    assert found[route]["dimensions"] == [576, 576]


def test_many_at_once(found):
    assert len(found["together"]) == 4
    assert all(found["together"])


def test_an_error_has_its_kind(found):
    assert "not in the store" in found["error"]
