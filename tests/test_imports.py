"""Who may import whom: data flows one way, and torch stays out of everything but one file of the service."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACES = {"service": ROOT, "model": ROOT, "cdc_client": ROOT / "client"}  # package -> the folder it lies in
FILES = sorted(p for top, folder in PLACES.items() for p in (folder / top).rglob("*.py"))

# The longest prefix of a module decides what it may import of this project. Its own room is named where it is allowed.
ALLOWED: dict[str, tuple[str, ...]] = {
    "service.version": (),
    "service.errors": (),
    "service.logs": ("service.tracing",),
    "service.tracing": ("service.version",),
    "service.settings": (),
    "service.outside": ("service.outside", "service.errors", "service.settings"),
    "service.work": ("service.framing", "model.config", "model.container"),
    "service.framing": ("model.errors", "model.tiling"),
    "service.metrics": ("service.engine.port", "service.engine.messages", "service.tracing", "service.work"),
    "service.access": ("service.access", "service.jobs.connection", "service.errors"),
    "service.api": (
        "service.api",
        "service.access",
        "service.images.baselines",
        "service.images.preview",
        "service.jobs",
        "service.engine.port",
        "service.engine.pool",
        "service.extras",
        "service.framing",
        "service.playground",
        "service.settings",
        "service.errors",
        "service.logs",
        "service.metrics",
        "service.outside",
        "service.version",
        "service.tracing",
        "service.work",
        "model.errors",
        "model.config",
        "model.container",
        "model.shipped",
    ),
    "service.images": (
        "service.images",
        "service.framing",
        "service.work",
        "service.errors",
        "model.errors",
        "model.container",
    ),
    "service.engine": (
        "service.engine",
        "service.errors",
        "service.settings",
        "service.logs",
        "service.machine",
        "service.metrics",
        "service.tracing",
        "service.work",
        "model.config",
        "model.errors",
        "model.container",
        "model.tiling",
    ),
    "service.engine.port": (
        "service.engine.scheduler",
        "service.work",
        "model.config",
        "model.container",
        "model.tiling",
    ),
    "service.engine.device": ("service.engine", "model"),
    "service.engine.tasks": ("service.engine", "service.images.preview", "service.work", "model"),
    "service.jobs": (
        "service.jobs",
        "service.images",
        "service.engine.port",
        "service.errors",
        "service.framing",
        "service.logs",
        "service.metrics",
        "service.settings",
        "service.tracing",
        "service.work",
        "model.config",
        "model.errors",
        "model.container",
        "model.tiling",
    ),
    "service.playground": (),
    "cdc_client": ("cdc_client",),
    "service.local": ("cdc_client", "service.api.app", "service.settings"),
    "service.cli": ("service", "model", "cdc_client.command"),
    "service.transcode": (
        "service.framing",
        "service.images",
        "service.errors",
        "service.extras",
        "model",
        "cdc_client",
    ),
    "service.extras": (),
    "service.bench": ("service.engine", "model.container"),
    "service.settings_page": ("service.settings",),
    "service.worker": ("service", "model.errors"),
    "service": (),
    "model": ("model.errors", "model.container", "model.config", "model.tiling", "model.types"),
    "model.errors": (),
    "model.shipped": (),
    "model.varint": ("model.errors",),
    "model.container": ("model.container", "model.errors", "model.varint"),
    "model.entropy": ("model.entropy", "model.errors", "model.varint"),
    "model.networks": ("model.networks", "model.entropy.passes", "model.errors", "model.config"),
    "model.diffusion": ("model.diffusion", "model.errors", "model.config"),
}
# These put the parts of the codec together, so anything in the library is open to them.
WHOLE_LIBRARY = (
    "model.codec",
    "model.encoder",
    "model.decoder",
    "model.loaded",
    "model.architecture",
    "model.weights.files",
    "model.weights.heads",
    "model.weights.decoder_export",
    "model.weights.decoder_graphs",
    "model.weights.published",
    "model.weights.hub",
    "model.weights.registry",
    "model.rate_control",
    "model.refinement",
    "model.training",
    "model.evaluation",
    "model.cli",
)
APART = (("model.training", "model.evaluation"),)  # neither imports the other: what both need lies below them

# Third-party packages that one place alone may know.
ONLY: dict[str, tuple[str, ...]] = {
    "torch": ("service.engine.device", "model"),
    "PIL": (
        "service.images",
        "model.evaluation",
        "model.sources",
        "model.training",
        "model.cli",
        "cdc_client.pillow",
        "cdc_client.decoder.images",
    ),
    "constriction": ("model.entropy.coder",),
    "fastapi": ("service.api",),
    "starlette": ("service.api",),
    "prometheus_client": ("service.api", "service.metrics", "service.worker"),
    "redis": ("service.jobs", "service.access"),
    "typer": ("service", "model", "cdc_client.command"),
    "rich": ("model.evaluation", "model.training", "cdc_client.command"),
    "streaq": ("service.jobs.queue",),
    "coredis": ("service.jobs.queue",),
    "fsspec": ("service.jobs.blobs", "service.outside.fetching", "service.outside.sinks"),
    "httpcore": ("service.outside.http",),
    "onnx": ("model.weights.decoder_graphs",),
    "onnxruntime": ("cdc_client.decoder.decoder",),
    "itsdangerous": ("service.access.links",),
}
NEVER_IN_CONTAINER = ("torch", "numpy")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT / "client" if path.is_relative_to(ROOT / "client") else ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == p or module.startswith(p + ".") for p in prefixes)


def imports_of(path: Path) -> set[str]:
    """Return the modules a file imports, also inside functions; `from a import b` counts as a.b if that is a module."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            children = {f"{module}.{alias.name}" for alias in node.names}
            modules = {c for c in children if is_module(c)}
            found |= modules
            if modules != children:
                found.add(module)
    return found


