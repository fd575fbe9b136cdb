"""deploy/compose.yaml: what is published, what may be written, what stops the start."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings, SettingsError, load_settings
from service.version import __version__
from tests.deploy.files import DEPLOY, ROOT, load, values_of
from tests.programs import need

COMPOSE = DEPLOY / "compose.yaml"
EXAMPLE = DEPLOY / ".env.example"
OURS = ("api", "worker", "worker-gpu")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = load(COMPOSE)["services"]
    return found


def example() -> dict[str, str]:
    lines = [line for line in EXAMPLE.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_every_service_is_confined(services: dict[str, Any]) -> None:
    assert set(services) == {"redis", "api", "worker", "worker-gpu", "prometheus", "grafana"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        assert service["healthcheck"]["test"], name
        assert any(mount.startswith("/tmp:") for mount in service["tmpfs"]), name  # noqa: S108
        assert "privileged" not in service
        assert name in OURS or re.search(r":v?\d+\.\d+", service["image"]), f"{name}: a tag with a version"


def test_traces_are_an_addition(services: dict[str, Any]) -> None:
    """Nothing but an exporter in our processes, and Jaeger, as confined as the others."""
    more: dict[str, Any] = load(DEPLOY / "traces.yaml")["services"]
    jaeger = more.pop("jaeger")
    assert set(more) == set(OURS)
    for name, service in more.items():
        assert set(service) == {"build", "environment"}
        assert set(service["build"]["args"]) <= {
            arg.split("=")[0] for arg in values_of(dockerfile(services, name), "ARG")
        }
        assert all(variable.startswith("OTEL_") for variable in service["environment"])
    assert {key: jaeger[key] for key in ("read_only", "cap_drop", "security_opt", "restart")} == {
        key: services["redis"].get(key) for key in ("read_only", "cap_drop", "security_opt", "restart")
    }
    assert jaeger["ports"] == ["127.0.0.1:16686:16686"]


def dockerfile(services: dict[str, Any], name: str) -> Path:
    build = services[name]["build"]
    return (DEPLOY / build["context"] / build["dockerfile"]).resolve()


def test_only_the_api_and_grafana_are_published(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"api": ["${CDC_PUBLISH:-127.0.0.1:8000}:8000"], "grafana": ["127.0.0.1:3000:3000"]}
    assert load(COMPOSE)["networks"]["back"] == {"internal": True}
    assert {name for name, service in services.items() if "front" in service["networks"]} == {"api", "grafana"}


def test_redis_keeps_what_it_was_given(services: dict[str, Any]) -> None:
    command = services["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "always")
    assert options["--maxmemory-policy"] == "noeviction"
    assert services["redis"]["image"].startswith("redis:7.2")
    assert "redis:/data" in services["redis"]["volumes"]
    assert options["--maxmemory"] == "2gb"
    assert services["redis"]["deploy"]["resources"]["limits"]["memory"] == "4g"


def test_workers_start_after_redis_and_gpus_by_their_profile(services: dict[str, Any]) -> None:
    for name in OURS:
        assert services[name]["depends_on"]["redis"] == {"condition": "service_healthy"}
    assert "profiles" not in services["worker"]
    assert services["worker-gpu"]["profiles"] == ["gpu"]
    (device,) = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_images_are_ours_and_of_this_version(services: dict[str, Any]) -> None:
    for name in OURS:
        build = services[name]["build"]
        assert (DEPLOY / build["context"] / build["dockerfile"]).resolve().is_file()
        assert services[name]["image"].endswith(f":{__version__}")


@pytest.mark.parametrize("name", OURS)
def test_settings_are_valid(services: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = example() | {"REDIS_PASSWORD": secrets.token_hex(32), "CDC_LINK_SECRETS": secrets.token_hex(32)}
    given = services[name]["environment"]
    assert {variable.removeprefix("CDC_").lower() for variable in given} <= set(Settings.model_fields)
    for variable, value in given.items():
        monkeypatch.setenv(variable, re.sub(r"\$\{(\w+)[^}]*\}", lambda found: values[found[1]], value))
    settings = load_settings()
    assert settings.redis_url is not None
    assert settings.metrics_port == 9100
    grace = float(services[name]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.grace_s + 5  # what the server adds


def test_placeholders_stop_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    values = example()
    required = set(re.findall(r"\$\{(\w+):\?", COMPOSE.read_text()))
    assert required == {"REDIS_PASSWORD", "GRAFANA_PASSWORD", "CDC_LINK_SECRETS"}
    assert {name for name in required if values[name]} == {"CDC_LINK_SECRETS"}  # the others are empty: compose stops
    monkeypatch.setenv("CDC_LINK_SECRETS", values["CDC_LINK_SECRETS"])
    with pytest.raises(SettingsError, match="CDC_LINK_SECRETS"):
        load_settings()


def test_the_example_names_all_that_can_be_chosen() -> None:
    used = set(re.findall(r"\$\{(\w+)", COMPOSE.read_text()))
    assert used == set(example()) - {"COMPOSE_PROJECT_NAME"}
    assert not (ROOT / ".gitignore").read_text().count(".env.example")
    assert "/deploy/.env\n" in (ROOT / ".gitignore").read_text()


def compose_command() -> list[str]:
    if shutil.which("docker") is not None:
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False, timeout=30)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    return [need("docker-compose")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "profile", [[], ["--profile", "gpu"], ["-f", str(DEPLOY / "traces.yaml")]], ids=["cpu", "gpu", "traces"]
)
def test_compose_takes_it(profile: list[str], tmp_path: Path) -> None:
    command = compose_command()
    values = example() | {
        name: secrets.token_hex(32) for name in ("REDIS_PASSWORD", "GRAFANA_PASSWORD", "CDC_LINK_SECRETS")
    }
    (tmp_path / "env").write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    base = [*command, "-f", str(COMPOSE)]

    def config(env_file: Path) -> subprocess.CompletedProcess[str]:
        argv = [*base, "--env-file", str(env_file), *profile, "config"]
        env = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, env=env)

    done = config(tmp_path / "env")
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()
    found = yaml.safe_load(done.stdout)["services"]
    assert values["REDIS_PASSWORD"] in str(found["api"]["environment"]["CDC_REDIS_URL"])
    refused = config(EXAMPLE)
    assert refused.returncode != 0
    assert "PASSWORD" in refused.stderr or "openssl" in refused.stderr
