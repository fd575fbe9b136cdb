"""Fetching published checkpoints from a model hub: by name, resumable, and checked against the hub's own SHA-256.

The hub is the one that HF_ENDPOINT names. An interrupted download is kept beside its destination under its SHA-256, and
continued with a range request: by huggingface_hub (extra `hub`) within a call, and by the next call as well.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import WeightsError
from model.weights.published import sha256_of


@dataclass(frozen=True)
class Repository:
    """A repository of the hub and the revision to take: a branch, a tag or a commit."""

    id: str
    revision: str = "main"


CACHE = Path("~/.cache/cdc/checkpoints").expanduser()
REPOSITORIES = {"paper": Repository("rhyang/CDC_params")}


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: its path there, its size in bytes and the SHA-256 the hub states, if it does."""

    name: str
    size: int
    sha256: str | None
    commit: str


@dataclass(frozen=True)
class Fetched:
    """A downloaded file whose SHA-256 is what the hub states. `origin` names repository, commit and file."""

    path: Path
    sha256: str
    origin: str


def list_files(repository: str = "paper") -> list[HubFile]:
    """Return the files of a repository that could be checkpoints.

    Raises:
        WeightsError: no such repository, no hub within reach, or huggingface_hub is not installed.
    """
    place = _repository(repository)
    hub = _client()
    try:
        api = hub.HfApi(endpoint=_endpoint())
        info = api.model_info(place.id, revision=place.revision, files_metadata=True)
    except Exception as error:  # the client's errors come from three libraries
        raise WeightsError(_unreachable(place, error)) from error
    files = []
    for sibling in info.siblings or []:
        lfs = getattr(sibling, "lfs", None)
        digest = lfs.get("sha256") if isinstance(lfs, dict) else getattr(lfs, "sha256", None)
        if not sibling.rfilename.startswith(".") and not sibling.rfilename.endswith(".md"):
            files.append(HubFile(sibling.rfilename, int(sibling.size or 0), digest, str(info.sha)))
    return files


def fetch(repository: str, name: str, folder: Path | None = None) -> Fetched:
    """Download a file of a repository into `folder` (`CACHE` if None), continuing an interrupted download.

    Raises:
        WeightsError: as `list_files`; no such file; or its bytes are not those the hub states.
    """
    place, files = _repository(repository), list_files(repository)
    wanted = next((f for f in files if f.name == name), None)
    if wanted is None:
        held = ", ".join(f.name for f in files) or "nothing"
        raise WeightsError(f"{place.id} holds no {name!r}; it holds: {held}")
    if wanted.sha256 is None:
        raise WeightsError(f"{place.id}: the hub states no SHA-256 of {name}, so it cannot be checked")
    folder = CACHE if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Path(name).name
    if not path.exists() or sha256_of(path) != wanted.sha256:
        part = folder / f"{wanted.sha256}.part"
        _download(place, wanted, part)
        found = sha256_of(part)
        if found != wanted.sha256:
            part.unlink()
            raise WeightsError(f"{name}: SHA-256 {found}, the hub states {wanted.sha256}; the download was removed")
        part.replace(path)
    return Fetched(path, wanted.sha256, f"{place.id}@{wanted.commit}/{name}")


def _download(place: Repository, wanted: HubFile, part: Path) -> None:
    """Append to `part` what it lacks of a file."""
    hub = _client()
    from huggingface_hub.file_download import http_get

    held = part.stat().st_size if part.exists() else 0
    if held == wanted.size:
        return
    url = hub.hf_hub_url(place.id, wanted.name, revision=wanted.commit, endpoint=_endpoint())
    try:
        with part.open("ab") as file:
            http_get(url, file, resume_size=held, expected_size=wanted.size)
    except Exception as error:
        raise WeightsError(_unreachable(place, error)) from error


def _repository(name: str) -> Repository:
    if name not in REPOSITORIES:
        raise WeightsError(f"no repository {name!r} in the table; known: {', '.join(REPOSITORIES)}")
    return REPOSITORIES[name]


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise WeightsError("fetching needs huggingface_hub: pip install 'cdc-codec[hub]'") from error
    return huggingface_hub


def _unreachable(place: Repository, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return (
        f"{place.id} cannot be fetched from {_endpoint() or 'the hub'} ({type(error).__name__}: {reason}). Without a "
        "connection, bring the file by other means and use `cdc weights import FILE`; an interrupted download continues"
    )
