"""Health, version, metrics, request ids, logs, headers and the start and end of the application."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from model.errors import CorruptStream
from service import settings_page
from service.api.app import create_app
from service.engine.port import EngineStatus
from service.logs import JsonFormatter, configure_logging, request_id
from service.settings import Settings, SettingsError, load_settings
from tests.service.conftest import MakeClient, image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio

PNG = image_file(photograph())
CDC = make_file(32, 24)


async def test_livez_never_asks_the_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.state = EngineStatus(False, True, 0, 0, 0)
    before = engine.status_calls
    answer = await client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "live"})
    assert engine.status_calls == before


async def test_readyz_follows_the_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    assert (await client.get("/readyz")).json() == {"status": "ready"}
    engine.state = EngineStatus(False, False, 0, 0, 0)
    check(await client.get("/readyz"), 503, "not-ready")
    engine.state = EngineStatus(True, True, 0, 0, 0)
    check(await client.get("/readyz"), 503, "draining")


async def test_version(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {"version": "0.1.0", "format_version": 1}


async def test_without_the_page_the_root_leads_to_the_documentation(make_client: MakeClient) -> None:
    client = await make_client(playground=False)
    answer = await client.get("/")
    assert (answer.status_code, answer.headers["location"]) == (307, "docs")
    assert (await client.get(answer.headers["location"])).status_code == 200
    bare = await make_client(docs=False, playground=False)
    for path in ("/docs", "/openapi.json", "/"):
        check(await bare.get(path), 404, "not-found")


async def test_the_documentation_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert not re.search(r"https?:|\bon[a-z]+=|<style|\sstyle=", page.text)
    assert re.findall(r"<script[^>]*>(.*?)</script>", page.text, re.S) == ["", ""]
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    sources = {source for sources in policy.values() for source in sources.split()}
    assert sources == {"'none'", "'self'", "'unsafe-inline'", "blob:", "data:"}
    assert (policy["default-src"], policy["script-src"], policy["connect-src"]) == ("'none'", "'self'", "'self'")
    named = re.findall(r'(?:src|href)="(docs/[^"]+)"', page.text)
    assert named == ["docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/start.js"]
    for name in named:
        file = await client.get(f"/{name}")
        assert file.headers["content-type"] in ("text/css; charset=utf-8", "text/javascript; charset=utf-8")
        again = await client.get(f"/{name}", headers={"If-None-Match": file.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert "SwaggerUIBundle" in (await client.get("/docs/swagger-ui-bundle.js")).text
    assert 'url: "openapi.json"' in file.text
    check(await client.get("/docs/nothing.js"), 404, "not-found")


async def test_the_engine_lives_as_long_as_the_application(engine: FakeEngine) -> None:
    app = create_app(Settings(grace_s=12), engine)
    assert engine.starts == 0
    async with app.router.lifespan_context(app):
        assert (engine.starts, engine.stops) == (1, [])
    assert (engine.starts, engine.stops) == (1, [12])


async def scrape(client: httpx.AsyncClient) -> dict[str, float]:
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = (line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


async def test_metrics_count_requests_stages_and_pictures(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post("/encode", content=PNG)
    await client.post("/decode?steps=3", content=CDC)
    await client.post("/decode", content=b"x")
    engine.error = CorruptStream("symbols")
    await client.post("/decode", content=CDC)
    engine.state = EngineStatus(True, False, 3, 2, 1)
    found = await scrape(client)
    assert found['cdc_requests_total{route="/encode",status="200"}'] == 1
    assert found['cdc_requests_total{route="/decode",status="200"}'] == 1
    assert found['cdc_requests_total{route="/decode",status="415"}'] == 1
    assert found['cdc_requests_total{route="/decode",status="422"}'] == 1
    assert found['cdc_request_duration_seconds_count{route="/decode",stage="total"}'] == 3
    assert found['cdc_request_duration_seconds_count{route="/decode",stage="denoise"}'] == 1
    assert found['cdc_request_duration_seconds_sum{route="/decode",stage="denoise"}'] == pytest.approx(0.003)
    assert found['cdc_request_duration_seconds_bucket{le="120.0",route="/encode",stage="total"}'] == 1
    model = 'codec_id="00112233445566ff",model="lite"'
    assert found[f"cdc_bpp_count{{{model}}}"] == 1
    assert found[f"cdc_steps_sum{{{model}}}"] == 3
    for operation in ("encode", "decode"):
        labels = f'{{{model},operation="{operation}"}}'
        assert found[f"cdc_work_total{labels}"] == 1
        assert found[f"cdc_work_seconds_count{labels}"] == 1
        assert found[f"cdc_pixels_sum{labels}"] == 32 * 24
    assert found['cdc_entropy_failures_total{codec_id="00112233445566ff"}'] == 1
    assert found['cdc_engine_requests{state="waiting"}'] == 3
    assert found['cdc_engine_requests{state="running"}'] == 2
    assert found["cdc_worker_restarts_total"] == 1
    assert found["process_resident_memory_bytes"] > 0


async def test_unknown_paths_share_one_label_and_refused_bodies_keep_theirs(make_client: MakeClient) -> None:
    client = await make_client(max_body_bytes=1024)
    for path in ("/a", "/b", "/encode/../c"):
        await client.get(path)
    await client.post("/inspect", content=bytes(1025))
    await client.post("/inspect", content=one_by_one(1025))
    found = await scrape(client)
    routes = {name.split('route="')[1].split('"')[0] for name in found if "cdc_requests_total" in name}
    assert routes == {"other", "/inspect"}
    assert found['cdc_requests_total{route="other",status="404"}'] == 3
    assert found['cdc_requests_total{route="/inspect",status="413"}'] == 2


async def one_by_one(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x"


async def test_applications_do_not_share_metrics(make_client: MakeClient) -> None:
    first, second = await make_client(), await make_client()
    await first.post("/encode", content=PNG)
    assert 'cdc_requests_total{route="/encode",status="200"}' not in await scrape(second)


async def test_metrics_on_a_port_of_their_own(make_client: MakeClient) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = await make_client(metrics_port=port)
    await client.get("/livez")
    check(await client.get("/metrics"), 404, "not-found")
    async with httpx.AsyncClient() as outside:
        text = (await outside.get(f"http://127.0.0.1:{port}/metrics")).text
    assert 'cdc_requests_total{route="/livez",status="200"} 1.0' in text


@pytest.mark.parametrize("given", ["abc-1.2_3", "A" * 64])
async def test_a_good_request_id_comes_back(client: httpx.AsyncClient, given: str) -> None:
    for path in ("/livez", "/nothing"):
        assert (await client.get(path, headers={"X-Request-Id": given})).headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "A" * 65, 'x"y', "caf\u00e9", "a\tb"])
async def test_a_bad_request_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    headers = [(b"X-Request-Id", given.encode("latin-1"))]
    made = {(await client.get("/livez", headers=headers)).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    assert all(len(i) == 32 and set(i) <= set("0123456789abcdef") for i in made)


async def test_security_headers_are_on_every_answer(client: httpx.AsyncClient) -> None:
    for answer in (await client.get("/livez"), await client.get("/nothing"), await client.post("/encode", content=b"")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"


async def test_pages_of_other_origins_only_when_allowed(make_client: MakeClient) -> None:
    origin = {"Origin": "https://page.test"}
    closed = await make_client()
    assert "access-control-allow-origin" not in (await closed.get("/livez", headers=origin)).headers
    opened = await make_client(cors_origins="https://page.test, https://two.test", max_body_bytes=1024)
    refused = await opened.post("/encode", content=bytes(2000), headers=origin)
    check(refused, 413, "body-too-large")
    assert refused.headers["access-control-allow-origin"] == "https://page.test"
    stranger = await opened.get("/livez", headers={"Origin": "https://evil.test"})
    assert "access-control-allow-origin" not in stranger.headers


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("info", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


async def test_one_access_line_per_request_without_query_or_keys(
    client: httpx.AsyncClient, log_lines: io.StringIO
) -> None:
    headers = {"X-Request-Id": "id-1", "Authorization": "Bearer hidden", "Cookie": "hidden"}
    await client.post("/encode?quality=77", content=PNG, headers=headers)
    await client.get("/livez")
    lines = [json.loads(line) for line in log_lines.getvalue().splitlines() if '"service.access"' in line]
    assert len(lines) == 1  # health checks are not worth a line
    line = lines[0]
    assert line.pop("seconds") >= 0
    assert line.pop("bytes_out") > 50
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "service.access",
        "message": "request",
        "request_id": "id-1",
        "method": "POST",
        "route": "/encode",
        "status": 200,
        "bytes_in": len(PNG),
        "client": "127.0.0.1",
    }
    assert "hidden" not in log_lines.getvalue()
    assert "77" not in line.values()


async def test_an_unforeseen_error_is_logged_with_the_request_id(
    client: httpx.AsyncClient, engine: FakeEngine, log_lines: io.StringIO
) -> None:
    engine.error = RuntimeError("the cause")
    await client.post("/encode", content=PNG, headers={"X-Request-Id": "id-2"})
    [line] = [json.loads(text) for text in log_lines.getvalue().splitlines() if "a job failed" in text]
    assert line["request_id"] == "id-2"
    assert "RuntimeError: the cause" in line["exception"]


def test_a_log_line_is_one_line_of_json() -> None:
    record = logging.LogRecord("n", logging.WARNING, "p", 1, "a\nb %s", ("c",), None)
    assert request_id.get() is None
    text = JsonFormatter().format(record)
    assert "\n" not in text
    assert json.loads(text)["message"] == "a\nb c"
    assert "request_id" not in json.loads(text)


def test_a_terminal_gets_text(log_lines: io.StringIO) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    configure_logging("info", stream)
    logging.getLogger("service.api").info("ready to serve", extra={"url": "http://127.0.0.1:8000/"})
    try:
        raise ValueError("the cause")
    except ValueError:
        logging.getLogger("service.api").exception("unhandled error")
    first, second, *rest = stream.getvalue().splitlines()
    assert first[8:] == "  ready to serve  url=http://127.0.0.1:8000/"
    assert second[8:] == "  error: unhandled error"
    assert rest[-1] == "ValueError: the cause"
    assert log_lines.getvalue() == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CDC_PORT", "70000"),
        ("CDC_MAX_BODY_BYTES", "12"),
        ("CDC_MAX_STEPS", "many"),
        ("CDC_PRECISION", "half"),
        ("CDC_LOG_LEVEL", "loud"),
        ("CDC_GRACE_S", "-1"),
        ("CDC_MODELS_DIR", "/nowhere/at/all"),
    ],
)
def test_a_bad_setting_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: ") as caught:
        load_settings()
    assert value not in str(caught.value) or value == "12"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CDC_MAX_PIXELS", "1234")
    monkeypatch.setenv("CDC_CORS_ORIGINS", "https://a.test,https://b.test")
    monkeypatch.setenv("CDC_MODELS_DIR", str(tmp_path))
    settings = load_settings(port=9000)
    assert (settings.max_pixels, settings.port, settings.models_dir) == (1234, 9000, tmp_path)
    assert settings.cors_origins == ("https://a.test", "https://b.test")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("CDC_MAX_PIXEL", "; did you mean CDC_MAX_PIXELS?"),
        ("CDC_MODEL_DIR", "; did you mean CDC_MODELS_DIR?"),
        ("CDC_REDISURL", "; did you mean CDC_REDIS_URL?"),
        ("CDC_ZZZ", ""),
        ("CDC_", ""),
        ("cdc_prot", "; did you mean CDC_PORT?"),
    ],
)
def test_a_variable_that_names_no_setting_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "hidden")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"{name}: there is no such setting{meant}"


def test_variables_of_other_tools_are_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that code, documents and deployments of this project name, and those that Kubernetes makes of Services."""
    root = Path(__file__).parents[2]
    texts = [root / "README.md", root / ".ci/run", root / "Makefile"]
    texts += [p for f in ("deploy", "docs", "docker", "examples") for p in (root / f).rglob("*") if p.is_file()]
    named = {name for path in texts for name in re.findall(r"\bCDC_[A-Z_]*[A-Z]\b", path.read_text(errors="ignore"))}
    code = [p for f in ("benchmarks", "model", "service", "tests") for p in (root / f).rglob("*.py")]
    read = {name for path in code for name in re.findall(r'environ[^\n]{0,6}"(CDC_[A-Z_]+)"', path.read_text())}
    links = {"CDC_API_SERVICE_HOST", "CDC_API_PORT", "CDC_API_PORT_8000_TCP_ADDR", "CDC_API_SERVICE_PORT_HTTP"}
    settings = {f"CDC_{field.upper()}" for field in Settings.model_fields}
    assert {"CDC_SHARED", "CDC_DATA", "CDC_URL"} <= named | read
    for name in (named | read | links) - settings:
        monkeypatch.setenv(name, "x")
    load_settings()


def test_the_page_of_settings_is_up_to_date(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    assert settings_page.main(["--check", str(root / "docs/settings.md")]) == 0
    assert settings_page.main(["--check", str(tmp_path / "none.md")]) == 1
    assert "out of date" in capsys.readouterr().err
    settings_page.main([str(tmp_path / "none.md")])
    assert "| `CDC_PORT` | `8000` | TCP port to listen on. (≥ 1, ≤ 65535) |" in (tmp_path / "none.md").read_text()


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
