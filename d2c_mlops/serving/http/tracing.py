"""OpenTelemetry traces, off unless an address is set: one span per request, joined to the caller's trace."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from d2c_mlops.errors import UsageError
from d2c_mlops.serving.http.messages import Request

CONSOLE = "console"  # instead of an address: spans are printed


class Tracer:
    """Creates spans and exports them in a separate thread."""

    def __init__(self, address: str, model: str, version: str) -> None:
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError:
            raise UsageError("OpenTelemetry is not installed", next="pip install opentelemetry-sdk") from None
        resource = Resource.create({"service.name": f"d2c.{model}", "service.version": version})
        self.provider = TracerProvider(resource=resource)
        self.provider.add_span_processor(BatchSpanProcessor(_span_exporter(address)))
        self.tracer = self.provider.get_tracer("d2c_mlops")
        self.propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, request: Request) -> Iterator[Any]:
        """A span around a request, child of the caller's when there is a traceparent."""
        from opentelemetry.trace import SpanKind

        carrier = {k.decode("latin-1"): v.decode("latin-1") for k, v in request.scope["headers"] if k[:5] == b"trace"}
        method, path = request.scope["method"], request.scope["path"]
        facts = {"http.request.method": method, "url.path": path, "d2c.request_id": request.id}
        parent = self.propagator.extract(carrier)
        with self.tracer.start_as_current_span(
            f"{method} {path}", context=parent, kind=SpanKind.SERVER, attributes=facts
        ) as span:
            yield span

    def close(self) -> None:
        """Export the remaining spans."""
        self.provider.shutdown()


def _span_exporter(address: str) -> Any:
    if address == CONSOLE:
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stdout, formatter=lambda span: span.to_json(indent=None) + "\n")
    try:
        exporter_class = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter
    except ImportError:
        raise UsageError(
            "traces need an exporter",
            where="[service] traces",
            next="pip install opentelemetry-exporter-otlp-proto-http",
        ) from None
    return exporter_class(endpoint=address)
