"""Scheduling, profiles and admission: pure logic, no device."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model.container import Container, Header, Section, SectionType
from service.engine.admission import Admission, Estimate, estimate
from service.engine.port import REFINEMENT_WEIGHT, WEIGHT, DecodeRequest, EncodeRequest, Kind, ModelInfo
from service.engine.profile import MAX_ROWS, Profile, cached, measure
from service.engine.request import Key, Request, Status, Unit
from service.engine.scheduler import Scheduler
from service.errors import Busy

SMALL, LARGE = (64, 64), (1024, 1024)


def unit(job: int, shape: tuple[int, int] = SMALL, tile: int = 0, kind: Kind = "denoise", alone: bool = False) -> Unit:
    return Unit(job, tile, Key("m", kind, shape), alone)


class Driven:
    """A scheduler whose requests are numbers without a task."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.requests: dict[int, Request] = {}

    def wait(self, number: int, cost: float, area: float, now: float) -> None:
        request = self.requests[number] = Request(number, None, cost, area, now)  # type: ignore[arg-type]
        self.scheduler.add(request)

    def begin(self, now: float) -> list[int]:
        begun = self.scheduler.begin(now)
        assert {request.status for request in begun} <= {Status.PREPARING}
        return [request.number for request in begun]

    def add(self, number: int, cost: float) -> None:
        """Let one run at once."""
        self.wait(number, cost, 0.0, 0.0)
        assert self.begin(0.0) == [number]

    def offer(self, number: int, units: list[Unit]) -> None:
        self.scheduler.offer(number, units)
        assert self.requests[number].status is Status.RUNNING

    def remove(self, number: int) -> None:
        self.scheduler.remove(self.requests[number])

    def schedule(self) -> list[Unit]:
        return self.scheduler.schedule()

    def is_idle(self) -> bool:
        return self.scheduler.is_idle()


def scheduler(cap: int = 8) -> Driven:
    return Driven(Scheduler(lambda key: cap if key.shape == SMALL else 1, quantum=1 << 20))


def test_nothing_ready_gives_nothing() -> None:
    s = scheduler()
    assert s.is_idle()
    s.add(1, 10)
    assert s.schedule() == []


def test_equal_keys_share_a_tick_up_to_the_cap() -> None:
    s = scheduler(cap=3)
    for job in range(5):
        s.add(job, 4096)
        s.offer(job, [unit(job)])
    assert [u.request for u in s.schedule()] == [0, 1, 2]
    assert [u.request for u in s.schedule()] == [3, 4]
    assert s.is_idle()


def test_other_shapes_kinds_and_loners_do_not_share() -> None:
    s = scheduler()
    others = [unit(1, LARGE), unit(2, kind="condition"), unit(3, alone=True)]
    s.add(0, 1)
    s.offer(0, [unit(0)])
    for u in others:
        s.add(u.request, 1e9)
        s.offer(u.request, [u])
    assert [u.request for u in s.schedule()] == [0]
    assert sorted(s.schedule()[0].request for _ in range(3)) == [1, 2, 3]


def test_a_thumbnail_behind_a_panorama_runs_in_the_next_tick() -> None:
    s = scheduler()
    s.add(0, 65 * 9 * 2**20)
    s.offer(0, [unit(0, LARGE, tile) for tile in range(9)])
    assert s.schedule()[0].request == 0
    s.add(1, 1.5 * 4096)
    s.offer(1, [unit(1)])
    assert s.schedule()[0].request == 1


def test_a_short_request_is_finished_once_begun() -> None:
    s = scheduler()
    s.add(0, 65 * 9 * 2**20)
    s.offer(0, [unit(0, LARGE, tile) for tile in range(9)])
    s.schedule()
    s.add(1, 1.5 * 65536)
    for kind in ("condition", "denoise"):
        s.offer(1, [unit(1, (256, 256), kind=kind)])
        assert s.schedule()[0].request == 1
    s.remove(1)
    assert s.schedule()[0].request == 0


