"""Prometheus metrics. One `Metrics` object per application: its registry is its own, so two never mix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.engine.messages import Ticked
from service.engine.port import EngineStatus
from service.tracing import exemplar
from service.work import Operation, Result, WorkState

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 120)
_LAGS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_BPP = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 0.8, 1, 1.5, 2, 3, 4)
_PIXELS = (1e4, 1e5, 2.5e5, 5e5, 1e6, 2e6, 4e6, 8e6, 12e6, 24e6, 50e6, 100e6)
_STEPS = (1, 2, 4, 8, 12, 17, 25, 33, 50, 65, 100, 200, 500)
_ROWS = (1, 2, 4, 8, 16, 32, 64)
_MODEL = ("model", "codec_id")
_WORK = ("operation", *_MODEL)
_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


def _rows_label(rows: int) -> str:
    """Rows as a label: the next power of two, so that a tile has at most seven."""
    return str(1 << (rows - 1).bit_length())


class Metrics:
    """The metrics of one application.

    Attributes:
        registry: what `/metrics` writes out.
        duration: cdc_request_duration_seconds{route,stage}; stage "total" is the whole request.
        requests: cdc_requests_total{route,status}.
        work: cdc_work_total{operation,model,codec_id}, encodes and decodes done; work_seconds: what they took,
            waiting in the engine included.
        bpp: {model,codec_id}, bits per pixel of encoded images.
        pixels: {operation,model,codec_id}, pixels of encoded and decoded images.
        steps: {model,codec_id}, denoising steps of decodes.
        step_seconds: of denoising passes; batch_rows, batch_fill: of all passes.
        loop_lag: how late the API's event loop is; a second without a turn counts as twenty late ones.
        entropy_failures: {codec_id}, files with a right checksum whose symbols make no sense.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.duration = Histogram(
            "cdc_request_duration_seconds",
            "Seconds per request and stage",
            ("route", "stage"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.requests = Counter("cdc_requests_total", "Requests answered", ("route", "status"), registry=self.registry)
        self.bpp = Histogram(
            "cdc_bpp", "Bits per pixel of encoded images", _MODEL, buckets=_BPP, registry=self.registry
        )
        self.pixels = Histogram("cdc_pixels", "Pixels per image", _WORK, buckets=_PIXELS, registry=self.registry)
        self.steps = Histogram(
            "cdc_steps", "Denoising steps per decode", _MODEL, buckets=_STEPS, registry=self.registry
        )
        self.entropy_failures = Counter(
            "cdc_entropy_failures_total",
            "Files whose entropy-coded symbols make no sense",
            ("codec_id",),
            registry=self.registry,
        )
        self.step_seconds = Histogram(
            "cdc_denoise_step_seconds",
            "Seconds of a denoising pass by tile and rows",
            ("tile", "rows"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "cdc_batch_rows", "Rows of a forward pass", ("kind",), buckets=_ROWS, registry=self.registry
        )
        self.batch_fill = Histogram(
            "cdc_batch_fill_ratio", "Rows of a forward pass / rows it may hold", buckets=_RATIOS, registry=self.registry
        )
        self.loop_lag = Histogram(
            "cdc_event_loop_lag_seconds",
            "How late the event loop is, asked twenty times a second",
            buckets=_LAGS,
            registry=self.registry,
        )
        self.work = Counter(
            "cdc_work_total",
            "Encodes and decodes done, by the model that did them",
            _WORK,
            registry=self.registry,
        )
        self.work_seconds = Histogram(
            "cdc_work_seconds",
            "Seconds of an encode or decode where it is done, waiting for the device included",
            _WORK,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._webhooks = Counter(
            "cdc_webhooks_total", "Attempts to send a webhook, by what came of it", ("outcome",), registry=self.registry
        )
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def watch(self, status: Callable[[], EngineStatus]) -> None:
        """Report the engine's own figures, asked for at every scrape."""
        self.registry.register(_EngineCollector(status))

    def watch_jobs(self, counts: Callable[[], Mapping[str, int]]) -> None:
        """Report how many jobs are in each state, asked for at every scrape."""
        self.registry.register(_JobCollector(counts))

    def watch_fleet(self, fleet: Callable[[], tuple[bool, int]]) -> None:
        """Report whether the queue was reached last time, and how many workers take work, asked for at every scrape."""
        self.registry.register(_FleetCollector(fleet))

    def heartbeat(self) -> Gauge:
        """Return cdc_worker_heartbeat_timestamp_seconds, Unix time, for a worker's event loop to set at every turn."""
        return Gauge(
            "cdc_worker_heartbeat_timestamp_seconds",
            "When the worker's event loop last turned, Unix time",
            registry=self.registry,
        )

    def webhook(self, outcome: str) -> None:
        """Count an attempt to send a webhook: delivered, failed, or dead."""
        self._webhooks.labels(outcome).inc()

    def observe_work(self, operation: Operation, result: Result, pixels: int, seconds: float) -> None:
        """Add an encode or decode that is done."""
        said = result.metadata
        model = said.model, said.codec_id
        self.work.labels(operation, *model).inc()
        self.work_seconds.labels(operation, *model).observe(seconds, exemplar())
        self.pixels.labels(operation, *model).observe(pixels)
        if operation == "encode":
            self.bpp.labels(*model).observe(said.bpp)
        else:
            self.steps.labels(*model).observe(said.steps or 0)

    def observe_tick(self, tick: Ticked) -> None:
        """Add one forward pass of the engine."""
        if tick.kind == "denoise":
            tile = f"{tick.shape[1]}x{tick.shape[0]}"
            self.step_seconds.labels(tile, _rows_label(tick.rows)).observe(tick.seconds)
        self.batch_rows.labels(tick.kind).observe(tick.rows)
        self.batch_fill.observe(tick.rows / tick.capacity)

    def observe_stages(self, route: str, seconds: Mapping[str, float]) -> None:
        """Add the stages of one request to the durations."""
        found = exemplar()
        for stage, value in seconds.items():
            self.duration.labels(route, stage).observe(value, found)


class _EngineCollector(Collector):
    def __init__(self, status: Callable[[], EngineStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield requests by state, restarts of workers, what waits for the device and for refinement, and cdc_ready."""
        status = self._status()
        jobs = GaugeMetricFamily("cdc_engine_requests", "Requests in the engine", labels=("state",))
        jobs.add_metric(("waiting",), status.waiting)
        jobs.add_metric(("running",), status.running)
        yield jobs
        yield CounterMetricFamily("cdc_worker_restarts", "Times a worker was replaced", value=status.restarts)
        yield GaugeMetricFamily(
            "cdc_backlog_device_seconds", "Estimated device time of accepted work", value=status.backlog_seconds
        )
        yield GaugeMetricFamily(
            "cdc_backlog_refinement_seconds",
            "Estimated time of accepted encodes with effort, for which no other work waits",
            value=status.refinement_seconds,
        )
        yield GaugeMetricFamily("cdc_ready", "1 while the engine takes work", value=float(status.ready))


class _FleetCollector(Collector):
    def __init__(self, fleet: Callable[[], tuple[bool, int]]) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[Metric]:
        """Yield cdc_queue_reachable and cdc_workers; without the queue nothing is known of workers: 0."""
        reachable, workers = self._fleet()
        yield GaugeMetricFamily("cdc_queue_reachable", "1 while Redis answers", value=float(reachable))
        yield GaugeMetricFamily("cdc_workers", "Workers that take work", value=workers)


class _JobCollector(Collector):
    def __init__(self, counts: Callable[[], Mapping[str, int]]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yield cdc_jobs{state}; states without jobs are reported as 0."""
        jobs = GaugeMetricFamily("cdc_jobs", "Jobs by state", labels=("state",))
        counts = self._counts()
        for state in WorkState:
            jobs.add_metric((state,), counts.get(state, 0))
        yield jobs
