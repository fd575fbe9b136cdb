"""Hostile, damaged and merely odd images for the hostile bar."""

from __future__ import annotations

import random
import struct
import zlib
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from benchmarks.cases import ANIMATED, BROKEN, NO_BODY, NOT_IMAGE, OK, PIXELS, WRONG_TYPE, Answer, Case

KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
FIRST = {"frame": "first"}
SIDES = (48, 40)
# A changed byte may hit pixels or anything in the header, and no check sum of the format may notice.
ANY: frozenset[Answer] = frozenset({OK, BROKEN, PIXELS, NOT_IMAGE, ANIMATED})


def save(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The image as a file."""
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@cache
def picture(width: int = SIDES[0], height: int = SIDES[1], mode: str = "RGB") -> Image.Image:
    """A smooth image; never changed by its users."""
    y, x = np.mgrid[:height, :width]
    planes = [x * 255 / width, y * 255 / height, 255 - (x + y) * 255 / (width + height)]
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8)).convert(mode)


def translucent() -> Image.Image:
    """The image with transparency."""
    image = picture().copy()
    image.putalpha(picture(mode="L"))
    return image


def frames(kind: str) -> bytes:
    """An animation of three frames."""
    others = [picture().point(lambda v, k=k: v // k) for k in (2, 3)]
    return save(picture(), kind, save_all=True, append_images=others, duration=50)


def oriented(orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return save(picture(), kind, exif=exif.tobytes())


def chunk(name: bytes, data: bytes) -> bytes:
    """A PNG chunk (PNG, 5.3)."""
    return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")


def png(width: int, height: int, depth: int, colour: int, data: bytes, *before: bytes, interlace: int = 0) -> bytes:
    """A PNG file of any header around compressed data, `before` being chunks ahead of the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(before) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(
    width: int, height: int, *more: tuple[int, int, int, int], data: bytes = b"\0" * 64, following: int = 0
) -> bytes:
    """A little-endian 8-bit grey TIFF file; `more` are further entries (tag, type, count, value)."""
    entries = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 277: (3, 1, 1)}
    entries |= {273: (4, 1, 400), 278: (4, 1, height), 279: (4, 1, len(data))} | {t: (k, n, v) for t, k, n, v in more}
    body = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", t, *entries[t]) for t in sorted(entries)) + struct.pack("<I", following)
    return body.ljust(400, b"\0") + data


def bmp(width: int, height: int, compression: int = 0) -> bytes:
    fields = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 2000, 0, 0, 54 + 1024) + fields + bytes(1024 + 100)


def patched(data: bytes, old: bytes, new: bytes) -> bytes:
    """`data` with the first `old`, which must be there, replaced."""
    assert old in data
    return data.replace(old, new, 1)


def huge_jpeg() -> bytes:
    data = save(picture(), "JPEG")
    at = data.index(b"\xff\xc0") + 5  # SOF0: length, precision, then height and width (ITU-T T.81, B.2.2)
    return data[:at] + b"\xff\xdc\xff\xdc" + data[at + 4 :]


