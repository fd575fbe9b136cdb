"""The `.cdc` file: header, sections, checksum. Needs neither torch nor numpy. The layout is documented in FORMAT.md."""

from model.container.container import Container, Section, SectionType, pack, parse
from model.container.header import Header, read_header
from model.container.space import Space, unpack_space

__all__ = ["Container", "Header", "Section", "SectionType", "Space", "pack", "parse", "read_header", "unpack_space"]
