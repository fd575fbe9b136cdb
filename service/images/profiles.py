"""Writes the ICC profiles that the client's decoder carries: `python -m service.images.profiles`."""

from __future__ import annotations

from pathlib import Path

from model.container import Space
from service.images.spaces import icc_of

FOLDER = Path(__file__).parents[2] / "client" / "cdc_client" / "decoder" / "profiles"


def files() -> dict[str, bytes]:
    """Names and contents."""
    return {f"{space.name.lower().replace('_', '-')}.icc": icc_of(space) for space in Space}


def main() -> None:
    """Write them into the client's package."""
    for name, data in files().items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
