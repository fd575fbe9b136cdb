"""Who made an image and what may be done with it: the fields of XMP and IPTC that stay, as one XMP packet.

EXIF's own, Artist and Copyright, stay in the EXIF section (`service.images.exif`).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from xml.sax.saxutils import escape

MAX_XMP_BYTES = 65_000  # of a packet that is read: what fits a JPEG's segment; extended XMP is not read
MAX_VALUE = 2000  # characters of a field
MAX_VALUES = 20  # of a list
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_SPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
}
# An allow-list (XMP part 1, 8.3 and 8.5; IPTC Photo Metadata 2023.1): field -> the container of its values.
_FIELDS = {
    "dc:creator": "Seq",
    "dc:rights": "Alt",
    "photoshop:Credit": "",
    "xmpRights:Marked": "",
    "xmpRights:Owner": "Bag",
    "xmpRights:UsageTerms": "Alt",
    "xmpRights:WebStatement": "",
}
_IPTC = {80: "dc:creator", 110: "photoshop:Credit", 116: "dc:rights"}  # data sets of record 2 (IIM 4.2)
_IRB = re.compile(rb"8BIM\x04\x04")  # Photoshop's image resource of IPTC data
_CONTROLS = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # not of XML 1.0

Fields = Mapping[str, tuple[str, ...]]


def rights_packet(xmp: bytes | None, iptc: bytes | None) -> bytes | None:
    """An XMP packet of the fields that stay, None where there are none. Damaged blocks say nothing.

    Args:
        xmp: the packet of the file.
        iptc: IPTC-IIM data, or Photoshop's image resources with it; what XMP says comes before it (IPTC's guideline).
    """
    fields = {**_fields_of_iptc(iptc or b""), **_fields_of_xmp(xmp or b"")}
    if not fields:
        return None
    lines = [_element(name, values) for name, values in sorted(fields.items())]
    names = "".join(f' xmlns:{prefix}="{uri}"' for prefix, uri in _SPACES.items())
    packet = (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        f'<rdf:RDF xmlns:rdf="{_RDF}"><rdf:Description rdf:about=""{names}>{"".join(lines)}'
        '</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()
    return packet if len(packet) <= MAX_XMP_BYTES else None


def _fields_of_xmp(packet: bytes) -> Fields:
    """The fields of a packet: as elements, or as attributes of rdf:Description (XMP part 1, 7)."""
    if not 0 < len(packet) <= MAX_XMP_BYTES:
        return {}
    try:
        text = packet.decode("utf-8-sig").strip("\0 \r\n\t")
        if "<!doctype" in text.lower() or "<!entity" in text.lower():
            return {}  # without a document type nothing expands
        root = ElementTree.fromstring(text)  # noqa: S314
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError, RecursionError):
        return {}
    wanted = {f"{{{_SPACES[name.split(':')[0]]}}}{name.split(':')[1]}": name for name in _FIELDS}
    found: dict[str, tuple[str, ...]] = {}
    for description in root.iter(f"{{{_RDF}}}Description"):
        for key, value in description.attrib.items():
            _add(found, wanted.get(key), [value])
        for element in description:
            items = [item.text or "" for item in element.iter(f"{{{_RDF}}}li")]
            _add(found, wanted.get(element.tag), items or [element.text or ""])
    return found


def _fields_of_iptc(data: bytes) -> Fields:
    """The fields of record 2 (IIM 4.2, 1.6): 1C, record, data set, length, value."""
    if (at := _IRB.search(data)) is not None:
        length = data[at.end() : at.end() + 1]
        start = at.end() + (1 + length[0] + 1) // 2 * 2 if length else len(data)  # a Pascal string, padded to even
        size = int.from_bytes(data[start : start + 4], "big")
        data = data[start + 4 : start + 4 + size]
    found: dict[str, tuple[str, ...]] = {}
    at_byte = 0
    while data[at_byte : at_byte + 1] == b"\x1c" and at_byte + 5 <= len(data):
        record, dataset = data[at_byte + 1], data[at_byte + 2]
        size = int.from_bytes(data[at_byte + 3 : at_byte + 5], "big")
        if size & 0x8000:
            break  # an extended data set: images of megabytes, none of ours
        value = data[at_byte + 5 : at_byte + 5 + size]
        if record == 2:
            name = _IPTC.get(dataset)
            known = found.get(name or "", ())
            _add(found, name, [*known, _decoded(value)])
        at_byte += 5 + size
    return found


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _add(found: dict[str, tuple[str, ...]], name: str | None, values: list[str]) -> None:
    if name is None:
        return
    cleaned = (_CONTROLS.sub("", value).strip()[:MAX_VALUE] for value in values[:MAX_VALUES])
    kept = tuple(value for value in cleaned if value)
    if kept:
        found[name] = kept


def _element(name: str, values: tuple[str, ...]) -> str:
    container = _FIELDS[name]
    if not container:
        return f"<{name}>{escape(values[0])}</{name}>"
    language = ' xml:lang="x-default"' if container == "Alt" else ""
    shown = values[:1] if container == "Alt" else values
    items = "".join(f"<rdf:li{language}>{escape(value)}</rdf:li>" for value in shown)
    return f"<{name}><rdf:{container}>{items}</rdf:{container}></{name}>"
