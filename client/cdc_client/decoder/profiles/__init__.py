"""ICC profiles of the spaces that a file can name, as the service writes them (`python -m service.images.profiles`)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from cdc_client.decoder.container import space_of


@cache
def profile_of(colour: bytes | None) -> bytes | None:
    """The profile of a COLOUR section, some 500 bytes; None without a section: sRGB. Raises UnreadableFile."""
    return None if colour is None else (files(__package__) / f"{space_of(colour)}.icc").read_bytes()
