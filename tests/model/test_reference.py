"""FORMAT.md, its reference decoder and the conformance files against the codec: two implementations, one meaning."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.codec import Codec
from model.entropy.coder import SymbolCoder
from model.entropy.tables import Tables
from model.errors import CodecError, CorruptStream
from tests import reference_decoder as reference
from tests.conformance.make import CODES, FOLDER, VALID, WRONG, expectations

ROOT = Path(__file__).parents[2]
LARGE = ("1100x1030.cdc", "512x600.cdc")
FORMAT = (ROOT / "model/container/FORMAT.md").read_text()


@pytest.fixture(scope="module")
def integers() -> dict[str, Any]:
    return reference.read_integers(reference.INTEGERS)


@pytest.fixture(scope="module")
def coder(codec: Codec) -> SymbolCoder:
    return codec.entropy._latent_coder


def encode(entries: list[tuple[list[int], int]]) -> list[int]:
    """FORMAT.md, "The range coder": (borders of a table, entry) -> words."""
    low, span, words = 0, (1 << 64) - 1, 0
    for borders, entry in entries:
        scale = span >> 24
        low += scale * borders[entry]
        span = scale * (borders[entry + 1] - borders[entry])
        if span < 1 << 32:
            low, span, words = low << 32, span << 32, words + 1
    if not entries:
        return []
    last = low + (1 << 32) - 1 >> 32
    found = [last >> 32 * i & 0xFFFFFFFF for i in range(words, -1, -1)]
    return [*found, 0] if low + span >> 32 == last else found


def words_of(stream: bytes) -> list[int]:
    """Words of a stream without escapes."""
    assert stream[0] == 0
    return np.frombuffer(stream[1:], "<u4").tolist()


def test_constriction_writes_the_words_that_the_document_describes(
    coder: SymbolCoder, integers: dict[str, Any]
) -> None:
    """The library is held to the document's integers: long streams, carries, wide and narrow tables."""
    rng = np.random.default_rng(2)
    borders = reference.Stream(b"\0", integers, "latent").borders
    lowest = integers["latent.lowest"]
    for count in (0, 1, 2, 3, 7, 50, 3000, *rng.integers(1, 40, 300).tolist()):
        groups = np.sort(rng.integers(0, 64, count)).astype(np.uint8)
        sizes = integers["latent.sizes"][groups]
        narrow = rng.random(count) < 0.5
        entries = np.where(
            narrow, rng.integers(0, 1 << 20, count) % (sizes - 1), np.minimum(-lowest[groups], sizes - 2)
        ).astype(np.int32)
        stream = coder.encode((entries + lowest[groups]).astype(np.int32), groups)
        assert words_of(stream) == encode([(borders[g], e) for g, e in zip(groups, entries.tolist(), strict=True)])


def test_carries_run_through_words() -> None:
    """A table whose last interval is wide drives the lower end to the top: runs of 0xFFFFFFFF and carries."""
    counts = np.array([1, (1 << 20) - 2, 1], np.int32)
    coder = SymbolCoder(Tables(np.array([0], np.int32), np.array([3], np.int32), counts))
    borders = reference.cumulative(counts.tolist())
    rng = np.random.default_rng(3)
    for _ in range(300):
        entries = rng.choice([0, 1], rng.integers(1, 30), p=[0.1, 0.9]).astype(np.int32)
        words = words_of(coder.encode(entries, np.zeros(entries.size, np.uint8)))
        assert words == encode([(borders, e) for e in entries.tolist()])


def test_damaged_streams_end_alike(coder: SymbolCoder, integers: dict[str, Any]) -> None:
    """Noise, streams and streams with a flipped bit: the same symbols or the same refusal from both decoders."""
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(450):
        groups = rng.integers(0, 64, rng.integers(0, 200)).astype(np.uint8)
        if number % 3:
            sigma = 0.1 * np.exp(groups / 8.0)
            data = bytearray(coder.encode(np.round(rng.normal(size=groups.size) * sigma).astype(np.int32), groups))
            data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8)) if number % 3 == 1 else 0
            stream = bytes(data)
        else:
            stream = b"\0" + rng.bytes(4 * int(rng.integers(40)))
        found = []
        for decode in (coder.decode, lambda s, g: by_reference(s, g, integers)):
            try:
                found.append(decode(stream, groups).tolist())
            except (CorruptStream, reference.Refused):
                found.append(None)
        assert found[0] == found[1]
        refused += found[0] is None
    assert 150 < refused < 350


def by_reference(stream: bytes, groups: Any, integers: dict[str, Any]) -> Any:
    reader = reference.Stream(stream, integers, "latent")
    symbols = reader.part(groups)
    reader.end()
    return symbols