def huge_webp() -> bytes:
    fields = b"\x10\0\0\0" + (16382).to_bytes(3, "little") * 2
    body = b"WEBPVP8X" + struct.pack("<I", len(fields)) + fields + save(picture(), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def huge_avif() -> bytes:
    ispe = b"ispe\0\0\0\0"
    return patched(save(picture(), "AVIF"), ispe + struct.pack(">II", *SIDES), ispe + struct.pack(">II", 60000, 60000))


def bombs() -> dict[str, tuple[bytes, set[Answer]]]:
    """Small files that claim, or inflate to, a lot."""
    zeros = zlib.compress(bytes(96 << 20), 9)
    small = zlib.compress(b"\0" * (SIDES[1] * (SIDES[0] + 1)))
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "a" * (32 << 20), zip=True)
    profile = chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(64 << 20), 9))
    gif = save(picture(mode="P"), "GIF")
    gif_sides = struct.pack("<HH", *SIDES)
    tile = (322, 4, 1, 60000), (323, 4, 1, 60000), (324, 4, 1, 400)
    circle = tiff(*SIDES, data=bytes(SIDES[0] * SIDES[1]), following=8)
    frame_at = gif.index(b"\x2c" + bytes(4) + gif_sides) + 5
    return {
        "PNG header 60000x60000": (png(60000, 60000, 8, 2, small), {PIXELS}),
        "PNG header of 2^31 - 1": (png(2**31 - 1, 2**31 - 1, 16, 6, small), {PIXELS}),
        "PNG over the limit that compresses well": (save(Image.new("1", (2001, 2000)), "PNG"), {PIXELS}),
        "PNG with 96 MiB behind its pixels": (png(*SIDES, 8, 0, zeros), {OK, BROKEN}),
        "PNG whose text inflates": (save(picture(), pnginfo=text), {OK, BROKEN}),
        "PNG whose profile inflates": (png(*SIDES, 8, 0, small, profile), {OK, BROKEN}),
        "PNG with 30000 empty chunks": (png(*SIDES, 8, 0, small, chunk(b"teXt", b"") * 30000), {OK}),
        "PNG header 0x0": (png(0, 0, 8, 0, small), {BROKEN}),
        "JPEG header 65500x65500": (huge_jpeg(), {PIXELS}),
        "GIF header 65535x65535": (patched(gif, gif_sides, b"\xff\xff\xff\xff"), {PIXELS}),
        "GIF frame 65535x65535": (gif[:frame_at] + b"\xff\xff\xff\xff" + gif[frame_at + 4 :], {PIXELS, BROKEN}),
        "WebP canvas 16383x16383": (huge_webp(), {PIXELS, BROKEN}),
        "AVIF header 60000x60000": (huge_avif(), {PIXELS, BROKEN}),
        "TIFF header 60000x60000": (tiff(60000, 60000), {PIXELS}),
        "TIFF tile of 60000x60000": (tiff(*SIDES, *tile), {PIXELS, BROKEN}),
        "TIFF of pages in a circle": (circle, {OK, ANIMATED, BROKEN}),
        "TIFF with 2^30 strips": (tiff(*SIDES, (273, 4, 1 << 30, 400), (278, 4, 1, 1)), {OK, BROKEN}),
        "TIFF whose strip inflates": (tiff(*SIDES, (259, 3, 1, 8), data=zeros), {OK, BROKEN}),
        "BMP header 60000x60000": (bmp(60000, 60000), {PIXELS}),
        "BMP of negative sides": (bmp(-48, -40), {BROKEN, PIXELS, NOT_IMAGE}),
        "BMP runs that never come": (bmp(2000, 1999, 1), {BROKEN}),
        "PPM header 60000x60000": (b"P6 60000 60000 255\n" + bytes(100), {PIXELS}),
        "PPM header of many digits": (b"P6 " + b"9" * 5000 + b" 1 255\n", {BROKEN, PIXELS}),
        "PPM header that is all comment": (b"P6\n#" + b"a" * 3_000_000, {BROKEN}),
    }  # fmt: skip


def strangers() -> dict[str, tuple[bytes, set[Answer]]]:
    """Files that are no accepted image, whatever their content type says."""
    bodies = {
        "text": b"hello\n" * 50, "HTML": b"<html><img src=x></html>", "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "PDF": b"%PDF-1.7\n" + bytes(200), "zip": b"PK\x03\x04" + bytes(200), "ELF": b"\x7fELF\x02\x01" + bytes(200),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "ICO": b"\0\0\1\0\1\0" + bytes(80),
        "plain PPM": b"P3 1 1 255\n1 2 3\n", "PSD": b"8BPS\0\1" + bytes(80), "HEIC": b"\0\0\0\x18ftypheic" + bytes(80),
        "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(80), "FITS": b"SIMPLE  =" + b" " * 71,
        ".cdc": b"\x8fCDC\r\n\x1a\n\1",
    }  # fmt: skip
    return {f"{name} file": (body, {NOT_IMAGE}) for name, body in bodies.items()}