def is_module(name: str) -> bool:
    path = PLACES.get(name.split(".")[0], ROOT).joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def allowed_for(module: str) -> tuple[str, ...]:
    if module == "model.cli":
        return ("model", "cdc_client.command")
    if within(module, WHOLE_LIBRARY):
        return ("model",)
    return ALLOWED[max((p for p in ALLOWED if within(module, (p,))), key=len)]


def faults_of(module: str, imported: set[str]) -> list[str]:
    """Return a line for each import that the tables forbid."""
    faults = []
    for name in sorted(imported):
        top = name.split(".")[0]
        if top in PLACES and name not in ("service", "model") and not within(name, allowed_for(module)):
            faults.append(f"{module} must not import {name}")
        if top in ONLY and not within(module, ONLY[top]):
            faults.append(f"{module} must not import {name}")
        if any(
            within(module, (one,)) and within(name, (other,)) for pair in APART for one, other in (pair, pair[::-1])
        ):
            faults.append(f"{module} must not import {name}")
        if within(module, ("model.container",)) and top in NEVER_IN_CONTAINER:
            faults.append(f"{module} must not import {name}")
    return faults


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_table(path: Path) -> None:
    assert faults_of(module_of(path), imports_of(path)) == []


@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("service.api.routes", "torch"),
        ("service.api.routes", "model.codec"),
        ("service.api.routes", "service.engine.device"),
        ("service.work", "service.images.reading"),
        ("service.jobs.executor", "service.api.problems"),
        ("service.jobs.executor", "service.engine.pool"),
        ("service.jobs.executor", "PIL.Image"),
        ("service.images.reading", "service.jobs.executor"),
        ("service.jobs.memory", "PIL.Image"),
        ("service.engine.pool", "torch"),
        ("service.engine.pool", "service.api.app"),
        ("service.engine.pool", "fastapi"),
        ("service.errors", "service.logs"),
        ("model.codec", "service.errors"),
        ("model.entropy.tables", "model.networks.blocks"),
        ("model.entropy.tables", "constriction"),
        ("model.container.header", "numpy"),
        ("service.brand_new", "service.api"),
        ("service.api.app", "cdc_client"),
        ("model.codec", "cdc_client"),
        ("cdc_client.client", "service.local"),
        ("cdc_client.command.backend", "model.container"),
        ("cdc_client.client", "typer"),
    ],
)
def test_the_table_forbids(module: str, imported: str) -> None:
    assert faults_of(module, {imported})


@pytest.mark.parametrize(
    "module", ["service.api.app", "service.worker", "service.engine.pool", "service.jobs.executor", "model.container"]
)
def test_torch_stays_out_of_a_fresh_interpreter(module: str) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'compressai', 'constriction'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_the_client_needs_little(tmp_path: Path) -> None:
    """Importing the client costs at most a third of importing httpx and pydantic, and brings no framework along.

    That is 50 ms of CPU and less on machines of today; the ratio holds on slow ones too.
    """
    code = (
        "import sys, time; start = time.process_time(); import httpx, pydantic; pydantic.BaseModel; "
        "both = time.process_time() - start; start = time.process_time(); import cdc_client; "
        "own = time.process_time() - start; "
        "print(own / both, sorted({'torch', 'numpy', 'fastapi', 'PIL', 'redis', 'typer'} & set(sys.modules)))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
        for _ in range(5)
    ]
    ratios, found = zip(*(run.stdout.split(maxsplit=1) for run in runs), strict=True)
    assert {text.strip() for text in found} == {"[]"}
    assert min(map(float, ratios)) < 1 / 3, ratios
