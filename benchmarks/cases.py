"""What the hostile bar sends and what may come back."""

from __future__ import annotations

from dataclasses import dataclass, field

Answer = tuple[int, str]  # status and the last part of the problem's type; "" for an answer that is no problem

OK: Answer = (200, "")
NO_BODY: Answer = (400, "empty-body")
NOT_CDC: Answer = (415, "not-a-cdc-file")
NOT_IMAGE: Answer = (415, "unsupported-image")
WRONG_TYPE: Answer = (415, "unsupported-media-type")
CUT: Answer = (422, "truncated-file")
CHECKSUM: Answer = (422, "checksum-mismatch")
MALFORMED: Answer = (422, "malformed-file")
VERSION: Answer = (422, "unsupported-version")
CODEC: Answer = (422, "unknown-codec")
STREAM: Answer = (422, "corrupt-stream")
PIXELS: Answer = (422, "too-many-pixels")
BROKEN: Answer = (422, "broken-image")
ANIMATED: Answer = (422, "animated-image")


@dataclass(frozen=True)
class Case:
    """One request.

    Attributes:
        kind: row of the table of answers.
        route: /encode, /decode or /inspect.
        body: what is sent.
        allowed: answers that are right.
        size: width and height that an answer of 200 must name; None when any image within the limit is right.
        query: of the address.
        content_type: None sends none.
        sealed: a damaged `.cdc` file whose checksum is right.
    """

    kind: str
    route: str
    body: bytes
    allowed: frozenset[Answer]
    size: tuple[int, int] | None = None
    query: dict[str, str] = field(default_factory=dict)
    content_type: str | None = "application/octet-stream"
    sealed: bool = False
