"""The conformance files: `python -m tests.conformance.make` adds what is new and never changes what is there.

`expected.json` says of each file what every decoder must find in it: the SHA-256 over the symbols of z and y (int32
little-endian, z first), over the means of y in 1/16 (int32) and its scale indices (uint8), all channel by channel, and
an image; or the error. Files stay for ever; a release may add some.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from PIL import Image, ImageCms

from model import errors

FOLDER = Path(__file__).parent
RECORD = FOLDER / "expected.json"
CODEC = "4db9ad33bfa08c8e"
CODES = {
    errors.NotACdcFile: "not-a-cdc-file",
    errors.TruncatedFile: "truncated-file",
    errors.ChecksumMismatch: "checksum-mismatch",
    errors.MalformedFile: "malformed-file",
    errors.UnsupportedVersion: "unsupported-version",
    errors.UnknownCodec: "unknown-codec",
    errors.CorruptStream: "corrupt-stream",
}
ENTRIES: list[dict[str, Any]] = json.loads(RECORD.read_text()) if RECORD.is_file() else []
VALID = [e for e in ENTRIES if "error" not in e]
WRONG = [e for e in ENTRIES if "error" in e]


def expectations(hyper: Any, latent: Any, means: Any, indices: Any) -> dict[str, str]:
    """The hashes of a file's symbols, means and scale indices."""
    symbols = hyper.astype("<i4").tobytes() + latent.astype("<i4").tobytes()
    parts = {"symbols": symbols, "means": means.astype("<i4").tobytes(), "indices": indices.astype("u1").tobytes()}
    return {name: hashlib.sha256(data).hexdigest() for name, data in parts.items()}


def main() -> None:
    """Write what is missing."""
    import torch

    from model.codec import Codec
    from model.container import SectionType, Space, parse
    from model.weights.files import load_weights
    from model.weights.registry import SHIPPED
    from service.images.spaces import icc_of

    torch.set_num_threads(1)
    codec = Codec(load_weights(SHIPPED / "cdc-lite.safetensors"), "float32")
    if codec.codec_id.hex() != CODEC:
        raise SystemExit("the shipped model has another codec id: give its files a folder of their own")
    (FOLDER / CODEC).mkdir(exist_ok=True)
    known = {e["file"] for e in ENTRIES}
    for name, data, has_image in valid_files(codec):
        if name in known:
            continue
        (FOLDER / name).write_bytes(data)
        q = codec.unpack(data).quantised
        hashes = expectations(q.hyper, q.latent, q.means.numpy(), q.indices.numpy())
        image = name.replace(".cdc", ".png") if has_image else None
        if image:
            space = parse(data).section(SectionType.COLOUR)
            profile = icc_of(Space(space[0])) if space else None
            Image.fromarray(codec.decode(data, 1, 0.0)).save(FOLDER / image, "PNG", optimize=True, icc_profile=profile)
        ENTRIES.append({"file": name, "sha256": hashlib.sha256(data).hexdigest(), **hashes, "image": image})
    for name, data, error in wrong_files((FOLDER / CODEC / "64x64.cdc").read_bytes()):
        if name not in known:
            (FOLDER / name).write_bytes(data)
            ENTRIES.append({"file": name, "sha256": hashlib.sha256(data).hexdigest(), "error": error})
    RECORD.write_text(json.dumps(ENTRIES, indent=1) + "\n")


def photograph() -> Any:
    """The public-domain portrait that matplotlib carries, uint8 [600, 512, 3]."""
    from matplotlib import cbook

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return np.asarray(Image.open(file).convert("RGB"))


def display_p3(pixels: Any) -> Any:
    """sRGB pixels -> those of Display P3, uint8 [H, W, 3]."""
    from model.container import Space
    from service.images.spaces import icc_of

    target = ImageCms.ImageCmsProfile(BytesIO(icc_of(Space.DISPLAY_P3)))
    made = ImageCms.profileToProfile(Image.fromarray(pixels), ImageCms.createProfile("sRGB"), target)
    assert made is not None
    return np.asarray(made)