def test_cost_is_shared_fairly() -> None:
    """Two endless requests, one of tiles 4 times as large: both get the same cost, not the same number of ticks."""
    s = Driven(Scheduler(lambda _: 1, quantum=1 << 17))
    shapes = {0: (256, 256), 1: (128, 128)}
    served = {0: 0.0, 1: 0.0}
    for job, shape in shapes.items():
        s.add(job, 1e12)
        s.offer(job, [unit(job, shape)])
    for _ in range(500):
        (u,) = s.schedule()
        served[u.request] += u.key.cost
        s.offer(u.request, [unit(u.request, shapes[u.request])])
    assert abs(served[0] - served[1]) <= 2 * (1 << 17)  # whatever they have been given, they never part further


def test_newcomers_do_not_starve_an_old_request() -> None:
    s = Driven(Scheduler(lambda _: 1, quantum=1 << 17))
    s.add(0, 1e12)
    s.offer(0, [unit(0, LARGE)])
    old = 0
    for job in range(1, 1000):
        s.add(job, 4096)
        s.offer(job, [unit(job)])
        (u,) = s.schedule()
        if u.request == 0:
            old += 1
            s.offer(0, [unit(0, LARGE)])
        else:
            s.remove(u.request)
    assert old >= 2


STEP = 512 * 512  # cost of a step of one of the requests below


def bounded(enough: float = STEP, cost_per_second: float = 0.0) -> Driven:
    return Driven(Scheduler(lambda _: 1, STEP, enough, cost_per_second))


def test_no_more_run_than_pay() -> None:
    """Large ones three at a time, so that one is always prepared; small ones until a pass is full."""
    s = bounded()
    for job in range(10):
        s.wait(job, 17 * STEP, STEP, 0.0)
    assert s.begin(0.0) == [0, 1, 2]
    assert s.begin(0.0) == []
    s.remove(1)
    assert s.begin(0.0) == [3]
    small = bounded()
    for job in range(100):
        small.wait(job, 17 * 4096, 4096, 0.0)
    assert len(small.begin(0.0)) == 64


def test_the_shortest_is_begun_first_and_none_starves() -> None:
    s = bounded(cost_per_second=STEP)
    s.wait(0, 100 * STEP, STEP, 0.0)
    for job in range(1, 6):
        s.wait(job, (10 + job) * STEP, STEP, 0.0)
    assert s.begin(0.0) == [1, 2, 3]
    now = 0.0
    for job in range(6, 500):  # short ones keep coming, one a second, as fast as they are done
        now += 1.0
        s.wait(job, 11 * STEP, STEP, now)
        s.remove(next(iter(s.scheduler.running)))
        if 0 in s.begin(now):
            break
    assert 60 < now < 200


def test_far_less_to_do_is_begun_at_once() -> None:
    s = bounded()
    for job in range(3):
        s.wait(job, 65 * 9 * STEP, 9 * STEP, 0.0)
    assert len(s.begin(0.0)) == 3
    s.wait(3, 65 * 9 * STEP / 2, 9 * STEP, 1.0)
    s.wait(4, 1.5 * 4096, 4096, 1.0)
    assert s.begin(1.0) == [4]
    s.remove(3)
    s.remove(3)
    assert s.begin(1.0) == []


def test_removed_requests_are_gone() -> None:
    s = scheduler()
    s.add(1, 1)
    s.offer(1, [unit(1)])
    s.remove(1)
    s.remove(1)
    assert s.is_idle()
    assert s.schedule() == []


def test_rows_keep_the_tick_below_its_limit() -> None:
    profile = Profile({64 * 64: 0.005, 128 * 128: 0.014, 512 * 512: 0.12}, tick_seconds=0.1)
    key = Key("m", "denoise", SMALL)
    rows = profile.rows(key)
    assert profile.seconds_of(rows * key.cost) <= 0.1 < profile.seconds_of((rows + 1) * key.cost)
    assert profile.rows(Key("m", "denoise", LARGE)) == 1  # one row always may run
    assert Profile({1: 1e-9, 2: 2e-9}, 1).rows(key) == MAX_ROWS
    assert profile.rows(Key("m", "condition", SMALL)) < rows  # twice the work


