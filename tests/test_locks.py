"""The lock files: pinned, with hashes, of no index, and complete: an installation resolves nothing."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
LOCKS = sorted(FOLDER.glob("*.lock"))
PINNED = re.compile(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,._-]+\])?==[^\s;]+( ; .+)?")
PLACE = re.compile(r"://|^\s*(-i|-f|--index-url|--extra-index-url|--find-links)\b| @ ")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
PYTHONS = ("3.11.0", "3.11.2", "3.12.0", "3.12.13", "3.13.0", "3.13.9")
SERVE = ("service", "model", "demo", "build")
EXTRAS = {
    "api": ("service",),
    "build": ("build",),
    "dev": (*SERVE, "train", "dev", "s3", "hub", "evaluate", "onnx", "otel"),
    "otel": ("otel",),
    "serve": SERVE,
}
Requires = Mapping[str, list[str]]


def entries_of(text: str) -> list[str]:
    """The requirements of a lock, without their hashes."""
    return [entry.split(" --hash=")[0].strip() for entry in text.replace("\\\n", " ").splitlines() if entry.strip()]


def roots_of(name: str) -> list[str]:
    """What a lock was made from."""
    if (alone := FOLDER / f"{name}.in").is_file():
        return alone.read_text().splitlines()
    project, client = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (ROOT, ROOT / "client")
    )
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS[name] for line in extras[extra])]
    assert lines.pop(0).startswith("cdc-client[cli]")  # installed from its folder, as the project itself is
    others = [line for line in lines if not line.startswith("cdc-codec[")]  # an extra of an extra, which is in EXTRAS
    return [*client["dependencies"], *client["optional-dependencies"]["cli"], *others]


def environment(python: str, machine: str) -> dict[str, str]:
    """A Linux machine, in the words of environment markers (PEP 508)."""
    return {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "6.1.0",
        "platform_system": "Linux",
        "platform_version": "1",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }


def wanted(lines: Iterable[str], values: dict[str, str], extras: Iterable[str] = ()) -> Iterator[Requirement]:
    """The requirements among `lines` that count in an environment, with these extras."""
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**values, "extra": extra}) for extra in ("", *extras)):
            yield requirement


def missing_from(entries: list[str], roots: Iterable[str], requires: Requires, values: dict[str, str]) -> list[str]:
    """What the locked packages, and `roots`, ask for in that environment and do not find among `entries`."""
    locked = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in wanted(entries, values)}
    faults: list[str] = []
    seen: set[tuple[str, frozenset[str]]] = set()

    def follow(name: str, extras: frozenset[str]) -> None:
        if (name, extras) in seen:
            return
        seen.add((name, extras))
        for requirement in wanted(requires[f"{name}=={locked[name]}"], values, extras):
            check(requirement, f"{name}=={locked[name]}")

    def check(requirement: Requirement, by: str) -> None:
        name = canonicalize_name(requirement.name)
        if name not in locked:
            faults.append(f"{by} wants {requirement}, which is not locked")
        elif not requirement.specifier.contains(locked[name], prereleases=True):
            faults.append(f"{by} wants {requirement}, locked is {locked[name]}")
        else:
            follow(name, frozenset(requirement.extras))

    for root in wanted(roots, values):
        check(root, "the project")
    for name in locked:
        follow(name, frozenset())
    return faults


def requires_of_all() -> Requires:
    """What every locked package requires, as `requirements/record.py` noted it."""
    found: Requires = json.loads((FOLDER / "requires.json").read_text())
    return found


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("path", LOCKS, ids=lambda p: p.stem)
def test_a_lock_has_all_that_its_packages_require(path: Path, python: str, machine: str) -> None:
    """Extras and markers included, so that an installer has nothing to look for."""
    found = missing_from(
        entries_of(path.read_text()), roots_of(path.stem), requires_of_all(), environment(python, machine)
    )
    assert found == []


def test_what_is_missing_is_found() -> None:
    values = environment("3.11.2", "x86_64")
    requires = {
        "a==1": ["b[x]>=2"],
        "b==2": ["c; extra == 'x'", "d; extra == 'y'", "e; python_version < '3.11'"],
        "c==1": [],
    }
    assert missing_from(["a==1", "b==2", "c==1"], ["a"], requires, values) == []
    assert missing_from(["a==1", "b==2"], ["a"], requires, values) == [
        'b==2 wants c; extra == "x", which is not locked'
    ]
    assert missing_from(["a==1", "b==2", "c==1"], ["a>=2"], requires, values) == ["the project wants a>=2, locked is 1"]
    assert missing_from(["a==1 ; python_version < '3.11'"], ["a"], requires, values)


def test_the_note_of_requirements_is_of_the_locked_versions() -> None:
    """Compared with what is installed, word for word, where it is."""
    noted = requires_of_all()
    locked = {str(Requirement(entry.split(" ;")[0])) for path in LOCKS for entry in entries_of(path.read_text())}
    assert set(noted) == locked
    compared = 0
    for pin, lines in noted.items():
        name, version = pin.split("==")
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if installed.version == version:
            assert sorted(map(_normal, installed.requires or [])) == sorted(map(_normal, lines)), pin
            compared += 1
    assert compared > 50


def _normal(line: str) -> str:
    requirement = Requirement(line)
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


def test_commands_install_without_resolving() -> None:
    """Every installation of a lock, in the Makefile and the images, takes exactly what it names."""
    files = [ROOT / "Makefile", *(ROOT / "docker").glob("*.Dockerfile")]
    install = re.search(r"^INSTALL := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert install
    lines = [
        line.replace("$(INSTALL)", install[1])
        for path in files
        for line in path.read_text().splitlines()
        if "install" in line.lower() and "--require-hashes" in line
    ]
    assert len(lines) >= 7
    assert [line for line in lines if "--no-deps" not in line] == []


def faults_of_lock(text: str) -> list[str]:
    """What is wrong with a lock file: an index or address, a package without an exact version or without hashes."""
    faults = []
    entries = [e for e in text.replace("\\\n", " ").splitlines() if e.strip() and not e.lstrip().startswith("#")]
    for entry in entries:
        requirement, *hashes = re.split(r"\s+(?=--hash=)", entry.strip())
        if not PINNED.fullmatch(requirement.strip()):
            faults.append(f"not a pinned package: {requirement}")
        if not hashes or not all(HASH.fullmatch(h.strip()) for h in hashes):
            faults.append(f"no sound hashes: {requirement}")
    faults += [f"names a place: {line}" for line in text.splitlines() if PLACE.search(line)]
    return faults


@pytest.mark.parametrize("path", LOCKS, ids=lambda p: p.name)
def test_locks_name_no_host_and_pin_everything_with_hashes(path: Path) -> None:
    text = path.read_text()
    assert faults_of_lock(text) == []
    assert text.count("==") > (10 if path.name == "build.lock" else 20)


def test_locks_agree_on_versions() -> None:
    """The images' locks are parts of the serving one, which is a part of that for development."""
    pins = {
        path.stem: {line.split(" ")[0] for line in path.read_text().splitlines() if re.match(r"[a-z0-9]", line)}
        for path in LOCKS
    }
    assert set(pins) == {"api", "build", "dev", "generator", "otel", "ray", "serve"}
    api, serve, dev = pins["api"], pins["serve"], pins["dev"]
    assert api | pins["build"] <= serve <= dev
    assert pins["otel"] <= dev
    beside = {
        name: {r.name: r for r in wanted(entries_of((FOLDER / name).read_text()), environment("3.11.2", "x86_64"))}
        for name in ("dev.lock", "ray.lock")
    }
    for package, locked in beside["ray.lock"].items():  # it is installed beside the one for development
        assert beside["dev.lock"].get(package, locked).specifier == locked.specifier
    assert not [name for name in api if name.startswith(("torch", "nvidia", "cuda", "constriction"))]


@pytest.mark.parametrize(
    "text",
    [
        "torch==2.0\n",
        "torch>=2.0 \\\n    --hash=sha256:" + "a" * 64 + "\n",
        "torch==2.0 \\\n    --hash=md5:" + "a" * 32 + "\n",
        "torch @ https://example.org/torch.whl \\\n    --hash=sha256:" + "a" * 64 + "\n",
        "--index-url example.org/simple\ntorch==2.0 \\\n    --hash=sha256:" + "a" * 64 + "\n",
        "torch==2.0 \\\n    --hash=sha256:" + "a" * 64 + "\n# from http://example.org\n",
    ],
)
def test_faults_of_locks_are_found(text: str) -> None:
    assert faults_of_lock("numpy==2.0 ; python_version < '3.13' \\\n    --hash=sha256:" + "b" * 64 + "\n") == []
    assert faults_of_lock(text)
