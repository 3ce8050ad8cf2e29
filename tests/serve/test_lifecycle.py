"""The server survives its clients and its engines, and ends well."""

import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.error
from urllib.parse import urlparse

import openai
import pytest

MODEL = "smollm2:135m"
ASK = [{"role": "user", "content": "Tell me a long story about the sea."}]


def connection(server):
    address = urlparse(server.url)
    return http.client.HTTPConnection(address.hostname, address.port, timeout=60)


def post(server, path, body, **headers):
    """Send bytes as they are; returns status, headers and body."""
    link = connection(server)
    try:
        link.request("POST", path, body, {"Content-Type": "application/json", **headers})
        answer = link.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        link.close()


def chat(**options):
    return json.dumps({"model": MODEL, "messages": ASK, "max_tokens": 8} | options)


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def own(start):
    """A server that these tests may hurt: one answer at a time, two in line."""
    return start("--context", 512, "--parallel", 1, "--queue", 2)


def streaming(server, tokens=400):
    """Begin a long answer and return the open connection after its first piece."""
    link = connection(server)
    link.request("POST", "/v1/chat/completions", chat(stream=True, max_tokens=tokens, ignore_eos=True))
    answer = link.getresponse()
    assert answer.status == 200
    assert answer.readline().startswith(b"data:")
    return link, answer


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "null", "[" * 100_000, '{"model": NaN}', '{"a": Infinity}', "\x00", '"text"', "{}"],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/chat", "/api/show"])
def test_bad_requests_are_answered_in_the_protocols_form(server, path, body):
    status, _, answer = post(server, path, body)
    assert status in (400, 404)
    error = json.loads(answer)["error"]
    assert (error["message"] if path.startswith("/v1") else error).strip()


def test_unknown_paths_and_methods(server):
    assert post(server, "/v1/nonsense", "{}")[0] == 404
    assert post(server, "/api/tags", "{}")[0] == 405


def test_too_large_requests_are_refused(server):
    assert post(server, "/v1/chat/completions", b" " * (65 << 20))[0] == 413


def test_other_names_and_other_sites_are_refused(server):
    assert post(server, "/v1/chat/completions", chat(), Host="evil.example")[0] == 403
    assert post(server, "/v1/chat/completions", chat(), Origin="https://evil.example")[0] == 403
    assert post(server, "/v1/chat/completions", chat(), Origin=server.url)[0] == 200


def test_health_and_metrics(server):
    assert json.loads(server.get("/health")) == {"status": "ok"}
    assert json.loads(server.get("/ready")) == {"status": "ready"}
    post(server, "/v1/chat/completions", chat())
    assert server.metric("terazi_requests_total", status="200", route="/v1/chat/completions") >= 1
    assert server.metric("terazi_time_to_first_token_seconds_count", model=MODEL) >= 1
    assert server.metric("terazi_engine_memory_bytes", model=MODEL) > 50_000_000


def test_logs_say_nothing_of_prompts(server):
    post(server, "/v1/chat/completions", chat(messages=[{"role": "user", "content": "a secret word: xyzzy"}]))
    until(lambda: any(event["path"] == "/v1/chat/completions" for event in server.events()))
    assert "xyzzy" not in "".join(server.log)


def test_a_client_that_leaves_stops_its_answer(own):
    for leave in (True, False):
        link, _ = streaming(own) if leave else (connection(own), None)
        if not leave:  # leaving while a whole answer is being made
            link.request("POST", "/v1/chat/completions", chat(max_tokens=400, ignore_eos=True))
            until(lambda: own.metric("terazi_requests_active", model=MODEL) == 1)
        assert own.metric("terazi_requests_active", model=MODEL) == 1
        link.sock.shutdown(socket.SHUT_RDWR)
        link.close()
        until(lambda: own.metric("terazi_requests_active", model=MODEL) == 0, 5)
    assert own.metric("terazi_requests_total", status="499") >= 2
    started = time.monotonic()
    assert post(own, "/v1/chat/completions", chat(max_tokens=1))[0] == 200
    assert time.monotonic() - started < 10  # the engine was not left working for nobody


