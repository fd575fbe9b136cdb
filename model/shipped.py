"""Where the shipped files lie that are served or read without torch."""

from __future__ import annotations

from pathlib import Path


def decoder_folder() -> Path:
    """The folder of what decoders without torch need of the shipped model (`model.weights.decoder_export`)."""
    return Path(__file__).parent / "weights" / "decoder"
