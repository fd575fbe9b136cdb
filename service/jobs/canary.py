"""New weights on a share of the traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from service.engine.port import ModelInfo
from service.settings import Settings


@dataclass(frozen=True)
class Canary:
    """A model that takes `percent` of the work that names no model, and none of the rest.

    The file decides, not chance: the same file has the same model each time, so results can be shared and kept.
    """

    name: str
    percent: int

    def choose(self, models: Sequence[ModelInfo], usual: ModelInfo, digest: str) -> str:
        """The name of the model for a file: the canary for its share, where it is among `models`.

        Args:
            models: those that could do it.
            usual: which of them does it without a canary.
            digest: sha256 of the file, hexadecimal.
        """
        if any(m.name == self.name for m in models) and int(digest[:8], 16) % 100 < self.percent:
            return self.name
        others = [m for m in models if m.name != self.name]
        if usual.name != self.name or not others:
            return usual.name
        return max(others, key=lambda m: (m.default, m.version)).name


def canary_of(settings: Settings) -> Canary | None:
    """The canary that the settings name."""
    if settings.canary is None:
        return None
    name, percent = settings.canary.rsplit(":", 1)
    return Canary(name, int(percent))
