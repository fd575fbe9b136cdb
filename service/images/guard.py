"""Pillow kept in check: its limits, its warnings, its errors."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from model.errors import CodecError
from service.errors import BrokenImage, ServiceError, TooManyPixels

# Sizes are checked against the configured limit; Pillow's own check only warns below twice its constant.
Image.MAX_IMAGE_PIXELS = None
_PIL_MODULES = re.compile(r"PIL\.")


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn whatever Pillow raises into one of the service's errors, and keep its warnings quiet."""
    quiet = ("ignore", None, Warning, _PIL_MODULES, 0)
    if quiet not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PIL_MODULES.pattern)
    try:
        yield
    except (ServiceError, CodecError):
        raise
    except MemoryError as error:
        raise TooManyPixels("there is no memory for an image of this size") from error
    except Exception as error:
        # Pillow's decoders raise OSError, ValueError, SyntaxError, struct.error, zlib.error, OverflowError,
        # IndexError, KeyError and more for damaged data: a list of them would always lack one.
        raise BrokenImage("the image is damaged or cut short") from error
