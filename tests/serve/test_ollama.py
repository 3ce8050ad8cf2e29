"""The unchanged `ollama` client."""

import ollama
import pytest

from terazi.registry import Store

MODEL = "smollm2:135m"
ASK = [{"role": "user", "content": "Name the capital city of France."}]
SHORT = {"num_predict": 12, "temperature": 0}


@pytest.fixture(scope="module")
def client(server):
    client = ollama.Client(server.url)
    yield client
    client._client.close()


def test_list_show_and_version(client, server):
    listed = {model.model: model for model in client.list().models}
    assert listed[MODEL].details.parameter_size == "134.52M"
    assert listed[MODEL].size == 98_362_432
    shown = client.show(MODEL)
    assert shown.details.family == "llama"
    assert shown.modelinfo["llama.context_length"] == 8192
    assert shown.capabilities[0] == "completion"
    assert "<|im_start|>" in shown.template
    assert shown.modelfile.startswith(f"FROM {MODEL}")
    assert '"version"' in server.get("/api/version")


def test_chat_whole_and_streamed(client):
    whole = client.chat(MODEL, ASK, options=SHORT)
    assert "Paris" in whole.message.content
    assert whole.done
    assert whole.eval_count == 12 or whole.done_reason == "stop"
    assert whole.prompt_eval_count > 10
    assert 0 < whole.eval_duration <= whole.total_duration
    pieces = list(client.chat(MODEL, ASK, options=SHORT, stream=True))
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].done_reason == whole.done_reason


def test_generate(client):
    answer = client.generate(MODEL, "Name the capital city of France.", options=SHORT)
    assert "Paris" in answer.response
    system = client.generate(MODEL, "Who are you?", system="You are a pirate called Bob.", options=SHORT)
    assert system.response != client.generate(MODEL, "Who are you?", options=SHORT).response
    raw = client.generate(MODEL, "One, two, three,", raw=True, options={**SHORT, "num_predict": 3})
    assert "four" in raw.response
    stopped = client.generate(MODEL, "One, two, three,", raw=True, options={**SHORT, "stop": ["four"]})
    assert "four" not in stopped.response
    assert stopped.done_reason == "stop"


def test_formats(client):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answer = client.chat(MODEL, ASK, format=schema, options={"num_predict": 30})
    assert '"n"' in answer.message.content
    with pytest.raises(ollama.ResponseError, match="format must be"):
        client._request_raw("POST", "/api/chat", json={"model": MODEL, "messages": ASK, "format": "yaml"})


def test_embeddings(client):
    answer = client.embed(MODEL, ["one", "two"])
    assert [len(vector) for vector in answer.embeddings] == [576, 576]
    assert sum(value * value for value in answer.embeddings[0]) == pytest.approx(1, abs=1e-3)
    short = client.embed(MODEL, "one", dimensions=64).embeddings[0]
    assert len(short) == 64
    assert sum(value * value for value in short) == pytest.approx(1, abs=1e-3)
    assert len(client.embeddings(MODEL, "one").embedding) == 576


def test_what_does_not_fit_is_an_error(client):
    """Ollama cuts it silently; here it is said."""
    long = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(ollama.ResponseError, match="exceeds the available context size"):
        client.chat(MODEL, long)
    with pytest.raises(ollama.ResponseError, match="exceeds the available context size"):
        list(client.chat(MODEL, long, stream=True))
    with pytest.raises(ollama.ResponseError, match="trained for 8192"):
        client.chat(MODEL, ASK, options={"num_ctx": 100_000})


def test_a_larger_context_on_request(client):
    long = [{"role": "user", "content": "word " * 520}]
    answer = client.chat(MODEL, long, options={"num_ctx": 640, "num_predict": 2})
    assert answer.prompt_eval_count > 520
    assert 640 in [model.context_length for model in client.ps().models]


def test_a_model_removed_while_loaded_does_not_hide_the_others(client, home):
    store = Store(home)
    store.tag(MODEL, "passing")
    client.generate("passing", keep_alive="5m")
    client.generate(MODEL, keep_alive="5m")
    store.remove("passing")
    assert MODEL in [model.model for model in client.ps().models]


