"""For operators: /livez, /readyz, /version, /metrics, and the way from / to the documentation."""

from __future__ import annotations

from fastapi import APIRouter, Request
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics
from starlette.responses import RedirectResponse, Response

from model.container.header import VERSION
from service.api import documentation as docs
from service.api.schemas import HealthAnswer, VersionAnswer
from service.api.state import StateOf
from service.errors import Draining, NotReady
from service.version import __version__

OPENMETRICS = "application/openmetrics-text"

router = APIRouter(tags=["operation"])
metrics_router = APIRouter(tags=["operation"])
index_router = APIRouter()


@router.get("/livez", summary="Is the process alive?")
async def check_live() -> HealthAnswer:
    """Answer as long as the event loop runs; the engine is not asked, so a busy worker never looks dead."""
    return HealthAnswer(status="live")


@router.get("/readyz", summary="Does the service take work?", responses=docs.problem_answers(Draining, NotReady))
async def check_ready(state: StateOf) -> HealthAnswer:
    """Answer 503 while nobody would do the work: models are loading, Redis or the last worker is gone, or the service
    is shutting down.
    """
    state.door.check_ready()
    return HealthAnswer(status="ready")


@router.get("/version", summary="Versions of the service and of the file format")
async def get_version() -> VersionAnswer:
    """Return the version of the service and of the `.cdc` files it writes."""
    return VersionAnswer(version=__version__, format_version=VERSION)


@index_router.get("/", include_in_schema=False)
async def index() -> Response:
    """Lead a browser to the documentation; relative, so that it works behind a path prefix."""
    return RedirectResponse("docs", 307)


@metrics_router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {
            "description": "Text format 0.0.4, or OpenMetrics 1.0, which has ids of traces as exemplars.",
            "content": {kind: {"schema": {"type": "string"}} for kind in ("text/plain", OPENMETRICS)},
        }
    },
)
def get_metrics(state: StateOf, request: Request) -> Response:
    """Return the metrics of this process; as OpenMetrics where the Accept header names that."""
    if OPENMETRICS in request.headers.get("accept", ""):
        text: bytes = openmetrics.generate_latest(state.metrics.registry)  # type: ignore[no-untyped-call]
        return Response(text, 200, {"Content-Type": openmetrics.CONTENT_TYPE_LATEST})
    return Response(generate_latest(state.metrics.registry), 200, {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
