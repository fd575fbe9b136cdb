"""Server-sent events (WHATWG HTML, 9.2): text lines in, events of a job out."""

from __future__ import annotations

import base64
import json

from cdc_client.errors import CdcError
from cdc_client.json import read_json
from cdc_client.records import JobEvent, JobStatus


class EventReader:
    """Collects lines until an event is complete. `last_id` is what a new connection resumes after."""

    def __init__(self) -> None:
        self.last_id: int | None = None
        self._fields: dict[str, str] = {}

    def feed(self, line: str) -> JobEvent | None:
        """Take a line without its end; return the event it completes, if it does. Comments and unknown types pass."""
        if line:
            name, _, value = line.partition(":")
            if name:
                value = value.removeprefix(" ")
                self._fields[name] = f"{self._fields[name]}\n{value}" if name == "data" in self._fields else value
            return None
        fields, self._fields = self._fields, {}
        if not fields.get("id", "").isdigit() or "data" not in fields:
            return None
        try:
            event = _event(int(fields["id"]), fields.get("event", "message"), fields["data"])
        except (ValueError, KeyError, TypeError) as error:  # also binascii's
            raise CdcError("an event makes no sense: is this a CDC service?") from error
        self.last_id = int(fields["id"])
        return event

    def restart(self) -> None:
        """Forget the half event of a connection that broke."""
        self._fields = {}


def _event(id: int, type: str, data: str) -> JobEvent | None:
    if type == "state":
        return JobEvent(id, type, status=read_json(JobStatus, data))
    if type not in ("progress", "preview"):
        return None
    values = json.loads(data)
    image = values.get("image")
    return JobEvent(
        id,
        type,
        step=int(str(values["step"])),
        steps=int(str(values["steps"])),
        image=base64.b64decode(image) if isinstance(image, str) else None,
        media_type=str(values["media_type"]) if "media_type" in values else None,
    )
