"""`metadata=copyright`: who made an image and what may be done with it stays, and nothing else."""

from __future__ import annotations

import struct
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.images.rights import MAX_XMP_BYTES, rights_packet
from service.images.writing import write_image
from service.work import Format
from tests.service.conftest import image_file, photograph
from tests.service.images.builders import read, with_segments

NAMES = (
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
)


def packet(elements: str, attributes: str = "") -> bytes:
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
        f'{NAMES}><rdf:Description rdf:about="" {attributes}>{elements}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


XMP = packet(
    "<dc:creator><rdf:Seq><rdf:li>Ada &amp; Bob</rdf:li><rdf:li>Carol</rdf:li></rdf:Seq></dc:creator>"
    '<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">© Ada</rdf:li></rdf:Alt></dc:rights>'
    "<exif:GPSLatitude>48,12.5N</exif:GPSLatitude>",
    'xmpRights:WebStatement="https://example.org/licence" photoshop:City="Here"',
)


def dataset(number: int, value: bytes, record: int = 2) -> bytes:
    return b"\x1c" + bytes([record, number]) + struct.pack(">H", len(value)) + value


def photoshop(iptc: bytes) -> bytes:
    return (
        b"8BIM\x03\xed\0\0" + struct.pack(">I", 2) + b"xx" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(iptc)) + iptc
    )


IPTC = dataset(90, b"Somewhere") + dataset(80, b"Dora") + dataset(80, "Él".encode("latin-1")) + dataset(116, b"(c) D")


def test_xmp_keeps_rights_alone() -> None:
    found = rights_packet(XMP, None)
    assert found is not None
    text = found.decode()
    for kept in ("Ada &amp; Bob", "Carol", "© Ada", "https://example.org/licence"):
        assert kept in text
    for dropped in ("GPS", "48,12", "Here"):
        assert dropped not in text
    assert rights_packet(found, None) == found


def test_iptc_fills_what_xmp_lacks() -> None:
    for data in (IPTC, photoshop(IPTC)):
        text = (rights_packet(None, data) or b"").decode()
        assert "<rdf:li>Dora</rdf:li><rdf:li>Él</rdf:li>" in text
        assert "(c) D" in text
        assert "Somewhere" not in text
    both = (rights_packet(packet("<dc:rights>© Ada</dc:rights>"), IPTC) or b"").decode()
    assert "© Ada" in both
    assert "(c) D" not in both
    assert "Dora" in both


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_file_of_each_kind(kind: str) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x013B], exif[0x8298] = "Maker", "Ada", "© Ada"
    exif[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    options: dict[str, object] = {"exif": exif, "xmp": XMP}
    if kind == "PNG":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"exif": exif, "pnginfo": chunks}
    elif kind == "TIFF":
        options = {"tiffinfo": {700: XMP, 0x013B: "Ada", 0x8298: "© Ada", 0x010F: "Maker"}}
    data = image_file(photograph(), kind, **options)
    found = read(data, metadata="copyright")
    assert found.xmp == rights_packet(XMP, None)
    assert found.exif is not None
    kept = Image.Exif()
    kept.load(found.exif)
    assert set(kept) == {0x013B, 0x8298}
    assert (read(data).xmp, read(data).exif) == (None, None)
    assert read(data, metadata="keep").xmp == found.xmp


def test_iptc_of_a_jpeg() -> None:
    data = with_segments(image_file(photograph(), "JPEG"), (0xED, b"Photoshop 3.0\0" + photoshop(IPTC)))
    assert read(data, metadata="copyright").xmp == rights_packet(None, IPTC)


@pytest.mark.parametrize("format", ["png", "webp", "jpeg"])
def test_written_files_have_it(format: Format) -> None:
    xmp = rights_packet(XMP, None)
    data = write_image(np.array(photograph()), None, None, format, xmp=xmp)
    assert read(data, metadata="copyright").xmp == xmp
    image = Image.open(BytesIO(data))
    assert "© Ada" in str(image.getxmp())
    plain = write_image(np.array(photograph()), None, None, format)
    assert write_image(np.array(photograph()), None, None, format, xmp=b"x" * (MAX_XMP_BYTES + 1)) == plain
    assert read(write_image(np.array(photograph()), None, None, format, xmp=b"\xff\0<"), metadata="keep").xmp is None


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\xff\xfe<",
        b"<x",
        XMP[:-40],
        BOMB.encode() + XMP,
        XMP.decode().encode("utf-16"),
        b"<a>" * 20_000,
        XMP.replace(b"Carol", b"x" * MAX_XMP_BYTES),
        packet("<dc:rights/><dc:creator><rdf:Seq/></dc:creator>"),
        packet("<dc:rights>\x01</dc:rights>"),
    ],
)
def test_damaged_packets_say_nothing(damaged: bytes) -> None:
    start = time.perf_counter()
    assert rights_packet(damaged, None) is None
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\x1c", b"\x1c\x02\x50\xff\xff", b"8BIM\x04\x04", b"8BIM\x04\x04\xff", b"\x1c\x02\x74\0\x05ab"[:5]],
)
def test_damaged_iptc_says_nothing(damaged: bytes) -> None:
    assert rights_packet(None, damaged) is None


def test_fields_are_bounded() -> None:
    many = packet("<dc:creator><rdf:Seq>" + "<rdf:li>name</rdf:li>" * 1000 + "</rdf:Seq></dc:creator>")
    assert (rights_packet(many, None) or b"").count(b"<rdf:li>") == 20
    long = rights_packet(packet(f"<dc:rights>{'r' * 5000}</dc:rights>"), None)
    assert long is not None
    assert long.count(b"r" * 2000) == 1
    assert b"r" * 2001 not in long
