"""Measuring coders on a data set: what the cache knows is taken from it, the rest is coded, decoded and measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context

from model.evaluation.coders.models import Coder, Parameters
from model.evaluation.metrics.catalogue import function_of, metric_of, stored_name
from model.evaluation.runs.cache import Cache, Row, key_of
from model.evaluation.runs.datasets import DataSet, Item, Prepared, prepare, sha256


@dataclass(frozen=True)
class Task:
    """One point of one coder on one image: what is known already, and which metrics are still to be computed."""

    parameters: Parameters
    key: str
    known: Row | None
    coded: bytes | None
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """A finished task: its row without the name of the data set, and the coded file."""

    key: str
    parameters: Parameters
    row: Row
    coded: bytes


def measure(
    data: DataSet,
    coders: Sequence[Coder],
    metrics: Sequence[str],
    cache: Cache,
    *,
    workers: int = 0,
) -> Iterator[Row]:
    """Yield a row for each image, coder and point, as they are finished; their order is that of work, not of names.

    Args:
        metrics: names, all of them computable here.
        workers: processes for the coders that are not heavy; 0 runs everything here, one after the other.

    Raises:
        InvalidParameter: an image cannot be read, a codec's program failed.
    """
    jobs: list[tuple[Item, Coder, list[Task]]] = []
    for item in data.items:
        digest = sha256(item.read_bytes())
        for coder in coders:
            tasks = []
            for parameters in coder.points:
                task = _task(item, digest, coder, parameters, metrics, cache)
                if task.metrics or task.known is None:
                    tasks.append(task)
                    continue
                assert task.known is not None
                yield _shown(task.known, data.name, item.name, parameters, metrics)
            if tasks:
                jobs.append((item, coder, tasks))

    def finish(item: Item, done: Sequence[Done]) -> Iterator[Row]:
        for one in done:
            cache.put_file(one.coded)
            cache.put(one.key, one.row)
            yield _shown(one.row, data.name, item.name, one.parameters, metrics)

    here = [job for job in jobs if job[1].heavy or not workers]
    away = [job for job in jobs if not (job[1].heavy or not workers)]
    if not away:
        for item, coder, tasks in here:
            yield from finish(item, work(item, coder, tasks))
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread)
    try:
        waiting: dict[Future[list[Done]], Item] = {pool.submit(work, *job): job[0] for job in away}
        for item, coder, tasks in here:
            yield from finish(item, work(item, coder, tasks))
            for future in [f for f in waiting if f.done()]:
                yield from finish(waiting.pop(future), future.result())
        for future in as_completed(waiting):
            yield from finish(waiting[future], future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def work(item: Item, coder: Coder, tasks: Sequence[Task]) -> list[Done]:
    """Code, decode and measure one image at some points of one coder."""
    prepared = _prepared(item)
    done = []
    for task in tasks:
        seconds = 0.0
        coded = task.coded
        if coded is None:
            encoded = coder.encode(prepared.pixels, task.parameters)
            coded, seconds = encoded.data, encoded.seconds
        decoded = coder.decode(coded, task.parameters)
        values = {
            stored_name(metric_of(name)): function_of(name)(prepared.pixels, decoded.pixels) for name in task.metrics
        }
        height, width = prepared.pixels.shape[:2]
        row = task.known or Row(
            data="",
            image=item.name,
            file_sha256=prepared.file_sha256,
            preparation=item.preparation,
            pixels_sha256=prepared.pixels_sha256,
            width=width,
            height=height,
            codec=coder.name,
            version=coder.version,
            parameters=dict(task.parameters),
            bytes=len(coded),
            bpp=8 * len(coded) / (height * width),
            encode_seconds=seconds,
            decode_seconds=decoded.seconds,
            coded_sha256=sha256(coded),
        )
        done.append(Done(task.key, task.parameters, row.with_metrics(values), coded))
    return done


def _task(item: Item, digest: str, coder: Coder, parameters: Parameters, metrics: Sequence[str], cache: Cache) -> Task:
    key = key_of(digest, item.preparation, coder.name, coder.version, dict(parameters))
    known = cache.get(key)
    have = {} if known is None else known.metrics
    left = tuple(name for name in metrics if stored_name(metric_of(name)) not in have)
    coded = cache.file(known.coded_sha256) if known is not None and left else None
    if known is not None and left and coded is None:
        known, left = None, tuple(metrics)  # the coded file is gone: measured anew as a whole
    return Task(parameters, key, known, coded, left)


def _shown(row: Row, data: str, image: str, parameters: Parameters, metrics: Sequence[str]) -> Row:
    """A row under the names of this run, parameters in the coder's order, metrics under their plain names."""
    chosen = [metric_of(name) for name in metrics]
    return replace(
        row,
        data=data,
        image=image,
        parameters=dict(parameters),
        metrics={m.name: row.metrics[stored_name(m)] for m in chosen},
    )


@lru_cache(maxsize=2)
def _prepared(item: Item) -> Prepared:
    """The same array for all coders of an image: our models recognise it and analyse it once."""
    return prepare(item)


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
