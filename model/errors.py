"""Everything the codec can refuse, by whose fault it is. No torch, no HTTP.

CodecError
|-- FileError                   the bytes handed in are not a file this codec decodes
|   |-- NotACdcFile             no magic: some other kind of file
|   |-- TruncatedFile           the file ends before what its header promises
|   |-- ChecksumMismatch        CRC-32C differs: the file was damaged on the way
|   |-- MalformedFile           a field breaks the rules of the format
|   |-- UnsupportedVersion      a later version of the format, or an unknown critical section
|   `-- CorruptStream           checksum right, yet the entropy-coded symbols make no sense
|-- LimitExceeded               the file or image is larger than the caller allows
|-- UnknownCodec                no installed model has the codec id of the file
|-- UnknownModel                no installed model has that name
|-- TargetUnreachable           no rate of the model meets `target_bpp` or `max_bytes`
|-- InvalidParameter            a parameter outside its range
`-- WeightsError                a weights file that cannot be used
"""

from __future__ import annotations


class CodecError(Exception):
    """Base of every error that `model` raises on purpose. `str(error)` is safe to show to the caller."""


class FileError(CodecError):
    """The bytes handed in are not a `.cdc` file that can be decoded."""


class NotACdcFile(FileError):
    """The magic of a `.cdc` file is missing."""


class TruncatedFile(FileError):
    """The file ends before what its header promises."""


class ChecksumMismatch(FileError):
    """The CRC-32C of the file differs from the one stored in it."""


class MalformedFile(FileError):
    """A field of the file breaks a rule of the format."""


class UnsupportedVersion(FileError):
    """The file needs a later decoder: another format version, or a critical section unknown to this one."""


class CorruptStream(FileError):
    """The checksum is right, but the entropy-coded data cannot have come from an encoder."""


class LimitExceeded(CodecError):
    """The image or file is larger than the caller allows."""


class UnknownCodec(CodecError):
    """No installed model carries the codec id of the file."""


class UnknownModel(CodecError):
    """No installed model has the requested name, or it cannot decode this file's codec id."""


class TargetUnreachable(CodecError):
    """No rate of the model meets the requested size."""


class InvalidParameter(CodecError):
    """A parameter lies outside its documented range."""


class WeightsError(CodecError):
    """A weights file is missing, incomplete or does not match its codec id."""
