"""ONNX and MLX models behind the same API as GGUF files, asked by unchanged clients."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import ollama
import openai
import pytest

from terazi import api
from terazi.errors import UnsupportedError
from terazi.registry import Manifest, Store, StoredFile, pull
from terazi.serve.create import create
from terazi.serve.modelfile import Modelfile

pytest.importorskip("onnxruntime_genai")
pytest.importorskip("mlx_lm")

ASK = [{"role": "user", "content": "Name the capital city of France."}]
WRITERS = ["two:onnx", "two:mlx"]
MLX_SLOWLY = ["two:onnx", pytest.param("two:mlx", marks=pytest.mark.slow)]
TEXTS = ["a cat sat on the mat", "the stock market fell", "a"]
MODULES = {"two:onnx": "onnxruntime", "two:mlx": "mlx", "two:gguf": "llamacpp"}


@pytest.fixture(scope="module")
def directories(two_layers, minilm, tmp_path_factory):
    """The same models as directories of other formats."""
    made = tmp_path_factory.mktemp("formats")
    api.convert(two_layers, "onnx", output=made / "two-onnx")
    api.convert(two_layers, "mlx", output=made / "two-mlx")
    api.convert(minilm, "onnx", output=made / "minilm-onnx")
    api.convert(minilm, "mlx", output=made / "minilm-mlx", bits=8)
    return made


@pytest.fixture(scope="module")
def store(directories, two_layers, tmp_path_factory):
    found = Store(tmp_path_factory.mktemp("formats-home"))
    for name in ("two", "minilm"):
        for format in ("onnx", "mlx"):
            assert pull(str(directories / f"{name}-{format}"), name=f"{name}:{format}", store=found)
    found.add(two_layers, "two:gguf")
    return found


@pytest.fixture(scope="module")
def mixed(start, store):
    """A server of all of them."""
    return start("--context", 512, "--parallel", 2, environment={"TERAZI_HOME": str(store.root)})


@pytest.fixture(scope="module")
def client(mixed):
    with openai.OpenAI(base_url=f"{mixed.url}/v1", api_key="unused", max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def host(mixed):
    client = ollama.Client(mixed.url)
    yield client
    client._client.close()


def process(server, model):
    """The process id of a model's engine."""
    module = f"terazi.runtime.{MODULES[model]}.server"
    (found,) = [
        pid for pid in server.engines() if module in Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    ]
    return found


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def streamed(client, model, **options):
    chunks = client.chat.completions.create(model=model, messages=ASK, stream=True, **options)
    for chunk in chunks:
        if chunk.choices:
            yield chunk.choices[0].delta.content or ""


def test_they_are_listed_and_described(client, host):
    assert {"two:gguf", "minilm:mlx", *WRITERS} <= {model.id for model in client.models.list()}
    listed = {model.model: model for model in host.list().models}
    for name in WRITERS:
        assert listed[name].details.format == name.partition(":")[2]
        assert listed[name].details.family == "llama"
        assert listed[name].size > 1_000_000
        shown = host.show(name)
        assert shown.capabilities == ["completion"]
        assert shown.modelinfo["llama.context_length"] == 8192
        assert "messages" in shown.template
    assert host.show("two:mlx").details.quantization_level == "affine 4-bit"
    assert host.show("minilm:onnx").capabilities == ["embedding"]


def test_a_damaged_model_does_not_hide_the_others(host, store):
    file = StoredFile("model.onnx", store.put_bytes(b"nothing"), 7)
    store.commit("damaged", Manifest(format="onnx", files=(file,)))
    listed = {model.model: model.details for model in host.list().models}
    assert len(listed) > 4
    assert (listed["damaged:latest"].format, listed["damaged:latest"].family) == ("onnx", "unknown")
    with pytest.raises(ollama.ResponseError, match="not an ONNX model"):
        host.chat("damaged", ASK)
    store.remove("damaged")


@pytest.mark.parametrize("model", WRITERS)
def test_chat(client, host, mixed, model):
    options = {"max_tokens": 6, "temperature": 0}
    whole = client.chat.completions.create(model=model, messages=ASK, **options)
    choice, usage = whole.choices[0], whole.usage
    assert choice.finish_reason == "length"
    assert choice.message.role == "assistant"
    assert usage.completion_tokens == 6
    assert usage.total_tokens == usage.prompt_tokens + 6
    assert "".join(streamed(client, model, **options)) == choice.message.content
    *_, last = client.chat.completions.create(
        model=model, messages=ASK, stream=True, stream_options={"include_usage": True}, **options
    )
    assert last.usage.prompt_tokens == usage.prompt_tokens
    before = mixed.metric("terazi_tokens_total", model=model, kind="generated")
    told = host.chat(model, ASK, options={"temperature": 0, "num_predict": 6})
    assert told.message.content == choice.message.content
    assert (told.eval_count, told.prompt_eval_count) == (6, usage.prompt_tokens)
    assert told.done_reason == "length"
    assert told.eval_duration > 0
    assert mixed.metric("terazi_tokens_total", model=model, kind="generated") - before == 6
    assert mixed.metric("terazi_time_to_first_token_seconds_count", model=model) >= 4
    assert mixed.metric("terazi_engine_memory_bytes", model=model) > 20_000_000
    (running,) = [entry for entry in host.ps().models if entry.model == model]
    assert running.details.format == model.partition(":")[2]


