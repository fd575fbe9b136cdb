"""Bodies for schemathesis: images, files of the served model, and damaged ones."""

from __future__ import annotations

import os
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

from tests.service.conftest import image_file, photograph

FILES = [path.read_bytes() for path in sorted(Path(os.environ["CDC_CONTRACT_FILES"]).glob("*.cdc"))]
PICTURES = [
    image_file(photograph(w, h), kind) for w, h in ((1, 1), (24, 16), (33, 65)) for kind in ("PNG", "JPEG", "WEBP")
]


def _damaged(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Some bytes replaced, or the end cut off."""
    return st.builds(
        lambda data, place, byte, cut: (data[: place % len(data)] + bytes([byte]) + data[place % len(data) + 1 :])[
            : len(data) - cut
        ],
        whole,
        st.integers(0, 10**6),
        st.integers(0, 255),
        st.sampled_from([0, 0, 0, 1, 7]),
    ).filter(bool)


pictures, files = st.sampled_from(PICTURES), st.sampled_from(FILES)
schemathesis.openapi.media_type("image/*", st.one_of(pictures, pictures, _damaged(pictures)))
schemathesis.openapi.media_type("image/x-cdc", st.one_of(files, files, _damaged(files)))
schemathesis.openapi.media_type(
    "application/octet-stream", st.one_of(pictures, files, _damaged(pictures), _damaged(files))
)
