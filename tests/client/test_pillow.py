"""The Pillow plugin: what opens an AVIF opens a `.cdc`, in Pillow, imageio and scikit-image."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import cdc_client.pillow as plugin
from cdc_client.decoder import container
from cdc_client.sources import png_of_image
from model.container import Section, SectionType, Space, pack, read_header
from model.shipped import decoder_folder
from service.images.spaces import icc_of
from tests.conformance.make import CODEC, FOLDER

FILES = FOLDER / CODEC
ROOT = Path(__file__).parents[2]
HEAD = (FILES / "64x64.cdc").read_bytes()[:24]


@pytest.fixture(autouse=True)
def _own_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode as `cdc-client[decode]` alone does: neither torch nor a service."""
    monkeypatch.delenv("CDC_URL", raising=False)
    monkeypatch.setenv("CDC_DECODER", str(decoder_folder()))
    monkeypatch.setattr(plugin, "find_spec", lambda name: None)


def expected(name: str) -> Any:
    with Image.open(FILES / f"{name}.png") as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_opening_reads_the_header_alone(tmp_path: Path) -> None:
    data = (FILES / "512x600.cdc").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.size) == ("CDC", "RGB", (512, 600))
        assert image.get_format_mimetype() == "image/x-cdc"
        assert image.info["codec_id"] == CODEC
        assert "exif" not in image.info
    damaged = tmp_path / "damaged.cdc"
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # a wrong checksum shows when the pixels are asked for
    with Image.open(damaged) as image, pytest.raises(OSError, match="checksum-mismatch"):
        image.load()


def test_pixels_mode_and_exif() -> None:
    for name in ("150x120-alpha", "150x120-exif"):
        with Image.open(FILES / f"{name}.cdc") as image:
            difference = np.abs(np.asarray(image.convert("RGB")).astype(int) - expected(name))
            assert (difference > 1).mean() <= 0.001
            if name.endswith("exif"):
                assert image.getexif()[0x010E] == "a conformance file"
                assert image.info["exif"].startswith(b"Exif\0\0")
            else:
                assert image.mode == "RGBA"
                assert image.getchannel("A").getextrema() == (0, 255)
                assert image.copy().crop((0, 0, 10, 10)).getpixel((0, 0))[3] == 0


def test_the_profile_is_that_of_the_space() -> None:
    with Image.open(FILES / "64x64-display-p3.cdc") as image, Image.open(FILES / "64x64-display-p3.png") as png:
        assert image.info["icc_profile"] == png.info["icc_profile"] == icc_of(Space.DISPLAY_P3)
        assert "srgb" not in image.info
        assert (np.abs(np.asarray(image).astype(int) - np.asarray(png)) > 1).mean() <= 0.001
        with Image.open(io.BytesIO(png_of_image(image))) as sent:  # what `save` would encode
            assert sent.info["icc_profile"] == png.info["icc_profile"]
    with Image.open(FILES / "64x64.cdc") as image:
        assert image.info["srgb"] == 0
        assert "icc_profile" not in image.info
    data = pack(read_header(HEAD)[0], [Section(SectionType.XMP, b"<x/>"), Section(SectionType.HYPER, b"")])
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["xmp"] == b"<x/>"


@pytest.mark.parametrize(("file", "text"), [("colour-unknown", "unsupported"), ("colour-of-two-bytes", "malformed")])
def test_unknown_spaces_are_refused_when_opened(file: str, text: str) -> None:
    with pytest.raises(OSError, match=text):
        Image.open(FOLDER / "damaged" / f"{file}.cdc")


def test_drafts_are_scaled_down() -> None:
    with Image.open(FILES / "512x600.cdc") as image:
        image.draft("RGB", (100, 100))
        assert image.size == (128, 150)
        whole = Image.fromarray(expected("512x600").astype(np.uint8)).reduce(4)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(whole)).max() <= 2
    with Image.open(FILES / "512x600.cdc") as image:
        image.thumbnail((64, 64))
        assert image.size == (55, 64)


def test_gamma_is_an_attribute_of_the_opened_image() -> None:
    with Image.open(FILES / "65x63.cdc") as plain, Image.open(FILES / "65x63.cdc") as sampled:
        sampled.gamma, sampled.steps = 1.0, 2
        assert np.abs(np.asarray(plain).astype(int) - np.asarray(sampled)).mean() > 0.5