def test_passes_of_several_rows_are_bounded_in_pixels() -> None:
    profile = Profile({1: 1e-9, 2: 2e-9}, 1, max_pixels=1 << 19)
    rows = [profile.rows(Key("m", "denoise", (side, side))) for side in (64, 128, 256, 512, 1024)]
    assert rows == [MAX_ROWS, 32, 8, 2, 1]


def test_running_out_of_memory_halves_the_cap() -> None:
    profile = Profile({1: 1e-9, 2: 2e-9}, 1)
    key = Key("m", "denoise", SMALL)
    profile.out_of_memory(key, 40)
    assert profile.rows(key) == 20
    profile.out_of_memory(key, 1)
    assert profile.rows(key) == 1


def test_measuring_stops_beyond_the_tick() -> None:
    asked: list[int] = []
    found = measure(lambda pixels: asked.append(pixels) or pixels * 1e-6, tick_seconds=0.1)
    assert list(found) == asked == [4096, 16384, 65536, 262144]
    assert len(measure(lambda pixels: 9.0, tick_seconds=0.1)) == 3  # a slow device measures some points all the same


def test_a_wrong_profile_corrects_itself() -> None:
    profile = Profile({4096: 0.005, 16384: 0.8}, tick_seconds=0.1)  # the second was measured on a busy machine
    key = Key("m", "denoise", (128, 128))
    assert profile.rows(key) == 1
    for _ in range(60):
        profile.observe(key.cost, 0.014)
    assert profile.seconds_of(key.cost) == pytest.approx(0.014, rel=0.05)
    assert profile.rows(key) > 4


