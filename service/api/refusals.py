"""What is wrong with a request as such, before the codec sees it.

RequestError
|-- MalformedRequest         the body or a header cannot be understood
|-- EmptyBody                there is no body
|-- SlowBody                 the body did not arrive in time
|-- UnsupportedMediaType     a content type or encoding that the route does not take
`-- NotAcceptable            no format the caller accepts can be made
"""

from __future__ import annotations

from service.errors import ServiceError


class RequestError(ServiceError):
    """The request itself cannot be served."""


class MalformedRequest(RequestError):
    """The body or a header cannot be understood."""


class EmptyBody(RequestError):
    """There is no body."""


class SlowBody(RequestError):
    """The body did not arrive in time."""


class UnsupportedMediaType(RequestError):
    """The route does not take that content type or content encoding."""


class NotAcceptable(RequestError):
    """None of the formats the caller accepts can be made."""
