"""OpenTelemetry traces. Off, and nothing but its API is imported, unless `configure` finds the variables OTEL_... set.

FastAPI makes the span of a request; here are the others. A trace crosses processes as text: the header traceparent (W3C
Trace Context), which the records of jobs keep as well.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.version import __version__

log = logging.getLogger(__name__)
Attribute = str | int | float
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
FLUSH_S = 2.0
_W3C = TraceContextTextMapPropagator()


def configure(service: str) -> None:
    """Export this process's spans as the variables OTEL_... say; without exporter or endpoint in them, do nothing.

    `service` is the name of the process where they give none. What is wrong with them is logged and stops nothing.
    """
    wanted = os.environ.get("OTEL_TRACES_EXPORTER") or ("otlp" if any(map(os.environ.get, _ENDPOINTS)) else "none")
    if wanted == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    if wanted not in ("otlp", "console"):
        log.warning("no traces: OTEL_TRACES_EXPORTER must be otlp, console or none")
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
    except ModuleNotFoundError as error:
        log.warning("no traces: %s is not installed: pip install 'cdc-codec[otel]'", error.name)
        return
    if "service.name=" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        os.environ.setdefault("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(shutdown_on_exit=False)  # which waits for a collector that does not answer
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter() if wanted == "otlp" else ConsoleSpanExporter()))
    trace.set_tracer_provider(provider)


def flush() -> None:
    """Export what has not been exported yet, for FLUSH_S seconds at most; blocks. For the end of a process."""
    provider = trace.get_tracer_provider()
    if (export := getattr(provider, "force_flush", None)) is not None:  # the SDK's; the interface has none
        exporting = threading.Thread(target=export, daemon=True)
        exporting.start()
        exporting.join(FLUSH_S)


@contextmanager
def span(
    name: str, parent: str = "", *, kind: SpanKind = SpanKind.INTERNAL, link: str = "", **attributes: Attribute
) -> Iterator[None]:
    """A span for as long as the block takes, an error's class its status.

    Args:
        name: of the span.
        parent: a traceparent; "" is the span that the block is in.
        kind, attributes: of the span; their names are put below `cdc.`.
        link: a traceparent that it has to do with.
    """
    with _tracer().start_as_current_span(
        name,
        _context(parent),
        kind,
        _named(attributes),
        [Link(_spoken_of(link))] if link else None,
        record_exception=False,  # its text is for the log alone
        set_status_on_exception=False,
    ) as found:
        try:
            yield
        except Exception as error:
            found.set_status(StatusCode.ERROR, type(error).__name__)
            raise


def past(name: str, begin: float, end: float, parent: str = "", *, error: str = "", **attributes: Attribute) -> None:
    """Add a span that is over; seconds since 1970."""
    found = _tracer().start_span(name, _context(parent), attributes=_named(attributes), start_time=round(1e9 * begin))
    if error:
        found.set_status(StatusCode.ERROR, error)
    found.end(round(1e9 * max(begin, end)))


def stages(names: Sequence[str], moments: Sequence[float]) -> None:
    """Add spans that follow one another, each from its moment to the next; seconds since 1970."""
    for name, begin, end in zip(names, moments, moments[1:], strict=False):
        past(name, begin, end)


def annotate(**attributes: Attribute) -> None:
    """Add to the present span; "__" in a name stands for a dot."""
    trace.get_current_span().set_attributes({name.replace("__", "."): value for name, value in attributes.items()})


def fail(reason: str) -> None:
    """Mark the present span as failed."""
    trace.get_current_span().set_status(StatusCode.ERROR, reason)


def link(parent: str) -> None:
    """Link the present span to that of a traceparent."""
    if parent:
        trace.get_current_span().add_link(_spoken_of(parent))


def traceparent() -> str:
    """The present span as the header traceparent, "" where there is none."""
    headers: dict[str, str] = {}
    _W3C.inject(headers)
    return headers.get("traceparent", "")


def trace_id() -> str:
    """Id of the present trace, 32 hexadecimal digits; "" where none is recorded."""
    found = trace.get_current_span().get_span_context()
    return trace.format_trace_id(found.trace_id) if found.is_valid and found.trace_flags.sampled else ""


def exemplar() -> dict[str, str] | None:
    """What leads from a histogram to the present trace."""
    found = trace_id()
    return {"trace_id": found} if found else None


def _tracer() -> trace.Tracer:
    return trace.get_tracer("cdc", __version__)


def _context(parent: str) -> Context | None:
    return _W3C.extract({"traceparent": parent}) if parent else None


def _spoken_of(parent: str) -> trace.SpanContext:
    return trace.get_current_span(_context(parent)).get_span_context()


def _named(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    return {f"cdc.{name}": value for name, value in attributes.items()}