def valid_files(codec: Any) -> list[tuple[str, bytes, bool]]:
    """Name, bytes, and whether they are of an image."""
    from model.container import Header, Section, SectionType, pack

    photo = photograph()
    y, x = np.mgrid[:1030, :1100]
    slopes = np.stack([x * 255 // 1100, y * 255 // 1030, (x + y) % 512 // 2], axis=2).astype(np.uint8)
    slopes[400:700, 300:800] = np.asarray(Image.fromarray(photo[:300, :250]).resize((500, 300)))
    alpha = Image.fromarray((np.hypot(*np.mgrid[-60:60, -75:75]) < 55).astype(np.uint8) * 255)
    png = BytesIO()
    alpha.save(png, "PNG")
    exif = Image.Exif()
    exif[0x010E] = "a conformance file"
    crop = np.ascontiguousarray(photo[60:180, 180:330])
    images: dict[str, tuple[Any, int, list[Any]]] = {
        "1x1": (photo[:1, :1], 128, []),
        "1x130": (photo[:130, 250:251], 90, []),
        "300x1": (photo[100:101, :300], 200, []),
        "64x64": (photo[60:124, 200:264], 142, []),
        "64x64-display-p3": (display_p3(photo[60:124, 200:264]), 142, [Section(SectionType.COLOUR, b"\1")]),
        "65x63": (photo[60:123, 200:265], 60, []),
        "150x120-rate-0": (crop, 0, []),
        "150x120-rate-255": (crop, 255, []),
        "150x120-alpha": (crop, 142, [Section(SectionType.ALPHA, png.getvalue())]),
        "150x120-exif": (crop, 142, [Section(SectionType.EXIF, exif.tobytes().removeprefix(b"Exif\0\0"))]),
        "150x120-unknown-optional": (crop, 142, [Section(200, b"to be skipped")]),
        "512x600": (photo, 142, []),
        "1100x1030": (slopes, 40, []),
    }
    found = [
        (f"{CODEC}/{name}.cdc", codec.pack(codec.analyse(np.ascontiguousarray(pixels)), rate, sections), True)
        for name, (pixels, rate, sections) in images.items()
    ]

    # Symbols of no image: far outside their tables on both sides, at the limits, and at every kind of position.
    rng = np.random.default_rng(7)
    entropy, rate = codec.entropy, 77
    hyper = rng.integers(-2, 3, (128, 1, 2)).astype(np.int32)
    hyper[[0, 5, 64, 127], 0, 0] = [32768, -32768, 900, -41]
    target = extreme_symbols(rng, 320)

    def choose(part: Any) -> Any:
        own = target[part.channels][:, positions(part.parity)]
        return np.where(part.indices.numpy() < entropy.silent, 0, own).astype(np.int32)

    latents, _, indices = entropy._predict(hyper[None], [rate], choose)
    streams = (entropy.encode_hyper(hyper), entropy.encode_latent(latents[0], indices[0]))
    sections = [
        Section(kind, data) for kind, data in zip((SectionType.HYPER, SectionType.LATENT), streams, strict=True)
    ]
    found.append((f"{CODEC}/escapes.cdc", pack(Header(codec.codec_id, 128, 64, rate), sections), False))
    return found


def extreme_symbols(rng: Any, channels: int) -> Any:
    """Symbols [channels, 4, 8]: mostly small, some at the limits."""
    values = np.round(rng.normal(size=(channels, 4, 8)) * 3).astype(np.int64)
    rare = rng.random(values.shape)
    values = np.where(rare < 0.02, rng.integers(-32768, 32769, values.shape), values)
    return np.where(rare < 0.002, 32768, np.where(rare > 0.998, -32768, values))


def positions(parity: int | None) -> Any:
    """Mask [4, 8] of a pass."""
    return np.add.outer(np.arange(4), np.arange(8)) % 2 == (parity or 0)


def checked(body: bytes) -> bytes:
    """A body with its checksum."""
    return body + int(google_crc32c.value(body)).to_bytes(4, "little")


def wrong_files(data: bytes) -> list[tuple[str, bytes, str]]:
    """Name, bytes and error of damaged files, all made from a good one of 64x64."""
    from model.container import SectionType, parse
    from model.varint import encode_varint

    head, container = data[:20], parse(data)
    hyper, latent = (container.section(kind) or b"" for kind in (SectionType.HYPER, SectionType.LATENT))

    def body(*sections: tuple[int, bytes], head: bytes = head) -> bytes:
        return checked(head + b"".join(bytes([k]) + encode_varint(len(d)) + d for k, d in sections) + b"\0")

    flipped = bytearray(data)
    flipped[40] ^= 4
    both = ((1, hyper), (2, latent))
    escapes = latent[0]
    assert escapes < 127
    inserted = bytes([escapes + 1]) + latent[1 : 1 + escapes] + b"\0" + latent[1 + escapes :]
    random = np.random.default_rng(1).bytes(len(latent) // 4 * 4)
    found = {
        "empty": (b"", "not-a-cdc-file"),
        "a-png": (b"\x89PNG\r\n\x1a\n" + bytes(40), "not-a-cdc-file"),
        "newlines-translated": (data.replace(b"\r\n", b"\n", 1), "not-a-cdc-file"),
        "magic-alone": (data[:5], "truncated-file"),
        "header-cut": (data[:18], "truncated-file"),
        "section-cut": (data[:60], "truncated-file"),
        "checksum-cut": (data[:-1], "truncated-file"),
        "length-beyond-the-end": (checked(head + b"\x01\xff\xff\xff\xff\x0f"), "truncated-file"),
        "a-bit-flipped": (bytes(flipped), "checksum-mismatch"),
        "checksum-of-crc32": (data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little"), "checksum-mismatch"),
        "bytes-after-the-end": (data + b"\0", "malformed-file"),
        "version-2": (checked(data[:8] + b"\x02" + data[9:-4]), "unsupported-version"),
        "width-0": (body(*both, head=head[:17] + b"\0" + head[18:]), "malformed-file"),
        "width-65536": (body(*both, head=head[:17] + b"\x80\x80\x04" + head[18:]), "malformed-file"),
        "width-in-two-bytes": (body(*both, head=head[:17] + b"\xc0\x00" + head[18:]), "malformed-file"),
        "varint-of-ten-bytes": (body(*both, head=head[:17] + b"\x80" * 9 + b"\x01" + head[18:]), "malformed-file"),
        "section-twice": (body(*both, (2, latent)), "malformed-file"),
        "seventeen-sections": (body(*both, *((200 + i, b"") for i in range(15))), "malformed-file"),
        "no-latent": (body((1, hyper)), "malformed-file"),
        "no-hyper": (body((2, latent)), "malformed-file"),
        "unknown-critical": (body(*both, (9, b"")), "unsupported-version"),
        "colour-unknown": (body(*both, (4, b"\x09")), "unsupported-version"),
        "colour-of-two-bytes": (body(*both, (4, b"\x01\x01")), "malformed-file"),
        "another-codec-id": (checked(data[:9] + bytes(8) + data[17:-4]), "unknown-codec"),
        "word-left-over": (body((1, hyper), (2, latent + bytes(8))), "corrupt-stream"),
        "hyper-word-left-over": (body((1, hyper + bytes(8)), (2, latent)), "corrupt-stream"),
        "word-missing": (body((1, hyper), (2, latent[:-8])), "corrupt-stream"),
        "half-a-word": (body((1, hyper), (2, latent[:-2])), "corrupt-stream"),
        "escape-left-over": (body((1, hyper), (2, inserted)), "corrupt-stream"),
        "escapes-beyond-the-end": (body((1, hyper), (2, b"\x7f")), "corrupt-stream"),
        "empty-stream": (body((1, hyper), (2, b"")), "corrupt-stream"),
        "words-of-noise": (body((1, hyper), (2, b"\0" + random)), "corrupt-stream"),
    }
    return [(f"damaged/{name}.cdc", made, error) for name, (made, error) in found.items()]


if __name__ == "__main__":
    (FOLDER / "damaged").mkdir(exist_ok=True)
    main()