def test_profiles_are_cached_and_damage_is_measured_again(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[int, float]:
        made.append(1)
        return {1: 0.5, 2: 1.0}

    for _ in range(2):
        assert cached(tmp_path / "new", "x", make) == {1: 0.5, 2: 1.0}
    assert len(made) == 1
    for rubbish in ("", "[]", '{"1": 0}', '{"a": 1, "b": 2}', json.dumps({"1": 1})):
        (tmp_path / "new" / "profile-x.json").write_text(rubbish)
        assert cached(tmp_path / "new", "x", make) == {1: 0.5, 2: 1.0}
    assert len(made) == 6
    (tmp_path / "file").write_text("")
    assert cached(tmp_path / "file", "x", make)  # no folder can be made there


CONDITION, ANALYSE = WEIGHT["condition"], WEIGHT["analyse"]
MODELS = (ModelInfo("m", "00" * 8, 17, 8193, 1, True),)


def test_estimates_follow_padded_pixels_and_steps() -> None:
    """200x100 pixels have a canvas of 256x128; an encode pads to multiples of 64."""
    sections = (Section(SectionType.HYPER, b""), Section(SectionType.LATENT, b""))
    data = Container(Header(b"\0" * 8, 200, 100, 0), sections)
    assert estimate(DecodeRequest(data, steps=4), MODELS).cost == pytest.approx((4 + CONDITION) * 256 * 128)
    assert estimate(DecodeRequest(data), MODELS).cost == pytest.approx((17 + CONDITION) * 256 * 128)
    assert estimate(EncodeRequest(np.zeros((10, 20, 3), np.uint8)), MODELS).cost == pytest.approx(ANALYSE * 64 * 64)


def test_a_thin_image_costs_what_its_tiles_do() -> None:
    """65535x1 pixels are 79 tiles of 1024x64 in a decode, and 89 with an encoder's margins."""
    sections = (Section(SectionType.HYPER, b""), Section(SectionType.LATENT, b""))
    data = Container(Header(b"\0" * 8, 65535, 1, 0), sections)
    assert estimate(DecodeRequest(data, steps=1), MODELS).cost == pytest.approx((1 + CONDITION) * 79 * 1024 * 64)
    assert estimate(EncodeRequest(np.zeros((1, 65535, 3), np.uint8)), MODELS).cost == pytest.approx(
        ANALYSE * 89 * 1024 * 64
    )


def test_admission_counts_requests_seconds_and_bytes() -> None:
    door = Admission(max_waiting=2, max_backlog_seconds=10, max_bytes=1000, seconds_per_cost=1.0)
    alone = door.admit(Estimate(1, 1, 10**9))  # a single request always may
    alone.give_back()
    alone.give_back()
    long = door.admit(Estimate(25, 1, 600))
    with pytest.raises(Busy) as refused:
        door.admit(Estimate(1, 1, 1))
    assert refused.value.retry_after == 15
    long.share_done = 0.8
    assert door.backlog_seconds == pytest.approx(5)
    with pytest.raises(Busy, match="memory") as refused:
        door.admit(Estimate(1, 1, 401))
    assert refused.value.retry_after == pytest.approx(5)
    door.admit(Estimate(1, 1, 400))
    door.max_bytes = 10_000
    door.admit(Estimate(1, 1, 1))
    with pytest.raises(Busy, match="3 requests are waiting"):
        door.admit(Estimate(1, 1, 1))


def test_a_refinement_keeps_only_other_refinements_out() -> None:
    door = Admission(max_waiting=9, max_backlog_seconds=10, max_bytes=1000, seconds_per_cost=1.0)
    long = door.admit(Estimate(1, 1, 1, refinement=1000))
    with pytest.raises(Busy, match="1000 s of refinement") as refused:
        door.admit(Estimate(1, 1, 1, refinement=5))
    assert refused.value.retry_after == 990
    door.admit(Estimate(1, 1, 1))
    long.share_done = 0.995
    door.admit(Estimate(1, 1, 1, refinement=5))


def test_effort_is_priced_by_gradients_and_rates() -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    models = (replace(MODELS[0], max_effort=9),)
    plain = estimate(EncodeRequest(pixels), models)
    refined = estimate(EncodeRequest(pixels, effort=9), models)
    sized = estimate(EncodeRequest(pixels, max_bytes=100, effort=9), models)
    assert plain.refinement == 0
    assert plain.cost == refined.cost == sized.cost
    assert refined.refinement == REFINEMENT_WEIGHT * 11 * 64 * 64
    assert sized.refinement == 2 * refined.refinement
    assert refined.bytes > plain.bytes


def test_a_permit_moves_with_its_request() -> None:
    one, other = (Admission(0, 0.0, 0, seconds_per_cost=1.0) for _ in range(2))
    permit = one.admit(Estimate(8, 1, 1))
    permit.share_done = 0.5
    permit.move(other)
    assert (one.backlog_seconds, other.backlog_seconds) == (0, 8)
    permit.give_back()
    assert not other.permits


def test_estimates_follow_the_model() -> None:
    paper = ModelInfo(
        "paper", "11" * 8, 200, 20000, 1, False, step_cost=10.0, decode_bytes=2600, encode_bytes=300, whole_canvas=True
    )
    models = (*MODELS, paper)
    sections = (Section(SectionType.HYPER, b""), Section(SectionType.LATENT, b""))
    data = Container(Header(b"\x11" * 8, 200, 100, 0), sections)
    found = estimate(DecodeRequest(data), models)
    assert found.cost == pytest.approx((200 + CONDITION) * 10 * 256 * 128)
    assert (found.area, found.bytes) == (10 * 256 * 128, 2600 * 256 * 128)
    pixels = np.zeros((10, 20, 3), np.uint8)
    found = estimate(EncodeRequest(pixels, "paper"), models)
    assert (found.cost, found.area) == (pytest.approx(ANALYSE * 10 * 64 * 64),) * 2
    assert found.bytes == 300 * 64 * 64
    assert estimate(EncodeRequest(pixels), models).cost == pytest.approx(ANALYSE * 64 * 64)


def test_models_bound_their_pictures() -> None:
    bounded = ModelInfo("m", "00" * 8, 17, 8193, 1, True, max_pixels=128 * 128)
    assert bounded.takes(128, 65)
    assert not bounded.takes(129, 65)
    assert MODELS[0].takes(65535, 65535)
