"""New weights on a share of the traffic."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from service.jobs.canary import Canary, canary_of
from service.settings import Settings, SettingsError, load_settings
from tests.service.conftest import MakeClient
from tests.service.fake_engine import LITE, OTHER, FakeEngine, make_file

NEW = replace(LITE, name="new", default=False, version=9)
DIGESTS = [hashlib.sha256(bytes([k % 256, k // 256])).hexdigest() for k in range(2000)]


@pytest.mark.parametrize("percent", [0, 5, 50, 100])
def test_the_share(percent: int) -> None:
    canary = Canary("new", percent)
    chosen = [canary.choose((LITE, NEW), LITE, digest) for digest in DIGESTS]
    assert chosen.count("new") == pytest.approx(2000 * percent / 100, abs=60)
    assert set(chosen) <= {"new", LITE.name}
    assert chosen == [canary.choose((LITE, NEW), LITE, digest) for digest in DIGESTS]


def test_a_newer_version_does_not_take_the_rest() -> None:
    assert {Canary("new", 0).choose((LITE, NEW), NEW, digest) for digest in DIGESTS} == {LITE.name}


def test_where_it_does_not_fit_nothing_changes() -> None:
    assert {Canary("new", 100).choose((OTHER,), OTHER, digest) for digest in DIGESTS} == {OTHER.name}
    assert Canary("new", 50).choose((NEW,), NEW, DIGESTS[0]) == "new"


def test_settings() -> None:
    assert canary_of(Settings()) is None
    assert canary_of(Settings(canary="cdc-lite-4:5")) == Canary("cdc-lite-4", 5)
    for wrong in ("new", "new:101", "new:-1", ":5"):
        with pytest.raises(SettingsError, match="CDC_CANARY"):
            load_settings(canary=wrong)


@pytest.mark.anyio
async def test_it_reaches_the_engine(
    make_client: MakeClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "models", lambda: (LITE, OTHER, NEW))
    client = await make_client(canary="new:100")
    for query in ("", "?model=lite"):
        assert (await client.post(f"/decode{query}", content=make_file(8, 8))).status_code == 200
    assert [getattr(request, "model", None) for request in engine.requests] == ["new", "lite"]
