"""The whole service as it runs in production: `cdc serve`, its worker, the shipped model, requests over TCP."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import numpy as np
import numpy.typing as npt
import psutil
import pytest
from PIL import Image

from benchmarks.hostile import attack, valid_files, worker_restarts
from benchmarks.hostile_files import MAX_PIXELS, damaged_files
from benchmarks.hostile_images import hostile_images, save
from benchmarks.server import running_server
from model.distortion import psnr
from tests.polling import wait_for

pytestmark = pytest.mark.slow

Pixels = npt.NDArray[np.uint8]
Server = tuple[httpx.Client, psutil.Process]
LONG = {"steps": "200", "gamma": "0.8"}  # a decode of `large` that takes much longer than a test waits


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of the measured speed, so that only the first server measures."""
    return str(tmp_path_factory.mktemp("profiles"))


@pytest.fixture(scope="module")
def server(profiles: str) -> Iterator[Server]:
    with running_server(max_pixels=str(MAX_PIXELS), cache_dir=profiles) as started:
        yield started


@pytest.fixture
def client(server: Server) -> httpx.Client:
    return server[0]


@pytest.fixture(scope="module")
def small(server: Server, crop: Pixels) -> bytes:
    """A file of 150x120 pixels at quality 90."""
    return encoded(server[0], crop, quality="90").content


@pytest.fixture(scope="module")
def large(server: Server, photograph: Pixels) -> bytes:
    """A file of 512x512 pixels."""
    return encoded(server[0], photograph[:512]).content


def encoded(client: httpx.Client, pixels: Pixels, **query: str) -> httpx.Response:
    return client.post("/encode", content=save(Image.fromarray(pixels)), params=query).raise_for_status()


def decoded(client: httpx.Client, file: bytes, **query: str) -> httpx.Response:
    return client.post("/decode", content=file, params=query).raise_for_status()


def picture(response: httpx.Response) -> Pixels:
    return np.asarray(Image.open(BytesIO(response.content)))


def jobs(client: httpx.Client) -> dict[str, int]:
    """Requests that the engine holds, by state."""
    lines = client.get("/metrics").text.splitlines()
    counts = (line.split() for line in lines if line.startswith("cdc_engine_requests{"))
    return {name.split('"')[1]: int(float(value)) for name, value in counts}


def wait_until_one_runs(client: httpx.Client) -> None:
    wait_for(lambda: jobs(client)["running"])


def wait_until_none_is_left(client: httpx.Client) -> None:
    wait_for(lambda: not sum(jobs(client).values()))


def worker_of(process: psutil.Process) -> psutil.Process:
    (worker,) = (p for p in process.children(recursive=True) if any("spawn_main" in part for part in p.cmdline()))
    return worker


def ended(processes: list[psutil.Process], seconds: float) -> bool:
    """Whether all of them end in time; one that nobody has collected the exit code of has ended as well."""
    return wait_for(
        lambda: not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE], seconds
    )


def test_quality_decides_size_and_likeness(client: httpx.Client, crop: Pixels) -> None:
    answers = {q: encoded(client, crop, quality=str(q)) for q in (10, 50, 90)}
    assert len(answers[10].content) < len(answers[50].content) < len(answers[90].content)
    assert [a.headers["x-cdc-quality"] for a in answers.values()] == ["10", "50", "90"]
    default = decoded(client, answers[90].content)
    assert (default.headers["x-cdc-steps"], default.headers["x-cdc-gamma"]) == ("1", "0")
    assert (default.headers["x-cdc-width"], default.headers["x-cdc-height"]) == ("150", "120")
    assert default.headers["content-type"] == "image/png"
    assert picture(default).shape == crop.shape
    assert psnr(crop, picture(default)) > 32
    assert psnr(crop, picture(decoded(client, answers[90].content, gamma="0.8", steps="17"))) > 20


def test_targets_are_met(client: httpx.Client, crop: Pixels) -> None:
    aimed = encoded(client, crop, target_bpp="1.0")
    assert 8 * len(aimed.content) / crop[..., 0].size == pytest.approx(1.0, rel=0.1)
    assert float(aimed.headers["x-cdc-bpp"]) == pytest.approx(8 * len(aimed.content) / crop[..., 0].size, rel=1e-3)
    bounded = encoded(client, crop, max_bytes="1500")
    assert 1200 < len(bounded.content) <= 1500
    unreachable = client.post("/encode", content=save(Image.fromarray(crop)), params={"max_bytes": 20})
    assert unreachable.json()["type"] == "/problems/target-unreachable"


def test_the_same_request_gets_the_same_answer(client: httpx.Client, small: bytes) -> None:
    noisy = {"steps": "2", "gamma": "0.8"}
    first, second = decoded(client, small, **noisy), decoded(client, small, **noisy)
    assert first.headers["etag"] == second.headers["etag"]
    assert first.content == second.content
    seed = first.headers["x-cdc-seed"]
    assert decoded(client, small, **noisy, seed=seed).content == first.content
    other = decoded(client, small, **noisy, seed=str(int(seed) ^ 1))
    assert other.headers["x-cdc-seed"] == str(int(seed) ^ 1)
    assert other.headers["etag"] != first.headers["etag"]


def test_transparency_comes_back_bit_for_bit(client: httpx.Client, crop: Pixels) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, crop.shape[:2], np.uint8)
    file = encoded(client, np.dstack([crop, alpha]))
    kept = picture(decoded(client, file.content, steps="1"))
    assert kept.shape == (*crop.shape[:2], 4)
    np.testing.assert_array_equal(kept[..., 3], alpha)
    dropped = encoded(client, np.dstack([crop, alpha]), alpha="drop")
    assert picture(decoded(client, dropped.content, steps="1")).shape == crop.shape


