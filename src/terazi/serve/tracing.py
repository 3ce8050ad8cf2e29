"""OpenTelemetry traces: a span per request, and in it the waiting, the loading and the engine's work.

Attributes are those of https://opentelemetry.io/docs/specs/semconv/gen-ai/; none holds what was said. A
``traceparent`` header (https://www.w3.org/TR/trace-context/) makes the span part of the client's trace.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from terazi.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

__all__ = ["ENDPOINT", "Tracer", "answered", "asked_for", "describe", "first_token", "step"]

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/api/chat": "chat",
    "/v1/completions": "text_completion",
    "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
}
# Of a request as the engine gets it -> attribute.
_REQUEST = {
    "max_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}


class Tracer:
    """Makes the spans of one server."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("terazi")

    @staticmethod
    def from_environment() -> Tracer | None:
        """Send spans by OTLP over HTTP to where OTEL_EXPORTER_OTLP_ENDPOINT or …_TRACES_ENDPOINT says.

        None when neither is set, or OTEL_SDK_DISABLED or OTEL_TRACES_EXPORTER switch it off. The other OTEL_*
        variables mean what they mean everywhere. Raises `MissingExtraError`, `UsageError`.
        """
        endpoint = _named_endpoint()
        if not endpoint:
            return None
        protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        if protocol != "http/protobuf":
            raise UsageError(
                f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}", hint="traces are sent by http/protobuf only"
            )
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import OTELResourceDetector, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            raise MissingExtraError("sending traces", "otel") from None
        if not endpoint.startswith(("http://", "https://")):
            raise UsageError(f"{endpoint} is no address", hint="write it like http://localhost:4318")
        provider = TracerProvider(
            resource=Resource({"service.name": "terazi"}).merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return Tracer(provider)

    @contextmanager
    def request(self, method: str, path: str, headers: Mapping[str, str]) -> Iterator[Span]:
        """Open the span of a request; what the block calls adds to it."""
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        span = self._tracer.start_span(
            f"{method} {path}",
            context=TraceContextTextMapPropagator().extract(headers),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "url.path": path},
        )
        token = _request.set((self, span))
        try:
            yield span
        finally:
            _request.reset(token)
            span.end()

    @contextmanager
    def child(self, parent: Span, name: str) -> Iterator[None]:
        """Open a span below another."""
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        span = self._tracer.start_span(name, context=set_span_in_context(parent))
        try:
            yield
        except BaseException as error:
            if isinstance(error, Exception):
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            span.end()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


_request: ContextVar[tuple[Tracer, Span] | None] = ContextVar("request", default=None)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Time the block as a part of the current request, if that is traced."""
    current = _request.get()
    if current is None:
        yield
    else:
        tracer, span = current
        with tracer.child(span, name):
            yield


def describe(attributes: Mapping[str, Any]) -> None:
    """Add attributes to the current request's span."""
    current = _request.get()
    if current is not None:
        current[1].set_attributes(attributes)


def asked_for(model: str, route: str, body: Mapping[str, Any]) -> None:
    """Name the current request's span by what it asks of which model."""
    current = _request.get()
    if current is None:
        return
    span = current[1]
    operation = _OPERATIONS.get(route, "chat")
    span.update_name(f"{operation} {model}")
    span.set_attributes(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "terazi",
            "gen_ai.request.model": model,
            "gen_ai.response.model": model,
            "http.route": route,
        }
    )
    for field, attribute in _REQUEST.items():
        if isinstance(body.get(field), int | float):
            span.set_attribute(attribute, body[field])


def first_token() -> None:
    """Mark the moment in the current request's span."""
    current = _request.get()
    if current is not None:
        current[1].add_event("first token")


def answered(status: int) -> None:
    """Tell the current request's span how the request ended; 0: the client left before an answer."""
    current = _request.get()
    if current is None:
        return
    from opentelemetry.trace import Status, StatusCode

    span = current[1]
    span.set_attribute("http.response.status_code", status)
    if status >= 400:
        span.set_attribute("error.type", str(status))
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))


def _named_endpoint() -> str:
    value = os.environ.get
    if value("OTEL_SDK_DISABLED", "").lower() == "true" or value("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return ""
    return value("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "") or value(ENDPOINT, "")