def test_loading_and_unloading(client):
    assert client.generate(MODEL, keep_alive="5m").done_reason == "load"
    assert MODEL in [model.model for model in client.ps().models]
    assert client.chat(MODEL, [], keep_alive=0).done_reason == "unload"
    assert MODEL not in [model.model for model in client.ps().models if model.size == 0]


def test_create_copy_delete(client, home):
    client.create(
        "parrot",
        from_=MODEL,
        system="You help a sailor.",
        parameters={"temperature": 0, "num_predict": 12},
        messages=[
            {"role": "user", "content": "My name is Zorbo. Remember it."},
            {"role": "assistant", "content": "Hello Zorbo!"},
        ],
        license="Apache-2.0",
        stream=False,
    )
    shown = client.show("parrot")
    assert 'SYSTEM "You help a sailor."' in shown.modelfile
    assert "num_predict 12" in shown.parameters
    answer = client.chat("parrot", [{"role": "user", "content": "What is my name?"}])
    assert "Zorbo" in answer.message.content
    assert answer.eval_count <= 12
    client.copy("parrot", "polly")
    assert Store(home).entry("polly").digest == Store(home).entry("parrot").digest
    for name in ("parrot", "polly"):
        client.delete(name)
    with pytest.raises(ollama.ResponseError, match="not in the store") as failure:
        client.chat("parrot", ASK)
    assert failure.value.status_code == 404


def test_uploaded_files_become_models(client, tmp_path, home):
    from terazi.formats import gguf, open_model

    model = open_model(Store(home).resolve(MODEL))
    few = [tensor for tensor in model.tensors.values() if "blk" not in tensor.name]
    path = gguf.write(tmp_path / "own.gguf", model.metadata, few)
    digest = client.create_blob(path)
    statuses = [step.status for step in client.create("own", files={"own.gguf": digest}, stream=True)]
    assert statuses[-1] == "success"
    assert Store(home).entry("own").manifest.files[0].digest == digest.removeprefix("sha256:")
    steps = list(client.create("own-small", from_="own", quantize="q8_0", stream=True))
    assert any(step.total for step in steps)
    assert Store(home).entry("own-small").manifest.lineage["recipe"] == "Q8_0"
    with pytest.raises(ollama.ResponseError, match="was not uploaded"):
        client.create("bad", files={"x.gguf": "sha256:" + "0" * 64})
    with pytest.raises(ollama.ResponseError, match="SHA-256"):
        client._request_raw("POST", f"/api/blobs/sha256:{'1' * 64}", content=b"other")
    with pytest.raises(ollama.ResponseError, match="does not load"):
        client.chat("own", ASK)
    for name in ("own", "own-small"):
        client.delete(name)


def test_pull_tells_its_progress(client, home, tmp_path):
    import http.server
    import threading

    from terazi.formats import gguf, open_model

    model = open_model(Store(home).resolve(MODEL))
    gguf.write(tmp_path / "tiny.gguf", model.metadata, list(model.tensors.values())[:1])

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path))

        def log_message(self, *arguments):
            pass

    site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=site.serve_forever, args=(0.01,), daemon=True).start()
    steps = list(client.pull(f"http://127.0.0.1:{site.server_port}/tiny.gguf", stream=True))
    site.shutdown()
    site.server_close()
    assert steps[0].status == "pulling manifest"
    assert steps[-1].status == "success"
    assert any(step.completed == step.total for step in steps if step.total)
    client.delete("tiny")


@pytest.mark.parametrize("name", ["file:/etc/passwd", "../x", "a b"])
def test_pull_refuses_what_it_must(client, name):
    with pytest.raises(ollama.ResponseError):
        client.pull(name)


@pytest.mark.parametrize("base", ["/etc/passwd", "./model.gguf", "file:/etc/passwd"])
def test_create_does_not_read_the_servers_files(client, base):
    with pytest.raises(ollama.ResponseError):
        client.create("stolen", from_=base)