def test_inspect_agrees_with_encode(client: httpx.Client, crop: Pixels) -> None:
    made = encoded(client, crop, quality="70")
    told = client.post("/inspect", content=made.content).raise_for_status().json()
    assert (told["width"], told["height"]) == (150, 120)
    assert (told["quality"], told["bytes"]) == (70, len(made.content))
    assert told["codec_id"] == made.headers["x-cdc-codec-id"]
    assert told["models"] == [made.headers["x-cdc-model"]]
    assert [s["name"] for s in told["sections"]] == ["HYPER", "LATENT"]
    assert told["decode_cost"] == {"steps": 1, "pixel_steps": 150 * 120, "within_limits": True}


@pytest.mark.parametrize("deterministic", ["true", "false"])
def test_parallel_answers_equal_those_given_one_by_one(client: httpx.Client, small: bytes, deterministic: str) -> None:
    """Bit-equal where that was asked for, else within one level on at most 0.1 % of the values."""
    queries = [
        {"steps": str(1 + k % 3), "gamma": "0.8", "seed": str(k), "deterministic": deterministic} for k in range(8)
    ]
    alone = [decoded(client, small, **q) for q in queries]
    assert len({a.content for a in alone}) == 8
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda q: decoded(client, small, **q), queries))
    for one, other in zip(alone, together, strict=True):
        if deterministic == "true":
            assert other.content == one.content
        difference = np.abs(picture(one).astype(int) - picture(other))
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-3


def test_a_caller_who_leaves_frees_the_worker(client: httpx.Client, small: bytes, large: bytes) -> None:
    with pytest.raises(httpx.ReadTimeout):
        client.post("/decode", content=large, params=LONG, timeout=1.0)
    wait_until_none_is_left(client)
    start = time.monotonic()
    decoded(client, small, steps="1")
    assert time.monotonic() - start < 5


def test_effort_is_a_job_with_progress_and_an_end(client: httpx.Client, crop: Pixels, photograph: Pixels) -> None:
    plain, refined = (encoded(client, crop, quality="40", effort=effort).content for effort in ("1", "6"))
    assert 0.85 * len(plain) < len(refined) < len(plain)
    png = save(Image.fromarray(photograph))
    query = {"effort": "9", "quality": "40"}
    headers = {"Content-Type": "image/png", "Prefer": "respond-async"}
    job = client.post("/encode", params=query, content=png, headers=headers).json()
    with client.stream("GET", f"/jobs/{job['id']}/events", timeout=60) as events:
        for line in events.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["step"]:
                assert json.loads(line[5:])["steps"] == 11
                break
    assert client.delete(f"/jobs/{job['id']}").json()["state"] == "cancelled"
    wait_until_none_is_left(client)


def test_livez_answers_under_load(client: httpx.Client, large: bytes) -> None:
    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(decoded, client, large, steps="20", gamma="0.8") for _ in range(4)]
        wait_until_one_runs(client)
        slowest, asked = 0.0, 0
        while not all(load.done() for load in loads):
            start = time.monotonic()
            assert client.get("/livez").status_code == 200
            slowest, asked = max(slowest, time.monotonic() - start), asked + 1
            time.sleep(0.05)
        assert all(load.result().status_code == 200 for load in loads)
    assert asked >= 5
    assert slowest < 1


def test_hostile_input_fails_nobody(client: httpx.Client) -> None:
    restarts = worker_restarts(client)
    cases = damaged_files(valid_files(client), 30, seed=1) + hostile_images(25, seed=1)
    report = attack(client, cases)
    assert report.failures == []
    assert sum(map(sum, (answers.values() for answers in report.answers.values()))) == len(cases)
    assert worker_restarts(client) == restarts


def test_work_survives_the_death_of_the_worker(profiles: str, photograph: Pixels) -> None:
    with running_server(cache_dir=profiles) as (client, process), ThreadPoolExecutor(1) as pool:
        file = encoded(client, photograph[:256, :256]).content
        expected = decoded(client, file, steps="20", deterministic="true").content
        request = pool.submit(decoded, client, file, steps="20", deterministic="true")
        wait_until_one_runs(client)
        killed = worker_of(process)
        killed.send_signal(signal.SIGKILL)
        assert request.result().content == expected
        assert worker_restarts(client) == 1
        assert worker_of(process).pid != killed.pid


def test_sigterm_lets_running_work_end(profiles: str, photograph: Pixels) -> None:
    with running_server(cache_dir=profiles, grace_s="20") as (client, process), ThreadPoolExecutor(1) as pool:
        file = encoded(client, photograph[:256, :256]).content
        children = process.children(recursive=True)
        request = pool.submit(decoded, client, file, steps="20")
        wait_until_one_runs(client)
        process.send_signal(signal.SIGTERM)
        assert request.result().headers["x-cdc-steps"] == "20"
        # uvicorn ends its work first and then raises the signal it was sent, so that the parent sees it.
        assert process.wait(25) == -signal.SIGTERM
        assert ended(children, 5)


def test_sigterm_gives_up_what_exceeds_the_grace(profiles: str, photograph: Pixels) -> None:
    with running_server(cache_dir=profiles, grace_s="1") as (client, process), ThreadPoolExecutor(1) as pool:
        file = encoded(client, photograph[:512]).content
        request = pool.submit(client.post, "/decode", content=file, params=LONG)
        wait_until_one_runs(client)
        process.send_signal(signal.SIGTERM)
        late = request.result()
        assert (late.status_code, late.json()["type"]) == (503, "/problems/draining")
        assert process.wait(15) == -signal.SIGTERM
