"""JSON to records. Validators are built at their first use: an import must not pay for them."""

from __future__ import annotations

from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from cdc_client.errors import CdcError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
_building = Lock()  # threads may share a client, and pydantic builds a schema in one thread alone


def read_json(record: type[T], data: bytes | str) -> T:
    """Return the record that `data` holds. Raises CdcError when it does not."""
    try:
        result: T = _adapter(record).validate_json(data)
    except ValueError as error:  # pydantic's own is one
        raise CdcError(f"the answer is no {record.__name__.strip('_')}: is this a CDC service?") from error
    return result


def _adapter(record: type[Any]) -> TypeAdapter[Any]:
    with _building:
        return _build(record)  # type: ignore[arg-type]


@cache
def _build(record: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(record)
