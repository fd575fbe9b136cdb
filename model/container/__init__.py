"""The `.cdc` file: header, sections, checksum. Needs neither torch nor numpy. The layout is documented in FORMAT.md."""

from model.container.container import Container, Section, SectionType, pack, parse
from model.container.header import Header, read_header

__all__ = ["Container", "Header", "Section", "SectionType", "pack", "parse", "read_header"]
