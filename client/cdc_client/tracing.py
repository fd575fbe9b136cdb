"""Spans of requests, in programs that trace with OpenTelemetry. It is no dependency: others load and pay nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def client_span(method: str, path: str) -> Iterator[Mapping[str, str]]:
    """A span of a request, for as long as the block takes; yields the headers that let the service continue its trace.

    Without OpenTelemetry loaded by the program there is neither.
    """
    if "opentelemetry.trace" not in sys.modules:
        yield {}
        return
    from opentelemetry import propagate, trace

    headers: dict[str, str] = {}
    name = f"cdc {method} /{path.split('/')[1]}"  # ids of jobs are nobody else's business
    with trace.get_tracer("cdc_client").start_as_current_span(name, kind=trace.SpanKind.CLIENT):
        propagate.inject(headers)
        yield headers