def test_a_full_line_says_when_to_come_back(own):
    link, _ = streaming(own)
    answers = []
    waiting = [
        threading.Thread(target=lambda: answers.append(post(own, "/v1/chat/completions", chat(max_tokens=1))))
        for _ in range(2)
    ]
    for thread in waiting:
        thread.start()
    until(lambda: own.metric("terazi_requests_waiting", model=MODEL) == 2)
    status, headers, body = post(own, "/v1/chat/completions", chat())
    assert status == 429
    assert int(headers["retry-after"]) >= 1
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
    assert post(own, "/api/chat", chat())[0] == 429
    link.close()
    for thread in waiting:
        thread.join(30)
    assert [status for status, _, _ in answers] == [200, 200]


def test_a_killed_engine_fails_its_requests_and_comes_back(own):
    link, answer = streaming(own)
    (engine,) = own.engines()
    os.kill(engine, signal.SIGKILL)
    rest = answer.read()
    assert b'"error"' in rest
    assert b"SIGKILL" in rest
    link.close()
    assert post(own, "/v1/chat/completions", chat(max_tokens=1))[0] == 200
    assert own.engines() not in ([], [engine])
    assert own.metric("terazi_engine_crashes_total", model=MODEL) == 1


def test_an_api_key(start):
    guarded = start("--context", 512, "--read-only", environment={"TERAZI_API_KEY": "s3cret"})
    assert json.loads(guarded.get("/health")) == {"status": "ok"}
    with pytest.raises(urllib.error.HTTPError, match="401"):
        guarded.get("/v1/models")
    assert post(guarded, "/api/show", json.dumps({"model": MODEL}), Authorization="Bearer wrong")[0] == 401
    assert post(guarded, "/api/show", json.dumps({"model": MODEL}), Authorization="Bearer s3cret")[0] == 200
    for path in ("/api/pull", "/api/create", "/api/copy", "/api/push", f"/api/blobs/sha256:{'0' * 64}"):
        assert post(guarded, path, json.dumps({"model": MODEL}), Authorization="Bearer s3cret")[0] == 403
    with openai.OpenAI(base_url=f"{guarded.url}/v1", api_key="s3cret") as client:
        assert client.models.list().data
    guarded.process.send_signal(signal.SIGTERM)
    assert guarded.process.wait(20) == 0


def test_idle_models_leave_and_budgets_hold(start, home):
    from terazi.registry import Store

    Store(home).add(
        Store(home).resolve(MODEL), "copy:1", settings={"parameters": {"num_ctx": 256}}, notes="other"
    )
    small = start("--context", 512, "--parallel", 1, "--memory", "200MB", "--keep-alive", "1s")
    for name in (MODEL, "copy:1", MODEL):
        assert post(small, "/v1/chat/completions", chat(model=name, max_tokens=1))[0] == 200
        assert len(small.engines()) == 1  # both do not fit
    until(lambda: small.engines() == [])
    status, _, body = post(small, "/v1/embeddings", json.dumps({"model": MODEL, "input": "x"}))
    assert status == 200, body
    Store(home).remove("copy:1")
    tiny = start("--context", 512, "--memory", "50MB")
    status, _, body = post(tiny, "/v1/chat/completions", chat())
    assert status == 503
    assert "the budget is 0.1 GB" in json.loads(body)["error"]["message"]


def test_a_stopping_server_lets_answers_end(start):
    ending = start("--context", 512)
    link, answer = streaming(ending, tokens=40)
    engines = ending.engines()
    ending.process.send_signal(signal.SIGTERM)
    rest = answer.read()
    assert rest.rstrip().endswith(b"data: [DONE]")
    assert b'"finish_reason":"length"' in rest
    link.close()
    assert ending.process.wait(30) == 0
    for engine in engines:
        with pytest.raises(ProcessLookupError):
            os.kill(engine, 0)


def test_engines_never_outlive_a_killed_server(start):
    doomed = start("--context", 512)
    link, _ = streaming(doomed)
    engines = doomed.engines()
    doomed.process.kill()
    doomed.process.wait()
    link.close()

    def gone():
        for engine in engines:
            try:
                os.kill(engine, 0)
            except ProcessLookupError:
                continue
            with open(f"/proc/{engine}/stat") as stat:  # noqa: PTH123
                return stat.read().split()[2] == "Z"
        return True

    assert engines
    until(gone, 10)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--host", "0.0.0.0"], "without an API key"), (["--keep-alive", "soon"], "not a duration")],
)
def test_unsafe_or_senseless_options(options, words, capsys):
    from terazi import cli

    with pytest.raises(SystemExit) as end:
        cli.main(["serve", "--port", "0", *options])
    assert end.value.code in (1, 2)
    assert words in capsys.readouterr().err