@pytest.mark.parametrize("model", MLX_SLOWLY)
def test_texts_are_those_of_the_engine_alone(client, directories, model):
    from terazi.evaluate.engines import open_writer

    text = "One, two, three,"
    with open_writer(directories / model.replace(":", "-"), context=512, threads=1) as engine:
        alone = engine.generate(text, max_tokens=8, temperature=0).text
    served = client.completions.create(model=model, prompt=text, max_tokens=8, temperature=0)
    assert served.choices[0].text == alone


@pytest.mark.parametrize("model", MLX_SLOWLY)
def test_stop_texts_and_seeds(client, model):
    options = {"model": model, "messages": ASK, "max_tokens": 12}
    whole = client.chat.completions.create(**options, temperature=0).choices[0].message.content
    middle = whole[len(whole) // 2 : len(whole) // 2 + 3]
    for stream in (False, True):
        answer = client.chat.completions.create(**options, temperature=0, stop=[middle, "\0"], stream=stream)
        if stream:
            chunks = [chunk.choices[0] for chunk in answer if chunk.choices]
            text, reason = "".join(c.delta.content or "" for c in chunks), chunks[-1].finish_reason
        else:
            text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
        assert (text, reason) == (whole[: whole.index(middle)], "stop")
    drawn = [
        client.chat.completions.create(**options, seed=seed, temperature=1.5).choices[0].message.content
        for seed in (5, 5, 6)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("model", MLX_SLOWLY)
def test_a_conversation_is_remembered(client, model):
    told = [{"role": "user", "content": f"Tell me a story about {model} and the sea."}]
    options = {"model": model, "max_tokens": 6, "temperature": 0}
    for turn in range(3):
        answer = client.chat.completions.create(messages=told, **options)
        cached = answer.usage.prompt_tokens_details.cached_tokens
        assert cached > 0.5 * answer.usage.prompt_tokens if turn else cached < 40
        if model == "two:onnx":  # a seed keeps it from remembering
            anew = client.chat.completions.create(messages=told, seed=1, **options)
            assert anew.usage.prompt_tokens_details.cached_tokens == 0
            assert anew.choices[0].message.content == answer.choices[0].message.content
        told += [
            {"role": "assistant", "content": answer.choices[0].message.content},
            {"role": "user", "content": f"And then, {turn}?"},
        ]


def test_json_schema(client, host):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "sure": {"type": "boolean"}},
        "required": ["city", "sure"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    answer = client.chat.completions.create(
        model="two:onnx", messages=ASK, max_tokens=40, response_format=form
    )
    assert json.loads(answer.choices[0].message.content).keys() == {"city", "sure"}
    assert answer.choices[0].finish_reason == "stop"
    assert json.loads(host.chat("two:onnx", ASK, format=schema).message.content)["city"] in ("Paris", "Rome")
    with pytest.raises(openai.BadRequestError, match="does not support 'response_format'"):
        client.chat.completions.create(model="two:mlx", messages=ASK, response_format=form)
    form["json_schema"]["schema"] = {"type": 5}
    with pytest.raises(openai.BadRequestError, match="schema cannot be followed"):
        client.chat.completions.create(model="two:onnx", messages=ASK, response_format=form)


@pytest.mark.parametrize("model", WRITERS)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "does not support 'tools'"),
        ({"logprobs": True}, "does not support 'logprobs'"),
        ({"n": 2}, "does not support 'n'"),
        ({"extra_body": {"mirostat": 1}}, "does not support 'mirostat'"),
        ({"temperature": "hot"}, "temperature must be a number"),
        ({"max_tokens": 0}, "max_tokens must be"),
        ({"messages": [{"role": "user", "content": "word " * 600}]}, "context size is 512"),
    ],
)
def test_what_cannot_be_done_is_refused(client, model, options, words):
    with pytest.raises(openai.BadRequestError, match=words):
        client.chat.completions.create(**{"model": model, "messages": ASK, "max_tokens": 4} | options)


def test_models_do_what_they_are_for(client):
    with pytest.raises(openai.BadRequestError, match="makes embeddings and writes no text"):
        client.chat.completions.create(model="minilm:onnx", messages=ASK)
    for model in WRITERS:
        with pytest.raises(openai.BadRequestError, match="makes no embeddings"):
            client.embeddings.create(model=model, input="x")
        with pytest.raises(openai.BadRequestError, match="does not answer /v1/responses"):
            client.responses.create(model=model, input="x")


