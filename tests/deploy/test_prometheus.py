"""Rules, alerts and the dashboard: every metric they name is one that the service has."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from service.api.app import create_app
from service.engine.messages import Ticked
from service.metrics import Metrics
from service.settings import Settings
from tests.deploy.files import DEPLOY, load, names_in, rules, selectors
from tests.programs import need
from tests.service.conftest import MakeClient, client_of, image_file, photograph
from tests.service.fake_engine import make_file

PROMETHEUS = DEPLOY / "prometheus"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "cdc.json"
TARGET_LABELS = {"job", "instance"}
Live = dict[str, set[str]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def expressions() -> list[str]:
    return [rule["expr"] for rule in rules()] + [t["expr"] for panel in panels() for t in panel["targets"]]


def recorded() -> set[str]:
    return {rule["record"] for rule in rules() if "record" in rule}


def read(page: str) -> Live:
    """The names of a page's samples, with their labels; a metric without samples yet counts by its name."""
    found: Live = {}
    for family in text_string_to_metric_families(page):
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}.get(family.type, ("",))
        for suffix in suffixes:
            found.setdefault(family.name + suffix, set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


async def live(make: MakeClient) -> Live:
    """What the API with its own engine, the API before a queue, and a worker have, by scraping the first two."""
    client = await make()
    await client.post("/encode", content=image_file(photograph()))
    await client.post("/decode?steps=3", content=make_file(32, 24))
    pages = [(await client.get("/metrics")).text]
    async with client_of(create_app(Settings(redis_url="redis://127.0.0.1:1/0"))) as queued:
        pages.append((await queued.get("/metrics")).text)
    worker = Metrics()
    worker.heartbeat().set_to_current_time()
    worker.observe_tick(Ticked("denoise", (64, 64), 2, 4, 0.1))
    pages.append(generate_latest(worker.registry).decode())
    found: Live = {}
    for page in pages:
        for name, labels in read(page).items():
            found.setdefault(name, set()).update(labels)
    return found


@pytest.mark.anyio
async def test_every_metric_that_is_named_exists_with_its_labels(make_client: MakeClient) -> None:
    found = await live(make_client)
    known = set(found) | recorded()
    for expression in expressions():
        assert names_in(expression) <= known, expression
        for name, labels in selectors(expression):
            if name in found:
                assert labels <= found[name] | TARGET_LABELS, expression
    for name in ("cdc_no_such_thing", "cdc:no_such_rule"):
        assert names_in(f'rate({name}{{a="cdc_x"}}[5m])') == {name} > known & {name}


def test_metrics_of_the_process_are_those_of_the_client_library() -> None:
    found = read(generate_latest(Metrics().registry).decode())
    used = {name for e in expressions() for name in re.findall(r"\bprocess_\w+", e)}
    assert used
    assert used <= set(found)


def test_what_is_asked_for_has_an_alert() -> None:
    alerts = {rule["alert"]: rule for rule in rules() if "alert" in rule}
    assert set(alerts) >= {
        "CdcApiDown",
        "CdcBacklog",
        "CdcEntropyFailures",
        "CdcErrorRate",
        "CdcJobsFailing",
        "CdcLatencyP99",
        "CdcNoWorker",
        "CdcQueueUnavailable",
        "CdcWorkerRestarts",
    }
    for rule in alerts.values():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_jobs_in_rules_are_those_that_are_scraped() -> None:
    scraped = {job["job_name"] for job in load(PROMETHEUS / "prometheus.yml")["scrape_configs"]}
    assert scraped == {"cdc-api", "cdc-worker"}
    assert scraped == {job["job_name"] for job in load(PROMETHEUS / "kubernetes.yml")["scrape_configs"]}
    assert {job for e in expressions() for job in re.findall(r'job="([^"]*)"', e)} <= scraped


def test_the_dashboard_is_whole() -> None:
    titles = " ".join(panel["title"].lower() for panel in panels())
    for word in (
        "requests",
        "errors",
        "latency",
        "stage",
        "bits per pixel",
        "backlog",
        "rows",
        "fill",
        "step time",
        "jobs",
    ):
        assert word in titles
    sources = load(DEPLOY / "grafana" / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    uids = {source["uid"] for source in sources}
    places = [tuple(panel["gridPos"].values()) for panel in panels()]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        for target in [panel, *panel["targets"]]:
            assert target["datasource"]["uid"] in uids


def test_the_dashboard_is_where_grafana_looks() -> None:
    grafana = load(DEPLOY / "compose.yaml")["services"]["grafana"]
    (provider,) = load(DEPLOY / "grafana" / "provisioning" / "dashboards" / "cdc.yml")["providers"]
    mounts = dict(mount.split(":")[:2] for mount in grafana["volumes"])
    folder = next(source for source, target in mounts.items() if target == provider["options"]["path"])
    assert (DEPLOY / folder / "cdc.json").resolve() == DASHBOARD.resolve()
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].endswith("/dashboards/cdc.json")


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(
        [need("promtool"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_prometheus_takes_configuration_and_rules() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    # Debian's promtool is built without Kubernetes; kubernetes.yml is only compared above.
    promtool("check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml")))


@pytest.mark.slow
def test_prometheus_can_parse_the_dashboard(tmp_path: Path) -> None:
    queries = [t["expr"].replace("$__rate_interval", "1m") for panel in panels() for t in panel["targets"]]
    assert not [query for query in queries if "$" in query]
    made = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "panels.yml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": made}]}))
    promtool("check", "rules", tmp_path / "panels.yml")


@pytest.mark.slow
def test_alerts_fire_when_they_should_and_not_before() -> None:
    promtool("test", "rules", Path(__file__).with_name("alerts.yml"))
