"""A `.cdc` file taken apart, so that each field can be given any value, or written from any symbols.

Every file made here has a right checksum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import google_crc32c
import numpy as np
import torch

from model.config import padded
from model.container import Header, Section, SectionType, pack, parse
from model.entropy.entropy_model import EntropyModel
from model.varint import decode_varint, encode_varint
from model.weights.files import load_weights
from model.weights.registry import SHIPPED


@dataclass(frozen=True)
class Raw:
    """A file taken apart into fields that may hold nonsense."""

    magic: bytes
    version: bytes
    codec_id: bytes
    sides: tuple[bytes, bytes]
    rate: int
    sections: tuple[tuple[int, bytes, bytes], ...]  # type, length as stored, data
    end: bytes = b"\0"

    @classmethod
    def of(cls, data: bytes) -> Raw:
        """Take a valid file apart."""
        header, sections = parse(data).header, parse(data).sections
        stored = tuple((s.type, encode_varint(len(s.data)), s.data) for s in sections)
        sides = encode_varint(header.width), encode_varint(header.height)
        return cls(data[:8], data[8:9], header.codec_id, sides, header.rate, stored)

    def sealed(self) -> bytes:
        """The file with a right checksum."""
        body = b"".join((self.magic, self.version, self.codec_id, *self.sides, bytes([self.rate])))
        body += b"".join(bytes([kind]) + length + data for kind, length, data in self.sections) + self.end
        checksum: int = google_crc32c.value(body)
        return body + checksum.to_bytes(4, "little")

    def sized(self, width: int, height: int) -> Raw:
        return replace(self, sides=(encode_varint(width), encode_varint(height)))

    def data(self, kind: int) -> bytes:
        return next(data for k, _, data in self.sections if k == kind)

    def with_data(self, kind: int, data: bytes) -> Raw:
        """The file with other data in one section, its length put right."""
        return self.with_sections(
            [(k, encode_varint(len(data)), data) if k == kind else (k, n, d) for k, n, d in self.sections]
        )

    def with_sections(self, sections: list[tuple[int, bytes, bytes]]) -> Raw:
        return replace(self, sections=tuple(sections))


def split(stream: bytes) -> tuple[bytes, bytes]:
    """Escape bytes and words of a stream."""
    length, offset = decode_varint(stream, 0)
    return stream[offset : offset + length], stream[offset + length :]


def joined(escapes: bytes, words: bytes) -> bytes:
    return encode_varint(len(escapes)) + escapes + words


@cache
def entropy_model() -> EntropyModel:
    """The entropy coder of the shipped model."""
    return load_weights(SHIPPED / "cdc-lite.safetensors").entropy


def written(width: int, height: int, rate: int, largest: int, seed: int = 0) -> bytes:
    """A well-formed file whose symbols are drawn evenly from -largest..largest, 0 giving a flat image.

    Those that a file cannot hold, of silent scale indices, are zero.
    """
    entropy = entropy_model()
    rng = np.random.default_rng(seed)
    rows, columns = padded(height) // 64, padded(width) // 64
    hyper = rng.integers(-largest, largest, (len(entropy.medians), rows, columns), np.int32, endpoint=True)
    shape = (entropy.head.latents, 4 * rows, 4 * columns)
    latent = rng.integers(-largest, largest, shape, np.int32, endpoint=True)
    given = torch.from_numpy(latent[None]).float()
    latents, _, indices = entropy.choose_latents(given, hyper[None], [rate], worth=0)
    streams = entropy.encode_hyper(hyper), entropy.encode_latent(latents[0], indices[0])
    sections = [Section(SectionType.HYPER, streams[0]), Section(SectionType.LATENT, streams[1])]
    return pack(Header(entropy.codec_id, width, height, rate), sections)