@pytest.mark.parametrize("format", ["onnx", "mlx"])
def test_embeddings_are_those_of_the_engine_alone(client, host, directories, mixed, format):
    from terazi.runtime import mlx, onnxruntime

    model = f"minilm:{format}"
    if format == "onnx":
        engine = onnxruntime.open_engine(directories / "minilm-onnx", threads=1)
    else:
        engine = mlx.open_engine(directories / "minilm-mlx", embedding=True)
    with engine:
        alone = engine.embed(TEXTS)
    answer = client.embeddings.create(model=model, input=TEXTS)  # the client asks for base64 by itself
    plain = client.embeddings.create(model=model, input=TEXTS, encoding_format="float")
    for found in (answer, plain):
        rows = np.array([row.embedding for row in found.data], np.float32)
        assert np.abs(rows - alone).max() < 1e-6
    assert answer.usage.prompt_tokens == 8 + 6 + 3
    told = host.embed(model, TEXTS)
    assert np.abs(np.array(told.embeddings, np.float32) - alone).max() < 1e-6
    assert told.prompt_eval_count == 17
    assert mixed.metric("terazi_tokens_total", model=model, kind="prompt") >= 34
    with pytest.raises(openai.BadRequestError, match="more than 512 tokens"):
        client.embeddings.create(model=model, input="word " * 600)
    host.embed(model, "x", keep_alive=0)  # leaves the processes of the writers alone


@pytest.mark.parametrize("model", MLX_SLOWLY)
def test_a_newcomer_does_not_wait_for_the_end_of_another(client, model):
    ends = {}

    def ask(tokens):
        client.chat.completions.create(model=model, messages=ASK, max_tokens=tokens, temperature=0)
        ends[tokens] = time.monotonic()

    first = threading.Thread(target=ask, args=(80,))
    first.start()
    time.sleep(0.3)
    ask(2)
    first.join(60)
    assert ends[2] < ends[80]


@pytest.mark.parametrize("model", WRITERS)
def test_a_client_that_leaves_stops_its_answer(client, mixed, model):
    before = mixed.metric("terazi_requests_total", model=model, status="499")
    answer = client.chat.completions.create(model=model, messages=ASK, max_tokens=400, stream=True)
    next(iter(answer))
    answer.close()
    impatient = client.with_options(timeout=0.5)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model=model, messages=ASK, max_tokens=400)
    until(lambda: mixed.metric("terazi_requests_active", model=model) == 0, 5)
    assert mixed.metric("terazi_requests_total", model=model, status="499") - before == 2
    pid = process(mixed, model)

    def busy():
        def seconds():
            return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))

        used = seconds()
        time.sleep(0.5)
        return seconds() - used > 10  # of 50 hundredths

    until(lambda: not busy(), 10)  # the engine was not left working for nobody


def test_a_crash_of_one_engine_leaves_the_other(client, mixed):
    """Two formats answer at once; one engine is killed, and comes back when it is asked again."""
    heard = {model: [] for model in WRITERS}
    lengths = {"two:onnx": 400, "two:mlx": 40}
    failures = {}

    def listen(model):
        try:
            for text in streamed(client, model, max_tokens=lengths[model], temperature=0):
                heard[model].append(text)
        except openai.APIError as error:
            failures[model] = str(error)

    threads = [threading.Thread(target=listen, args=(model,)) for model in WRITERS]
    for thread in threads:
        thread.start()
    until(lambda: all(len(pieces) > 3 for pieces in heard.values()))
    killed = process(mixed, "two:onnx")
    os.kill(killed, signal.SIGKILL)
    for thread in threads:
        thread.join(60)
    assert "SIGKILL" in failures.pop("two:onnx")
    assert not failures
    assert len(heard["two:mlx"]) > 20
    assert client.chat.completions.create(model="two:onnx", messages=ASK, max_tokens=1).choices
    assert process(mixed, "two:onnx") != killed


def test_modelfiles(client, host, store, directories, tmp_path):
    made = create(Modelfile(base=str(directories / "two-onnx"), system="Be brief."), "brief", store=store)
    assert made.manifest.format == "onnx"
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    plain = client.chat.completions.create(model="two:onnx", messages=ASK, max_tokens=1)
    for base in WRITERS:
        host.create("short", from_=base, template=template, parameters={"num_predict": 3})
        short = client.chat.completions.create(model="short", messages=ASK)
        assert short.usage.completion_tokens == 3
        assert short.usage.prompt_tokens < plain.usage.prompt_tokens
    brief = client.chat.completions.create(model="brief", messages=ASK, max_tokens=1)
    assert brief.usage.prompt_tokens != plain.usage.prompt_tokens
    with pytest.raises(UnsupportedError, match="the base is onnx"):
        create(Modelfile(base="two:onnx"), "smaller", store=store, quantize="Q4_0")
    with pytest.raises(UnsupportedError, match="the base is mlx"):
        create(Modelfile(base="two:mlx", adapters=("x.gguf",)), "adapted", store=store)
