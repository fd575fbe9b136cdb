"""FID on patches of 256x256 pixels: Heusel et al. 2017, on patches as the paper (and HiFiC) computes it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import InvalidParameter
from model.evaluation.coders.models import Coder
from model.evaluation.metrics.catalogue import checkpoints, metric_of, stored_name
from model.evaluation.runs.cache import Cache, Row, write_whole
from model.evaluation.runs.datasets import DataSet, prepare
from model.types import Pixels

SIDE = 256
BATCH = 16
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
Features = npt.NDArray[np.float64]  # [N, D]
Extractor = Callable[[npt.NDArray[np.uint8]], Features]  # patches [B, 256, 256, 3] -> [B, D]


def patches(pixels: Pixels) -> Iterator[Pixels]:
    """Patches side by side from the corner, then the same shifted by half a side each way; none of smaller images."""
    for shift in (0, SIDE // 2):
        for top in range(shift, pixels.shape[0] - SIDE + 1, SIDE):
            for left in range(shift, pixels.shape[1] - SIDE + 1, SIDE):
                yield pixels[top : top + SIDE, left : left + SIDE]


def frechet(a: Features, b: Features) -> float:
    """Frechet distance of the normal distributions fitted to two sets of features, [N, D] and [M, D].

    Raises:
        InvalidParameter: fewer than two features in a set.
    """
    if min(len(a), len(b)) < 2:
        raise InvalidParameter("FID needs two patches of 256x256 pixels at least")
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    first, second = np.atleast_2d(first), np.atleast_2d(second)
    # The trace of (A B)^1/2 is the sum of the roots of the eigenvalues of A B, which are real and not negative.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(first @ second).real, 0)).sum()
    distance = np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.trace(first) + np.trace(second) - 2 * roots
    return float(max(distance, 0.0))


def inception() -> Extractor:
    """torch-fidelity's Inception v3 from torch's hub cache; never fetched."""
    import torch
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = str(checkpoints() / WEIGHTS)
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=path)

    def extract(batch: npt.NDArray[np.uint8]) -> Features:
        with torch.inference_mode():
            (features,) = network(torch.from_numpy(batch).permute(0, 3, 1, 2))
        return np.asarray(features.numpy(), dtype=np.float64)

    return extract


def with_fid(
    rows: Sequence[Row],
    sets: Sequence[DataSet],
    coders: Sequence[Coder],
    cache: Cache,
    extractor: Extractor | None = None,
) -> list[Row]:
    """Add FID to rows: each row of a codec and setting gets the value of the whole data set.

    Raises:
        InvalidParameter: too few patches, or a coded file is gone from the cache.
    """
    by_name, groups = {c.name: c for c in coders}, _groups(rows)
    found: dict[tuple[str, str, str], float] = {}
    originals: dict[str, Features] = {}
    for data in sets:
        for key, members in groups.items():
            if key[0] != data.name:
                continue
            path = _path(cache, members)
            if path.is_file():
                found[key] = float(json.loads(path.read_text()))
                continue
            extractor = extractor or inception()
            if data.name not in originals:
                originals[data.name] = features_of((prepare(i).pixels for i in data.items), extractor)
            decoded = (_decoded(row, by_name[row.codec], cache) for row in members)
            found[key] = frechet(originals[data.name], features_of(decoded, extractor))
            write_whole(path, json.dumps(found[key]).encode())
    return [row.with_metrics({"fid": found[_group(row)]}) for row in rows]


def features_of(pictures: Iterator[Pixels], extractor: Extractor) -> Features:
    """Features of all patches of some images, [N, D]."""
    waiting: list[Pixels] = []
    out: list[Features] = []
    for picture in pictures:
        waiting += patches(picture)
        while len(waiting) >= BATCH:
            out.append(extractor(np.stack(waiting[:BATCH])))
            waiting = waiting[BATCH:]
    if waiting:
        out.append(extractor(np.stack(waiting)))
    return np.concatenate(out) if out else np.zeros((0, 1))


def _group(row: Row) -> tuple[str, str, str]:
    return row.data, row.codec, json.dumps(row.parameters, sort_keys=True)


def _groups(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[_group(row)].append(row)
    return groups


def _path(cache: Cache, rows: Sequence[Row]) -> Path:
    """Decoded images depend on the file, the codec's version and the parameters; all of them decide the value."""
    content: list[Any] = [[r.pixels_sha256, r.coded_sha256, r.version, r.parameters] for r in rows]
    content = [stored_name(metric_of("fid")), sorted(content, key=str)]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return cache.folder / "fid" / f"{digest}.json"


def _decoded(row: Row, coder: Coder, cache: Cache) -> Pixels:
    coded = cache.file(row.coded_sha256)
    if coded is None:
        raise InvalidParameter(f"{row.codec}, {row.image}: the coded file is not in the cache")
    return coder.decode(coded, row.parameters).pixels
