"""Decoding without torch: the client's own decoder on the conformance files, and against the codec."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from cdc_client import DecoderUnavailable, UnreadableFile
from cdc_client.command import backend
from cdc_client.command.terminal import Refused
from cdc_client.decoder import Decoder, DecoderFiles, find_files, weights
from cdc_client.decoder.container import SPACES
from cdc_client.decoder.images import image_of
from cdc_client.decoder.profiles import profile_of
from model.codec import Codec
from model.container import Space
from model.shipped import decoder_folder
from model.weights.decoder_export import export_decoder
from model.weights.files import load_weights
from model.weights.registry import SHIPPED
from service.images import profiles
from service.images.spaces import icc_of
from tests.conformance.make import CODEC, FOLDER, VALID, WRONG

ROOT = Path(__file__).parents[2]
LARGE = ("1100x1030.cdc", "512x600.cdc")
SMALL = [e for e in VALID if "1100x1030" not in e["file"]]


@pytest.fixture(scope="module")
def files() -> DecoderFiles:
    return find_files(decoder_folder())


@pytest.fixture(scope="module")
def decoder(files: DecoderFiles) -> Decoder:
    return Decoder(files, threads=1)


def of_large(entries: list[dict[str, Any]]) -> list[Any]:
    """Large files are slow."""
    return [pytest.param(e, marks=[pytest.mark.slow] if e["file"].endswith(LARGE) else []) for e in entries]


@pytest.mark.parametrize("entry", of_large(VALID), ids=lambda e: e["file"])
def test_symbols_are_those_on_record_and_pixels_within_a_level(entry: dict[str, Any], decoder: Decoder) -> None:
    data = (FOLDER / entry["file"]).read_bytes()
    assert decoder.symbols(data) == entry["symbols"]
    if entry["image"]:
        with Image.open(FOLDER / entry["image"]) as image:
            expected = np.asarray(image.convert("RGB")).astype(int)
        difference = np.abs(decoder.decode(data).pixels - expected)
        assert (difference > 1).mean() <= 0.001
        assert difference.max() <= 3


@pytest.mark.parametrize("entry", WRONG, ids=lambda e: e["file"])
def test_damaged_files_give_their_error(entry: dict[str, Any], decoder: Decoder) -> None:
    with pytest.raises(UnreadableFile) as error:
        decoder.decode((FOLDER / entry["file"]).read_bytes())
    assert error.value.code == entry["error"]


@pytest.mark.parametrize(("name", "steps", "gamma"), [("150x120-rate-0", 1, 1.0), ("65x63", 3, 0.6)])
def test_noise_and_sampler_are_those_of_the_codec(name: str, steps: int, gamma: float, decoder: Decoder) -> None:
    codec = Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "float32")
    data = (FOLDER / CODEC / f"{name}.cdc").read_bytes()
    expected = codec.decode(data, steps, gamma).astype(int)
    difference = np.abs(decoder.decode(data, steps, gamma).pixels - expected)
    assert (difference > 1).mean() <= 0.001
    assert np.abs(expected - decoder.decode(data).pixels).mean() > 0.5  # noise has been added


def test_the_profile_of_a_space_goes_with_the_pixels(decoder: Decoder) -> None:
    with Image.open(FOLDER / CODEC / "64x64-display-p3.png") as image:
        expected = image.info["icc_profile"]
    decoded = decoder.decode((FOLDER / CODEC / "64x64-display-p3.cdc").read_bytes())
    assert decoded.icc_profile == image_of(decoded).info["icc_profile"] == expected
    plain = decoder.decode((FOLDER / CODEC / "64x64.cdc").read_bytes())
    assert plain.icc_profile is None
    assert "icc_profile" not in image_of(plain).info


@pytest.mark.parametrize("space", Space)
def test_the_profiles_are_those_of_the_service(space: Space) -> None:
    assert profile_of(bytes([space])) == profiles.files()[f"{SPACES[space]}.icc"] == icc_of(space)
    for wrong in (b"", b"\x09", b"\1\1"):
        with pytest.raises(UnreadableFile):
            profile_of(wrong)


def test_random_damage_gives_typed_errors(decoder: Decoder) -> None:
    """Files with flipped bits behind a right checksum, cut short, or put together from two."""
    from cdc_client.decoder.container import crc32c

    rng = np.random.default_rng(4)
    sources = [(FOLDER / e["file"]).read_bytes() for e in SMALL if e["file"].endswith(("1x1.cdc", "64x64.cdc"))]
    refused = 0
    for number in range(150):
        data = bytearray(sources[number % 2])
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(17, len(data)))] = int(rng.integers(256))
        body = bytes(data[: int(rng.integers(17, len(data)))] if number % 5 == 0 else data[:-4])
        try:
            decoder.symbols(body + crc32c(body).to_bytes(4, "little"))
        except UnreadableFile:
            refused += 1
    assert refused > 60


def test_limits_and_parameters(decoder: Decoder) -> None:
    data = (FOLDER / CODEC / "150x120-rate-0.cdc").read_bytes()
    with pytest.raises(UnreadableFile) as error:
        decoder.decode(data, max_pixels=17_999)
    assert error.value.code == "too-many-pixels"
    for wrong in ({"steps": 0}, {"gamma": 2.1}, {"gamma": float("nan")}, {"seed": -1}, {"seed": 1 << 63}):
        with pytest.raises(ValueError, match="must be"):
            decoder.decode(data, **wrong)  # type: ignore[arg-type]


def test_the_shipped_files_are_those_of_the_shipped_weights(tmp_path: Path, files: DecoderFiles) -> None:
    assert export_decoder(SHIPPED / "cdc-lite.safetensors", tmp_path) == files.manifest
    for entry in files.manifest["files"].values():
        data = (files.folder / entry["file"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (entry["sha256"], entry["bytes"])
        assert data == (tmp_path / entry["file"]).read_bytes()
    assert sum(e["bytes"] for e in files.manifest["files"].values()) <= 12_000_000


def test_int8_costs_less_than_a_fiftieth_of_a_decibel(photograph: Any, decoder: Decoder) -> None:
    codec = Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "float32")
    pixels = np.ascontiguousarray(photograph[100:356, 150:406])
    latents = codec.analyse(pixels)

    def psnr(image: Any) -> float:
        return float(10 * np.log10(65025 / np.square(pixels.astype(float) - image).mean()))

    for rate in (0, 142, 255):
        data = codec.pack(latents, rate)
        assert psnr(codec.decode(data, 1, 0.0)) - psnr(decoder.decode(data).pixels) < 0.02


def test_without_files_it_says_where_they_could_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "entry_points", lambda group: [])
    for name in ("CDC_DECODER", "CDC_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DecoderUnavailable, match="CDC_DECODER"):
        find_files()
    for text in ("", "{}", '{"format": "cdc-decoder/1", "files": {"a": {"file": "../../etc/passwd"}}}'):
        (tmp_path / "decoder.json").write_text(text)
        with pytest.raises(DecoderUnavailable, match="not a manifest"):
            find_files(tmp_path)


def test_files_of_a_service_are_kept_and_checked(
    tmp_path: Path, files: DecoderFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    broken = False

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        data = (files.folder / request.url.path.rpartition("/")[2]).read_bytes()
        return httpx.Response(200, content=data[:-1] if broken and data[:1] != b"{" else data)

    real = httpx.Client
    monkeypatch.setattr(weights.httpx, "Client", lambda **_: real(transport=httpx.MockTransport(answer)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_files(url="http://cdc.test/").integers().keys() == files.integers().keys()
    assert len(asked) == 4
    find_files(url="http://cdc.test")
    assert len(asked) == 5  # the manifest alone
    broken = True
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(DecoderUnavailable, match="damaged"):
        find_files(url="http://cdc.test")


def test_the_example_needs_no_torch(tmp_path: Path) -> None:
    example = ROOT / "examples/decode_without_torch.py"
    assert len(example.read_text().splitlines()) < 100
    entry = next(e for e in VALID if e["file"].endswith("65x63.cdc"))
    code = (
        "import sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]\n"
        "import runpy; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    argv = [sys.executable, "-c", code, str(example), str(FOLDER / entry["file"]), str(tmp_path / "out.png")]
    subprocess.run(argv, check=True, timeout=100, cwd=tmp_path)
    with Image.open(tmp_path / "out.png") as made, Image.open(FOLDER / entry["image"]) as image:
        assert np.abs(np.asarray(made).astype(int) - np.asarray(image.convert("RGB"))).max() <= 1
    assert json.loads((decoder_folder() / "decoder.json").read_text())["codec_id"] == entry["file"].split("/")[0]


def test_the_command_decodes_by_itself_where_nothing_else_is(
    tmp_path: Path, files: DecoderFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `cdc-client[cli,decode]` alone."""
    monkeypatch.setattr(backend, "entry_points", lambda group: [])
    monkeypatch.setenv("CDC_DECODER", str(files.folder))
    own = backend.backend_of(None, None, None, "auto", quiet=True)
    entry = next(e for e in VALID if e["file"].endswith("150x120-alpha.cdc"))
    data = (FOLDER / entry["file"]).read_bytes()
    assert own.symbols(data) == entry["symbols"]
    assert own.inspect(data)["sections"].keys() == {"hyper", "latent", "alpha"}
    for format, mode in (("png", "RGBA"), ("webp", "RGBA"), ("jpeg", "RGB")):
        made = own.decode(data, {"format": format})  # type: ignore[typeddict-item]
        with Image.open(io.BytesIO(made.data)) as image:
            assert (image.format, image.mode, image.size) == (format.upper(), mode, (150, 120))
            assert "icc_profile" not in image.info
        wide = own.decode((FOLDER / CODEC / "64x64-display-p3.cdc").read_bytes(), {"format": format})  # type: ignore[typeddict-item]
        with Image.open(io.BytesIO(wide.data)) as image:
            assert image.info["icc_profile"] == icc_of(Space.DISPLAY_P3)
    with pytest.raises(Refused, match=r"cdc-codec\[model\]"):
        own.encode(b"", {})
    with pytest.raises(Refused, match="--url sends it"):
        backend.backend_of("http://cdc.test", None, None, "auto", quiet=True).symbols(data)