def odd() -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Valid files that are rare, and the size of their image."""
    keyed = picture().quantize(16)
    keyed.info["transparency"] = 3
    wide = Image.fromarray((np.arange(48 * 40).reshape(40, 48) * 34).astype(np.uint16))
    files = {
        "CMYK JPEG": save(picture(mode="CMYK"), "JPEG"),
        "grey JPEG": save(picture(mode="L"), "JPEG"),
        "progressive JPEG": save(picture(), "JPEG", progressive=True),
        "16-bit grey PNG": save(wide),
        "16-bit grey TIFF": save(wide, "TIFF"),
        "palette PNG with transparency": save(keyed, transparency=3),
        "LA PNG": save(translucent().convert("LA")),
        "RGBA PNG": save(translucent()),
        "fully transparent PNG": save(Image.new("RGBA", SIDES)),
        "1-bit PNG": save(picture(mode="1")),
        "interlaced PNG": png(8, 8, 8, 0, zlib.compress(bytes(64 + 15)), interlace=1),
        "lossless WebP with alpha": save(translucent(), "WEBP", lossless=True),
        "fax TIFF": save(picture(mode="1"), "TIFF", compression="group4"),
        "LZW TIFF": save(picture(), "TIFF", compression="tiff_lzw"),
        "16-bit PGM": save(wide, "PPM"),
        "JPEG with a broken profile": save(picture(), "JPEG", icc_profile=b"\xff" * 3000),
        "PNG with a cut profile": save(picture(), icc_profile=struct.pack(">I", 9999) + b"lcms" + bytes(200)),
        "JPEG with broken EXIF": save(picture(), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 60),
        "PNG with bytes behind it": save(picture()) + bytes(1000),
        "JPEG with a zip behind it": save(picture(), "JPEG") + b"PK\x03\x04" + bytes(300),
    }
    out = {name: (body, SIDES) for name, body in files.items()}
    out["interlaced PNG"] = files["interlaced PNG"], (8, 8)
    for size in ((1, 1), (1, 4000), (4000, 1)):
        for kind in ("PNG", "JPEG", "WEBP"):
            out[f"{kind} of {size[0]}x{size[1]}"] = save(picture(*size), kind), size
    for orientation in range(1, 9):
        kind = ("JPEG", "PNG", "WEBP", "TIFF")[orientation % 4]
        turned = SIDES[::-1] if orientation >= 5 else SIDES
        out[f"{kind} of orientation {orientation}"] = oriented(orientation, kind), turned
    return out


def fixed() -> list[Case]:
    """One case of each kind that involves no chance."""
    cases = []
    for name, (body, allowed) in (bombs() | strangers()).items():
        cases.append(Case(name, "/encode", body, frozenset(allowed), SIDES if OK in allowed else None))
    cases += [Case(name, "/encode", body, frozenset({OK}), size) for name, (body, size) in odd().items()]
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        cases.append(Case(f"animated {kind}", "/encode", frames(kind), frozenset({ANIMATED})))
        cases.append(Case(f"animated {kind}, first frame", "/encode", frames(kind), frozenset({OK}), SIDES, FIRST))
    cases.append(Case("no bytes", "/encode", b"", frozenset({NO_BODY})))
    cases.append(Case("float TIFF", "/encode", save(picture(mode="F"), "TIFF"), frozenset({NOT_IMAGE})))
    refused = frozenset({WRONG_TYPE})
    cases.append(Case("image sent as text", "/encode", save(picture()), refused, content_type="text/plain"))
    for kind in KINDS:
        data = save(picture(), kind)
        cases.append(Case(f"{kind} cut in the middle", "/encode", data[: len(data) // 2], frozenset({BROKEN})))
    return cases


def chance(rng: random.Random, count: int) -> list[Case]:
    """Accepted kinds, cut short (refused) or with bytes changed (anything but a failure)."""
    out = []
    for i in range(count):
        kind = KINDS[i // 2 % len(KINDS)]
        data = save(picture(), kind)
        if i % 2 == 0:
            cut = rng.randrange(12, len(data) * 3 // 4)
            out.append(Case(f"{kind} cut short", "/encode", data[:cut], frozenset({BROKEN})))
        else:
            changed = bytearray(data)
            for position in rng.sample(range(len(data)), rng.randint(1, 8)):
                changed[position] = rng.randrange(256)
            out.append(Case(f"{kind} with bytes changed", "/encode", bytes(changed), ANY))
    return out


def hostile_images(count: int, seed: int = 0) -> list[Case]:
    """Return `count` requests: one of each kind as far as that goes, at least an eighth damaged by chance."""
    rng = random.Random(seed)
    certain = fixed()
    rng.shuffle(certain)
    certain = certain[: count - count // 8]
    cases = certain + chance(rng, count - len(certain))
    rng.shuffle(cases)
    return cases
