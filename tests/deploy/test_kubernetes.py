"""The manifests: confinement, probes and references; rendered and checked against schemas where the programs are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings, SettingsError, load_settings
from service.version import __version__
from tests.deploy.files import DEPLOY, load, load_all, names_in, rules
from tests.programs import need

KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = ("cpu", "gpu")
Object = dict[str, Any]


def base() -> list[Object]:
    listed = load(KUBERNETES / "base" / "kustomization.yaml")["resources"]
    return [document for name in listed for document in load_all(KUBERNETES / "base" / name)]


def of(kind: str, objects: list[Object]) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in objects if item["kind"] == kind}


def workloads(objects: list[Object]) -> dict[str, Object]:
    return of("Deployment", objects) | of("StatefulSet", objects)


def container(workload: Object) -> Object:
    (only,) = workload["spec"]["template"]["spec"]["containers"]
    found: Object = only
    return found


def test_there_are_the_parts() -> None:
    assert set(workloads(base())) == {"cdc-api", "cdc-worker", "redis"}
    assert set(of("Service", base())) == {"cdc-api", "cdc-worker-metrics", "redis"}
    assert set(of("PodDisruptionBudget", base())) == {"cdc-api", "cdc-worker"}
    assert not of("Secret", base())
    for folder in (KUBERNETES / "base", *(KUBERNETES / "overlays" / name for name in OVERLAYS)):
        listed = load(folder / "kustomization.yaml")
        named = {Path(n).name for n in listed["resources"]} | {p["path"] for p in listed.get("patches", [])}
        assert {p.name for p in folder.glob("*.yaml")} <= named | {"kustomization.yaml"}


@pytest.mark.parametrize("name", ["cdc-api", "cdc-worker", "redis"])
def test_pods_are_confined(name: str) -> None:
    workload = workloads(base())[name]
    pod = workload["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # else CDC_API_PORT and the like appear among the settings
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(workload)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container(workload))
    if name != "redis":
        assert pod["topologySpreadConstraints"]
        assert "/tmp" in {mount["mountPath"] for mount in container(workload)["volumeMounts"]}  # noqa: S108
        grace = float(of("ConfigMap", base())["cdc"]["data"]["CDC_GRACE_S"])
        assert pod["terminationGracePeriodSeconds"] > grace + 5


def test_selectors_meet_labels() -> None:
    labels = [w["spec"]["template"]["metadata"]["labels"] for w in workloads(base()).values()]
    for kind, path in (("Service", ("selector",)), ("PodDisruptionBudget", ("selector", "matchLabels"))):
        for name, item in of(kind, base()).items():
            wanted = item["spec"]
            for key in path:
                wanted = wanted[key]
            assert wanted in labels, name
    for workload in workloads(base()).values():
        assert workload["spec"]["selector"]["matchLabels"] == workload["spec"]["template"]["metadata"]["labels"]


def test_a_policy_closes_everything_and_others_open_what_is_needed() -> None:
    policies = of("NetworkPolicy", base())
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    chosen = {p["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name") for p in policies.values()}
    assert chosen == {None, "cdc-api", "cdc-worker", "redis"}
    (ingress,) = policies["redis"]["spec"]["ingress"]
    (who,) = ingress["from"]
    assert who["podSelector"]["matchExpressions"][0]["values"] == ["cdc-api", "cdc-worker"]


def test_redis_is_as_in_compose() -> None:
    command = load(DEPLOY / "compose.yaml")["services"]["redis"]["command"]
    redis = container(workloads(base())["redis"])
    kubernetes = redis["command"] + redis["args"]
    assert kubernetes[:-1] == command[:-1]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_valid(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch = load(KUBERNETES / "overlays" / overlay / "worker.yaml")
    values = dict(of("ConfigMap", base())["cdc"]["data"])
    values |= {e["name"]: e.get("value", "2") for e in container(patch)["env"]}
    values["CDC_REDIS_URL"] = load(KUBERNETES / "secret.example.yaml")["stringData"]["CDC_REDIS_URL"]
    assert {name.removeprefix("CDC_").lower() for name in values} <= set(Settings.model_fields)
    for name, value in values.items():
        assert isinstance(value, str)
        monkeypatch.setenv(name, value)
    assert load_settings().metrics_port == 9100


def test_the_example_secret_has_what_is_asked_for_and_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = load(KUBERNETES / "secret.example.yaml")["stringData"]
    asked = set()
    for workload in workloads(base()).values():
        for variable in container(workload).get("env", []):
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference["name"] == "cdc"
            asked.add(reference["key"])
    assert asked == set(secret)
    monkeypatch.setenv("CDC_LINK_SECRETS", secret["CDC_LINK_SECRETS"])
    with pytest.raises(SettingsError, match="CDC_LINK_SECRETS"):
        load_settings()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_follow_the_backlog(overlay: str) -> None:
    scaled = load(KUBERNETES / "overlays" / overlay / "scaled-object.yaml")["spec"]
    assert scaled["scaleTargetRef"]["name"] == "cdc-worker"
    assert 0 < scaled["minReplicaCount"] < scaled["maxReplicaCount"]
    (trigger,) = scaled["triggers"]
    assert names_in(trigger["metadata"]["query"]) == {"cdc_backlog_device_seconds"}
    assert f"max({'cdc_backlog_device_seconds'}" in str([r["expr"] for r in rules()])
    assert "replicas" not in workloads(base())["cdc-worker"]["spec"]
    seconds = float(trigger["metadata"]["threshold"])
    assert 0 < seconds < Settings().max_backlog_s  # more workers must come before requests are turned away


def rendered(overlay: str) -> str:
    argv = [need("kubectl"), "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr.lower()
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_puts_it_together(overlay: str) -> None:
    objects = list(yaml.safe_load_all(rendered(overlay)))
    assert {item["metadata"].get("namespace") for item in objects if item["kind"] != "Namespace"} == {"cdc"}
    assert not of("Secret", objects)
    worker = container(workloads(objects)["cdc-worker"])
    assert worker["image"] == f"cdc-worker-{'cpu' if overlay == 'cpu' else 'cuda'}:{__version__}"
    assert ("nvidia.com/gpu" in worker["resources"]["limits"]) == (overlay == "gpu")
    names = [variable["name"] for variable in worker["env"]]
    assert {"CDC_REDIS_URL", "CDC_DEVICES"} <= set(names)
    assert container(workloads(objects)["cdc-api"])["image"] == f"cdc-api:{__version__}"
    assert of("ScaledObject", objects)


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_keep_their_schemas(overlay: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed here")
    version = validator.latest_version()
    for item in yaml.safe_load_all(rendered(overlay)):
        if re.search(r"keda\.sh", item["apiVersion"]):
            continue  # no schema of the cluster's own
        validator.validate(item, version, strict=True)


@pytest.mark.slow
def test_schemas_find_faults() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed here")
    (item,) = [i for i in base() if i["kind"] == "Deployment" and i["metadata"]["name"] == "cdc-api"]
    item["spec"]["template"]["spec"]["container"] = []
    with pytest.raises(validator.ValidationError):
        validator.validate(item, validator.latest_version(), strict=True)