@pytest.mark.parametrize("entry", VALID, ids=lambda e: e["file"])
def test_every_golden_file_reads_alike(entry: dict[str, Any], codec: Codec, integers: dict[str, Any]) -> None:
    """Symbols, means and scale indices are those on record, by the codec and by the reference decoder."""
    data = (FOLDER / entry["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    found = codec.unpack(data).quantised
    own = (found.hyper, found.latent, found.means.numpy(), found.indices.numpy())
    assert {k: entry[k] for k in ("symbols", "means", "indices")} == expectations(*own)
    file = reference.parse(data)
    assert file.codec_id == reference.codec_id(integers)
    for ours, theirs in zip(own, reference.decode(file, integers), strict=True):
        np.testing.assert_array_equal(ours, theirs)


DECODED = [pytest.param(e, marks=[pytest.mark.slow] if e["file"].endswith(LARGE) else []) for e in VALID if e["image"]]


@pytest.mark.parametrize("entry", DECODED, ids=lambda e: e["file"])
def test_every_golden_file_decodes_to_its_image(entry: dict[str, Any], codec: Codec) -> None:
    """One step without noise in float32; another machine may round a value in a thousand to the next level."""
    with Image.open(FOLDER / entry["image"]) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    difference = np.abs(codec.decode((FOLDER / entry["file"]).read_bytes(), 1, 0.0) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.001


@pytest.mark.parametrize("entry", WRONG, ids=lambda e: e["file"])
def test_every_damaged_file_gives_its_error(entry: dict[str, Any], codec: Codec, integers: dict[str, Any]) -> None:
    data = (FOLDER / entry["file"]).read_bytes()
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    with pytest.raises(CodecError) as ours:
        codec.unpack(data)
    assert CODES[type(ours.value)] == entry["error"]
    with pytest.raises(reference.Refused) as theirs:
        reference.read(data, integers)
    assert theirs.value.code == entry["error"]


def test_no_file_is_without_an_expectation() -> None:
    named = {name for e in (*VALID, *WRONG) for name in (e["file"], e.get("image")) if name}
    found = {str(p.relative_to(FOLDER)) for p in FOLDER.rglob("*") if p.suffix in (".cdc", ".png")}
    assert found == named


def test_both_commands_print_the_hash_on_record(tmp_path: Path) -> None:
    entry = next(e for e in VALID if e["file"].endswith("64x64.cdc"))
    path = FOLDER / entry["file"]
    for argv in (["tests/reference_decoder.py"], ["-m", "cdc_client", "inspect", "--symbols"]):
        done = subprocess.run([sys.executable, *argv, path], cwd=ROOT, capture_output=True, text=True, timeout=100)
        assert done.stdout.split() == [entry["symbols"]], done.stderr
    broken = tmp_path / "broken.cdc"
    broken.write_bytes(path.read_bytes()[:-1])
    argv = [sys.executable, "tests/reference_decoder.py", str(broken)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout) == (1, "")
    assert "truncated-file" in done.stderr


def test_the_reference_decoder_shares_no_code() -> None:
    source = (ROOT / "tests/reference_decoder.py").read_text()
    imported = set(re.findall(r"^\s*(?:from|import) (\w+)", source, re.MULTILINE))
    assert imported == {"__future__", "bisect", "dataclasses", "hashlib", "json", "numpy", "pathlib", "sys", "typing"}


def test_worked_numbers_of_the_document(integers: dict[str, Any]) -> None:
    """Every block of JSON in FORMAT.md is what the reference decoder computes."""
    blocks = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", FORMAT, re.DOTALL)]
    assert blocks == worked(integers)
    assert reference.LAYOUT in " ".join(FORMAT.split())


def worked(integers: dict[str, Any]) -> list[Any]:
    """The worked numbers: a table, a stream, and a file of one pixel on its way from streams to latents."""
    stream = reference.Stream(b"\0", integers, "latent")
    counts = np.split(integers["latent.counts"], np.cumsum(integers["latent.sizes"]))[12].tolist()
    table = {"scale index": 12, "lowest": stream.lowest[12], "counts": counts, "borders": stream.borders[12]}
    symbols = [0, 1, 0, -2, stream.lowest[12] + len(counts) + 3]
    borders = stream.borders[12]
    entries = [min(s - stream.lowest[12], len(counts) - 1) for s in symbols]
    words = encode([(borders, e) for e in entries])
    data = bytes([1, 2 * (symbols[-1] - stream.lowest[12] - len(counts) + 1)])
    data += b"".join(w.to_bytes(4, "little") for w in words)
    reader = reference.Stream(data, integers, "latent")
    states = []
    for _ in entries:
        before = {"span": hex(reader.span), "offset": hex(reader.offset)}
        quantile = reader.offset // (reader.span >> 24)
        states.append({**before, "quantile": quantile, "entry": reader.entry(borders)})
    example = {"symbols": symbols, "stream": data.hex(" "), "states": states}
    np.testing.assert_array_equal(reference.Stream(data, integers, "latent").part(np.full(5, 12)), symbols)

    file = reference.parse((FOLDER / "4db9ad33bfa08c8e/1x1.cdc").read_bytes())
    z, y, means, indices = reference.decode(file, integers)
    z256 = 256 * z + integers["medians"].astype(int)[:, None, None]
    first = reference.transposed(integers, "head.0", z256)
    second = reference.transposed(integers, "head.1", first)
    last = reference.matrix(integers, "head.2", second.reshape(len(second), -1), -reference.FINE, reference.FINE)
    place = np.ix_(range(4), [0, 1], [0, 1])
    walk = {
        "rate": file.rate,
        "z[0..7]": z[:8, 0, 0].tolist(),
        "z256[0..7]": z256[:8, 0, 0].tolist(),
        "head.0, four channels": {str(c): first[c].tolist() for c in np.flatnonzero(first.any((1, 2)))[:4]},
        "head.1, two channels": {str(c): second[c].tolist() for c in np.flatnonzero(second.any((1, 2)))[:2]},
        "m256[0..3], position 0": last[:4, 0].tolist(),
        "s[0..3], position 0": last[320:324, 0].tolist(),
        "scale index[0..3][0..1][0..1]": indices[place].tolist(),
        "m[0..3][0..1][0..1]": means[place].tolist(),
        "y[0..3][0..1][0..1]": y[place].tolist(),
    }
    return [table, example, walk]
