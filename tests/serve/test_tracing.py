"""Traces as a collector receives them, by OTLP over HTTP."""

import json
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from terazi.errors import MissingExtraError, UsageError
from terazi.serve.tracing import Tracer

MODEL = "smollm2:135m"
SECRET = "Zanzibar"


class Collector(ThreadingHTTPServer):
    """Receives what an exporter sends to /v1/traces."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans, self.raw, self.resources = [], [], []

    def named(self, name, wait=20.0):
        """The first span of a name that comes."""
        end = time.monotonic() + wait
        while time.monotonic() < end:
            for span in list(self.spans):
                if span.name == name:
                    return span
            time.sleep(0.05)
        raise AssertionError(f"no span {name} among {[span.name for span in self.spans]}")

    def children(self, span):
        return {child.name: child for child in self.spans if child.parent_span_id == span.span_id}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        request = ExportTraceServiceRequest.FromString(body)
        self.server.raw.append(body)
        for resource in request.resource_spans:
            self.server.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


def attributes(owner):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in owner.attributes}


@pytest.fixture(scope="module")
def collector():
    with Collector() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(scope="module")
def traced(start, collector):
    endpoint = f"http://127.0.0.1:{collector.server_port}"
    environment = {
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }
    return start("--context", 256, "--parallel", 1, "--otlp-endpoint", endpoint, environment=environment)


def ask(server, path, body, **headers):
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), headers)
    try:
        return urllib.request.urlopen(request, timeout=60).read()
    except urllib.error.HTTPError as error:
        return error.read()


def test_a_request_is_a_span_with_its_parts(traced, collector):
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    messages = [{"role": "user", "content": f"Where is {SECRET}?"}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 5, "temperature": 0, "stream": True}
    ask(traced, "/v1/chat/completions", body, traceparent=f"00-{trace}-{parent}-01")
    span = collector.named(f"chat {MODEL}")
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (
        trace,
        parent,
        span.SPAN_KIND_SERVER,
    )
    facts = attributes(span)
    assert facts["gen_ai.operation.name"] == "chat"
    assert facts["gen_ai.request.model"] == MODEL
    assert facts["gen_ai.request.max_tokens"] == facts["gen_ai.usage.output_tokens"] == 5
    assert facts["gen_ai.usage.input_tokens"] > 10
    assert facts["http.response.status_code"] == 200
    assert [event.name for event in span.events] == ["first token"]
    parts = collector.children(span)
    assert parts.keys() == {"load", "queue", "engine"}
    for part in parts.values():
        assert span.start_time_unix_nano <= part.start_time_unix_nano <= part.end_time_unix_nano
        assert part.end_time_unix_nano <= span.end_time_unix_nano
    assert parts["load"].end_time_unix_nano <= parts["queue"].start_time_unix_nano
    assert parts["queue"].end_time_unix_nano <= parts["engine"].start_time_unix_nano
    assert SECRET.encode() not in b"".join(collector.raw)
    assert collector.resources[0]["service.name"] == "terazi"
    assert collector.resources[0]["deployment.environment.name"] == "test"


def test_ollama_requests_and_embeddings(traced, collector):
    ask(traced, "/api/generate", {"model": MODEL, "prompt": SECRET, "options": {"num_predict": 3}})
    span = collector.named(f"text_completion {MODEL}")
    assert attributes(span)["gen_ai.usage.output_tokens"] == 3
    assert collector.children(span).keys() == {"queue", "engine"}  # it was loaded already
    ask(traced, "/api/embed", {"model": MODEL, "input": SECRET})
    span = collector.named(f"embeddings {MODEL}")
    assert attributes(span)["gen_ai.usage.input_tokens"] > 0
    assert SECRET.encode() not in b"".join(collector.raw)


def test_failures_are_marked(traced, collector):
    ask(traced, "/v1/completions", {"model": "absent:1", "prompt": SECRET})
    span = collector.named("POST /v1/completions")
    assert attributes(span)["http.response.status_code"] == 404
    assert attributes(span)["error.type"] == "404"
    assert SECRET.encode() not in b"".join(collector.raw)


def test_off_unless_asked_for(monkeypatch):
    assert Tracer.from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    for name, value in (("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert Tracer.from_environment() is None


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318", "is no address"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "PROTOCOL is grpc"),
    ],
)
def test_settings_that_cannot_work(monkeypatch, name, value, words):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words):
        Tracer.from_environment()


def test_without_the_packages(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318/v1/traces")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExtraError, match=r"terazi\[otel\]|sending traces"):
        Tracer.from_environment()
