"""POST /encode, /decode, /inspect and GET /models: what they answer when all is well."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

from model.config import quality_of_rate
from model.container import Section, SectionType, Space, parse
from service.engine.port import DecodeRequest, EncodeRequest
from service.images.alpha import pack_alpha
from service.images.spaces import icc_of, space_to_srgb
from tests.service.conftest import image_file, photograph
from tests.service.fake_engine import CODEC_ID, LITE, FakeEngine, gradient, make_file
from tests.service.images.test_rights import XMP
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio
# The last is what curl --data-binary says of any file.
TYPES = ["image/png", "image/*", "IMAGE/PNG; x=1", "application/octet-stream", "application/x-www-form-urlencoded"]


async def test_encode_answers_a_file_and_describes_it(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    answer = await client.post(
        "/encode?quality=80", content=image_file(photograph()), headers={"Content-Type": "image/png"}
    )
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/x-cdc"
    header = parse(answer.content).header
    assert (header.width, header.height) == (32, 24)
    assert answer.headers["x-cdc-width"] == "32"
    assert answer.headers["x-cdc-height"] == "24"
    assert answer.headers["x-cdc-model"] == "lite"
    assert answer.headers["x-cdc-quality"] == "80"
    assert answer.headers["x-cdc-codec-id"] == CODEC_ID.hex()
    assert float(answer.headers["x-cdc-bpp"]) == pytest.approx(8 * len(answer.content) / (32 * 24), rel=1e-3)
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.content).hexdigest()}"'
    stages = {
        part.split(";dur=")[0]: float(part.split(";dur=")[1]) for part in answer.headers["server-timing"].split(", ")
    }
    assert stages["queue"] == pytest.approx(1.0)
    assert stages["image"] > 0
    [request] = engine.requests
    assert isinstance(request, EncodeRequest)
    np.testing.assert_array_equal(request.pixels, np.array(photograph()))
    assert (request.quality, request.target_bpp, request.max_bytes, request.model) == (80, None, None, None)


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("target_bpp=0.25", "target_bpp", 0.25),
        ("max_bytes=20000", "max_bytes", 20000),
        ("effort=9", "effort", 9),
        ("model=lite", "model", "lite"),
        ("", "quality", None),
    ],
)
async def test_encode_passes_its_parameters_on(
    client: httpx.AsyncClient, engine: FakeEngine, query: str, field: str, value: object
) -> None:
    answer = await client.post(f"/encode?{query}", content=image_file(photograph()))
    assert answer.status_code == 200
    assert getattr(engine.requests[0], field) == value


@pytest.mark.parametrize("content_type", [*TYPES, "", None])
async def test_encode_takes_these_content_types(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await client.post("/encode", content=image_file(photograph()), headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "", None])
async def test_a_body_of_no_told_type_is_judged_by_its_bytes(
    client: httpx.AsyncClient, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    for path in ("/decode", "/inspect"):
        assert (await client.post(path, content=make_file(8, 8), headers=headers)).status_code == 200
        check(await client.post(path, content=b"steps=3", headers=headers), 415, "not-a-cdc-file")
    check(await client.post("/encode", content=b"quality=3", headers=headers), 415, "unsupported-image")


async def test_encode_and_decode_take_multipart(client: httpx.AsyncClient) -> None:
    parts = {"file": ("a.png", image_file(photograph()), "image/png")}
    encoded = await client.post("/encode", files=parts)
    raw = await client.post("/encode", content=image_file(photograph()))
    assert encoded.status_code == 200
    assert encoded.content == raw.content
    decoded = await client.post("/decode", files={"file": ("a.cdc", encoded.content)})
    assert decoded.status_code == 200
    assert Image.open(BytesIO(decoded.content)).size == (32, 24)


async def test_alpha_survives_the_round_trip_without_loss(client: httpx.AsyncClient) -> None:
    alpha = Image.fromarray((np.arange(24 * 32).reshape(24, 32) % 256).astype(np.uint8))
    picture = photograph()
    picture.putalpha(alpha)
    encoded = await client.post("/encode", content=image_file(picture))
    assert parse(encoded.content).section(SectionType.ALPHA) is not None
    decoded = await client.post("/decode", content=encoded.content)
    image = Image.open(BytesIO(decoded.content))
    assert image.mode == "RGBA"
    np.testing.assert_array_equal(np.array(image.getchannel("A")), np.array(alpha))
    dropped = await client.post("/encode?alpha=drop", content=image_file(picture))
    assert parse(dropped.content).section(SectionType.ALPHA) is None


async def test_exif_is_kept_only_when_asked_for(client: httpx.AsyncClient) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    data = image_file(photograph(), "JPEG", exif=exif)
    plain = await client.post("/encode", content=data)
    assert parse(plain.content).section(SectionType.EXIF) is None
    kept = await client.post("/encode?metadata=keep", content=data)
    assert parse(kept.content).section(SectionType.EXIF) is not None
    for format in ("png", "webp", "jpeg"):
        decoded = await client.post(f"/decode?format={format}", content=kept.content)
        assert Image.open(BytesIO(decoded.content)).getexif()[0x010F] == "Maker"


async def test_decode_answers_a_picture_and_its_parameters(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    data = make_file(40, 30)
    answer = await client.post("/decode?steps=5&gamma=0.25&seed=99&model=lite", content=data)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["vary"] == "Accept"
    image = Image.open(BytesIO(answer.content))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.array(image), gradient(40, 30))
    expected = {
        "x-cdc-steps": "5",
        "x-cdc-gamma": "0.25",
        "x-cdc-seed": "99",
        "x-cdc-model": "lite",
        "x-cdc-width": "40",
        "x-cdc-height": "30",
        "x-cdc-codec-id": CODEC_ID.hex(),
        "etag": f'"{hashlib.sha256(answer.content).hexdigest()}"',
    }
    assert {name: answer.headers[name] for name in expected} == expected
    assert float(answer.headers["x-cdc-bpp"]) == pytest.approx(8 * len(data) / 1200, rel=1e-3)
    assert "denoise;dur=3.0" in answer.headers["server-timing"]
    [request] = engine.requests
    assert isinstance(request, DecodeRequest)
    assert (request.steps, request.gamma, request.seed, request.model) == (5, 0.25, 99, "lite")


async def test_decode_defaults_are_the_models_own(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    answer = await client.post("/decode", content=make_file(8, 8), headers={"Content-Type": "image/x-cdc"})
    assert answer.headers["x-cdc-steps"] == str(LITE.default_steps)
    assert answer.headers["x-cdc-gamma"] == "0.8"
    [request] = engine.requests
    assert isinstance(request, DecodeRequest)
    assert (request.steps, request.seed, request.model) == (LITE.default_steps, None, None)
    assert request.deterministic is False
    assert "cache-control" not in answer.headers


async def test_deterministic_reaches_the_engine(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    await client.post("/decode?deterministic=true", content=make_file(8, 8), headers={"Content-Type": "image/x-cdc"})
    [request] = engine.requests
    assert isinstance(request, DecodeRequest)
    assert request.deterministic is True


@pytest.mark.parametrize(
    ("backlog", "deadline_ms", "steps"),
    [(0.0, None, 17), (0.0, 5000, 15), (4.0, 10000, 15), (14.0, 20000, 7), (50.0, 10000, 1)],
)
async def test_auto_steps_fit_deadline_and_backlog(
    client: httpx.AsyncClient, engine: FakeEngine, backlog: float, deadline_ms: int | None, steps: int
) -> None:
    """The fake engine needs 1 microsecond a pixel and step: 0.25 s a step of a canvas of 384x640 pixels."""
    engine.state = replace(engine.state, backlog_seconds=backlog)
    headers = {"Content-Type": "image/x-cdc"} | ({"X-Deadline-Ms": str(deadline_ms)} if deadline_ms else {})
    answer = await client.post("/decode?steps=auto", content=make_file(384, 640), headers=headers)
    assert answer.status_code == 200
    assert abs(int(answer.headers["x-cdc-steps"]) - steps) <= (2 if 1 < steps < 17 else 0)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ("", None, "image/png"),
        ("", "*/*", "image/png"),
        ("", "image/*", "image/png"),
        ("", "image/jpeg", "image/jpeg"),
        ("", "image/webp, image/png;q=0.5", "image/webp"),
        ("", "image/png;q=0.2, image/jpeg;q=0.9, */*;q=0.1", "image/jpeg"),
        ("", "image/png;q=0, */*", "image/webp"),
        ("", "text/html, image/avif, image/webp, */*;q=0.8", "image/webp"),
        ("format=jpeg", "image/png", "image/jpeg"),
        ("format=webp", "text/html", "image/webp"),
    ],
)
async def test_decode_negotiates_the_format(
    client: httpx.AsyncClient, query: str, accept: str | None, expected: str
) -> None:
    client.headers.pop("accept")
    headers = {"Accept": accept} if accept else {}
    answer = await client.post(f"/decode?{query}", content=make_file(16, 16), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == expected
    assert Image.open(BytesIO(answer.content)).get_format_mimetype() == expected


async def test_inspect_describes_without_decoding(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    section = pack_alpha(np.zeros((30, 40), np.uint8))
    data = make_file(40, 30, rate=191, sections=(section,))
    answer = await client.post("/inspect", content=data)
    assert answer.status_code == 200
    assert answer.json() == {
        "width": 40,
        "height": 30,
        "codec_id": CODEC_ID.hex(),
        "rate": 191,
        "quality": 73,
        "bytes": len(data),
        "bpp": pytest.approx(8 * len(data) / 1200),
        "sections": [
            {"type": 1, "name": "HYPER", "bytes": 16},
            {"type": 2, "name": "LATENT", "bytes": 48},
            {"type": 3, "name": "ALPHA", "bytes": len(section.data)},
        ],
        "models": ["lite"],
        "decode_cost": {"steps": 17, "pixel_steps": 1200 * 17, "within_limits": True},
    }
    assert engine.requests == []


async def test_inspect_tells_the_same_quality_as_the_codec(client: httpx.AsyncClient) -> None:
    for rate in range(256):
        answer = await client.post("/inspect", content=make_file(8, 8, rate=rate))
        assert answer.json()["quality"] == quality_of_rate(rate)


async def test_inspect_says_when_a_decode_is_over_the_limits_or_has_no_model(client: httpx.AsyncClient) -> None:
    huge = (await client.post("/inspect", content=make_file(65535, 65535))).json()
    assert huge["decode_cost"] == {"steps": 17, "pixel_steps": 65535**2 * 17, "within_limits": False}
    strange = (await client.post("/inspect", content=make_file(8, 8, codec_id=bytes(8)))).json()
    assert strange["models"] == []
    assert strange["decode_cost"] == {"steps": None, "pixel_steps": None, "within_limits": False}


async def test_models_are_listed(client: httpx.AsyncClient) -> None:
    answer = await client.get("/models")
    assert answer.status_code == 200
    assert [m["name"] for m in answer.json()["models"]] == ["lite", "other"]
    assert answer.json()["models"][0] == {
        "name": "lite",
        "codec_id": CODEC_ID.hex(),
        "default_steps": 17,
        "default_gamma": 0.0,
        "max_steps": 200,
        "parameters": 1000,
        "default": True,
        "version": 0,
        "fixed_rate": False,
        "max_effort": 9,
        "max_pixels": None,
    }


async def test_work_is_counted_by_model(client: httpx.AsyncClient) -> None:
    await client.post("/encode", content=image_file(photograph()))
    await client.post("/decode", content=make_file(8, 8))
    text = (await client.get("/metrics")).text
    for operation in ("encode", "decode"):
        assert f'cdc_work_total{{codec_id="{CODEC_ID.hex()}",model="lite",operation="{operation}"}} 1.0' in text


async def test_a_wide_space_survives_and_becomes_srgb_where_asked(client: httpx.AsyncClient) -> None:
    tagged = image_file(photograph(), icc_profile=icc_of(Space.DISPLAY_P3))
    encoded = await client.post("/encode", content=tagged)
    assert parse(encoded.content).section(SectionType.COLOUR) == b"\x01"
    converted = await client.post("/encode?colour=srgb", content=tagged)
    assert parse(converted.content).section(SectionType.COLOUR) is None
    plain = await client.post("/encode", content=image_file(photograph()))
    assert parse(plain.content).section(SectionType.COLOUR) is None
    wide = gradient(32, 24)
    for format in ("png", "webp", "jpeg"):
        decoded = await client.post(f"/decode?format={format}", content=encoded.content)
        assert Image.open(BytesIO(decoded.content)).info["icc_profile"] == icc_of(Space.DISPLAY_P3)
    srgb = Image.open(BytesIO((await client.post("/decode?colour=srgb", content=encoded.content)).content))
    assert "icc_profile" not in srgb.info
    np.testing.assert_array_equal(np.asarray(srgb), space_to_srgb(wide, Space.DISPLAY_P3))


@pytest.mark.parametrize(("data", "problem"), [(b"\x09", "unsupported-version"), (b"", "malformed-file")])
async def test_a_space_that_is_not_known_is_refused(client: httpx.AsyncClient, data: bytes, problem: str) -> None:
    file = make_file(32, 24, sections=(Section(SectionType.COLOUR, data),))
    check(await client.post("/decode", content=file), 422, problem)


async def test_copyright_survives(client: httpx.AsyncClient) -> None:
    exif = Image.Exif()
    exif[0x8298] = "Ada"
    data = image_file(photograph(), "JPEG", exif=exif, xmp=XMP)
    encoded = await client.post("/encode?metadata=copyright", content=data)
    assert parse(encoded.content).section(SectionType.XMP) is not None
    image = Image.open(BytesIO((await client.post("/decode", content=encoded.content)).content))
    assert image.getexif()[0x8298] == "Ada"
    assert "© Ada" in str(image.getxmp())
