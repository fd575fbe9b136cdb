"""The engine: runs encodes and decodes in a process of its own. Importing it never imports torch."""
