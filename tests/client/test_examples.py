"""The examples of the documentation, against the shipped model."""

from __future__ import annotations

import asyncio
import doctest
import re
from pathlib import Path

import pytest

import cdc_client
from benchmarks.server import running_server
from cdc_client import async_client, client
from service import local
from service.local import local_async_client
from tests.service.conftest import image_file, photograph

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "client.md"


def test_the_guide_knows_every_public_name() -> None:
    words = set(re.findall(r"\w+", GUIDE.read_text()))
    assert set(cdc_client.__all__) - words == set()
    public = [getattr(cdc_client, name) for name in cdc_client.__all__]
    assert [thing for thing in public if isinstance(thing, type) and not thing.__doc__] == []


@pytest.mark.slow
def test_docstrings_and_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(threads="1", link_secrets="9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c") as (http, _):
        globs = {"url": str(http.base_url).rstrip("/"), "photo": image_file(photograph(128, 96)), "folder": tmp_path}
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        failed, tried = doctest.testfile(str(GUIDE), module_relative=False, globs=globs, optionflags=flags)
        assert failed == 0
        assert tried > 20
        for module in (client, async_client, local):
            failed, tried = doctest.testmod(module, extraglobs=globs)
            assert failed == 0
            assert tried >= 2
        example = re.search(r"```python\n(from cdc_client.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        assert example, "the README has lost its first example"
        monkeypatch.chdir(tmp_path)
        (tmp_path / "photo.jpg").write_bytes(image_file(photograph(128, 96), "JPEG"))
        exec(example[1].replace("http://127.0.0.1:8000", globs["url"]), {})  # noqa: S102 - our own text
        assert (tmp_path / "photo.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_local_service_for_asyncio() -> None:
    async def main() -> str:
        async with local_async_client(threads=1) as cdc:
            return (await cdc.models())[0].name

    assert asyncio.run(main()) == "cdc-lite"
