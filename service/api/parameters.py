"""Parameters of a call, from its query and from the fields of a multipart form: each once, none passed over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

Q = TypeVar("Q", bound=BaseModel)


async def given_once(request: Request) -> None:
    """Refuse a query that gives a parameter twice, a dependency of routes. Raises RequestValidationError.

    A coroutine, since FastAPI runs any other dependency in a thread.
    """
    counted = Counter(name for name, _ in request.query_params.multi_items())
    twice = [name for name, count in counted.items() if count > 1]
    if twice:
        raise RequestValidationError([_fault("query", name, "is given more than once") for name in twice])


def with_fields(query: Q, given: Mapping[str, str], fields: Mapping[str, str]) -> Q:
    """Return the parameters of a query together with those of a form.

    Args:
        query: what the query says, validated.
        given: the query's own values.
        fields: of the form, but for the file.

    Raises:
        RequestValidationError: a field is unknown or out of range, or the query has it too.
    """
    if not fields:
        return query
    twice = [name for name in fields if name in given]
    if twice:
        raise RequestValidationError([_fault("form", name, "is in the query too: give it once") for name in twice])
    try:
        return type(query).model_validate({**given, **fields})
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("form", *fault["loc"])} for fault in error.errors()]) from None


def _fault(place: str, name: str, message: str) -> dict[str, object]:
    return {"loc": (place, name), "msg": message}
