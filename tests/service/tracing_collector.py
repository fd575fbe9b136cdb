"""Where tests look for spans: a provider of this process that keeps them, and an OTLP receiver for other processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler, SamplingResult

EXPORTER = InMemorySpanExporter()


class Switch(Sampler):
    """Records all spans while it is on, and none else."""

    on = False

    def should_sample(self, *arguments: Any, **named: Any) -> SamplingResult:
        return (ALWAYS_ON if self.on else ALWAYS_OFF).should_sample(*arguments, **named)

    def get_description(self) -> str:
        return "Switch"


SWITCH = Switch()


@dataclass
class Seen:
    """A span as an exporter has it; ids in hexadecimal, times in seconds since 1970."""

    name: str
    trace: str
    id: str
    parent: str
    failure: str
    begin: float
    end: float
    attributes: dict[str, object] = field(default_factory=dict)
    links: tuple[str, ...] = ()  # trace ids


@contextmanager
def kept_spans() -> Iterator[Callable[[], list[Seen]]]:
    """Keep the spans of this process; OpenTelemetry's provider can be set once, so it stays."""
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        provider = TracerProvider(sampler=SWITCH)
        provider.add_span_processor(SimpleSpanProcessor(EXPORTER))
        trace.set_tracer_provider(provider)
    EXPORTER.clear()
    SWITCH.on = True
    try:
        yield _kept
    finally:
        SWITCH.on = False
        EXPORTER.clear()


def _kept() -> list[Seen]:
    return [
        Seen(
            s.name,
            f"{s.context.trace_id:032x}",
            f"{s.context.span_id:016x}",
            f"{s.parent.span_id:016x}" if s.parent else "",
            "" if s.status.is_ok or s.status.is_unset else s.status.description or "?",
            (s.start_time or 0) / 1e9,
            (s.end_time or 0) / 1e9,
            dict(s.attributes or {}),
            tuple(f"{link.context.trace_id:032x}" for link in s.links),
        )
        for s in EXPORTER.get_finished_spans()
    ]


class Collector:
    """Receives OTLP over HTTP at `url`."""

    def __init__(self) -> None:
        self.spans: list[Seen] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                collector.take(sent)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, sent: ExportTraceServiceRequest) -> None:
        for resource in sent.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            self.services.add(names["service.name"])
            for s in (s for scope in resource.scope_spans for s in scope.spans):
                failure = s.status.message or "?" if s.status.code == 2 else ""
                ids = s.trace_id.hex(), s.span_id.hex(), s.parent_span_id.hex()
                times = s.start_time_unix_nano / 1e9, s.end_time_unix_nano / 1e9
                said = {a.key: a.value.string_value or a.value.int_value for a in s.attributes}
                self.spans.append(Seen(s.name, *ids, failure, *times, said))