@pytest.mark.parametrize(
    ("file", "error", "text"),
    [
        ("a-png", UnidentifiedImageError, "cannot identify"),
        ("magic-alone", UnidentifiedImageError, "cannot identify"),
        ("header-cut", OSError, "truncated-file"),
        ("version-2", OSError, "unsupported-version"),
        ("width-0", OSError, "malformed-file"),
        ("section-cut", OSError, "truncated-file"),
        ("word-missing", OSError, "corrupt-stream"),
        ("another-codec-id", OSError, "unknown-codec"),
    ],
)
def test_errors_are_clear(file: str, error: type[Exception], text: str) -> None:
    def opened() -> None:
        with Image.open(FOLDER / "damaged" / f"{file}.cdc") as image:
            image.load()

    with pytest.raises(error, match=text):
        opened()


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"cdc-codec\[model\]"):
        Image.new("RGB", (8, 8)).save(tmp_path / "out.cdc")
    monkeypatch.setenv("CDC_DECODER", str(tmp_path / "nothing"))
    with Image.open(FILES / "1x1.cdc") as image, pytest.raises(OSError, match=r"decoder\.json"):
        image.load()


def test_imageio_and_scikit_image_read_it() -> None:
    from imageio import v3 as imageio
    from skimage import io as skimage

    for read in (imageio.imread, skimage.imread):
        pixels = read(FILES / "65x63.cdc")
        assert pixels.dtype == np.uint8
        assert (np.abs(pixels.astype(int) - expected("65x63")) > 1).mean() <= 0.001
    assert imageio.improps(FILES / "150x120-alpha.cdc").shape == (120, 150, 4)


def test_a_service_does_the_work_where_one_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    class Fake:
        """A client of a service that always answers the same."""

        def __init__(self, *access: str | None) -> None:
            assert access == ("http://cdc.test", "secret")

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def decode(self, data: bytes, **options: Any) -> Any:
            asked.append(("decode", options))
            return SimpleNamespace(data=(FILES / "65x63.png").read_bytes())

        def encode(self, data: bytes, **options: Any) -> Any:
            asked.append((Image.open(io.BytesIO(data)).format or "", options))
            return SimpleNamespace(data=(FILES / "65x63.cdc").read_bytes())

    monkeypatch.setattr(plugin, "Client", Fake)
    monkeypatch.setenv("CDC_URL", "http://cdc.test")
    monkeypatch.setenv("CDC_API_KEY", "secret")
    with Image.open(FILES / "65x63.cdc") as image:
        np.testing.assert_array_equal(np.asarray(image), expected("65x63"))
        image.save(tmp_path / "out.cdc", quality=60)
    assert (tmp_path / "out.cdc").read_bytes() == (FILES / "65x63.cdc").read_bytes()
    decode = {"steps": None, "gamma": None, "seed": None, "format": "png"}
    assert asked == [("decode", decode), ("PNG", {"quality": 60})]


@pytest.mark.slow
def test_the_codec_saves_and_reads_back(tmp_path: Path, photograph: Any) -> None:
    """In a fresh process with cdc-codec: EXIF goes along where it is given, a profile is converted from."""
    Image.fromarray(photograph[60:180, 180:330]).save(tmp_path / "in.png")
    script = (
        "import cdc_client.pillow; from PIL import Image\n"
        "image = Image.open('in.png'); exif = Image.Exif(); exif[0x010E] = 'a title'\n"
        "image.save('out.cdc', quality=60, exif=exif)\n"
        "made = Image.open('out.cdc'); print(made.size, made.mode, made.getexif().get(0x010E))\n"
        "made.convert('RGB').save('back.png')\n"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("CDC_")}
    argv = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(argv, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=100)
    assert done.stdout.strip() == "(150, 120) RGB a title", done.stderr
    with Image.open(tmp_path / "back.png") as back:
        error = np.square(np.asarray(back).astype(float) - photograph[60:180, 180:330]).mean()
    assert 10 * np.log10(65025 / error) > 30


def test_a_section_longer_than_any_file_is_an_error_of_the_format(tmp_path: Path) -> None:
    valid = (FOLDER / CODEC / "64x64.cdc").read_bytes()
    end = container.read_header(valid)[1]
    hostile = tmp_path / "long.cdc"
    hostile.write_bytes(valid[:end] + bytes([3]) + b"\xff" * 8 + b"\x7f" + valid[end:])
    with pytest.raises(plugin.CdcImageError, match="truncated-file"):
        Image.open(hostile)
