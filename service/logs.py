"""Logs: one JSON object a line, or text on a terminal, with the id of the request in whose course it was written."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import IO, Any

from service.tracing import trace_id

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

# What every LogRecord carries; anything beyond it came in through `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: ts, level, logger, message, request_id, trace_id, fields of `extra=`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(_fields_of(record))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Formats a record for a person: time of day, level unless it is info, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        fields = "".join(f"  {key}={value}" for key, value in _fields_of(record).items())
        text = f"{datetime.fromtimestamp(record.created):%H:%M:%S}  {level}{record.getMessage()}{fields}"
        return text if not record.exc_info else f"{text}\n{self.formatException(record.exc_info)}"


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The ids of the request and of its trace, and the fields of `extra=`."""
    own = {name: value for name, value in (("request_id", request_id.get()), ("trace_id", trace_id())) if value}
    return own | {key: value for key, value in vars(record).items() if key not in _STANDARD}


def configure_logging(level: str = "info", stream: IO[str] | None = None) -> None:
    """Send the logs and warnings of the whole process to `stream` (standard error): text on a terminal, else JSON.

    Header values, query values and bodies are never logged, so neither are keys.
    """
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if stream.isatty() else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"  # the service writes its own access line
