"""What is measured: a coder turns pixels into a real file and back. Our own models; baselines are in `baselines`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from model.codec import Codec
    from model.types import Latents, Pixels

Value = int | float | str
Parameters = Mapping[str, Value]


@dataclass(frozen=True)
class Encoded:
    """A file and the seconds that writing it took."""

    data: bytes
    seconds: float


@dataclass(frozen=True)
class Decoded:
    """Pixels uint8 [H, W, 3] and the seconds that decoding them took."""

    pixels: Pixels
    seconds: float


class Coder(Protocol):
    """A codec as the runner sees it.

    Attributes:
        name, label: as typed and stored, as printed.
        version: whatever besides the parameters decides the bytes and the pixels; part of every cache key.
        heavy: runs in the runner's own process (networks); others may be sent to further processes.
        points: the parameters of each measured point, in order of the rate.
    """

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def heavy(self) -> bool: ...
    @property
    def points(self) -> Sequence[Parameters]: ...

    def encode(self, pixels: Pixels, parameters: Parameters) -> Encoded:
        """Write a file of uint8 [H, W, 3]."""
        ...

    def decode(self, data: bytes, parameters: Parameters) -> Decoded:
        """Read a file that `encode` wrote with these parameters."""
        ...


def timed_encode(work: Callable[[], bytes]) -> Encoded:
    """Run and time."""
    start = time.perf_counter()
    data = work()
    return Encoded(data, time.perf_counter() - start)


def timed_decode(work: Callable[[], Pixels]) -> Decoded:
    """Run and time."""
    start = time.perf_counter()
    pixels = work()
    return Decoded(pixels, time.perf_counter() - start)


@dataclass(frozen=True)
class Mode:
    """How a file is decoded: denoising steps, standard deviation of the start noise, seed (None: the file's own)."""

    steps: int = 1
    gamma: float = 0.0
    seed: int | None = None


@dataclass
class Model:
    """An installed model at a list of qualities and modes. It is loaded when it is first needed.

    A file does not depend on the mode, and all qualities share one analysis, so the last image's are kept.
    """

    name: str
    version: str
    points: Sequence[Parameters]
    folder: Path | None
    device: str = "cpu"
    heavy: bool = True
    label: str = ""
    _last: tuple[Pixels, Latents, float] | None = field(default=None, repr=False)

    def encode(self, pixels: Pixels, parameters: Parameters) -> Encoded:
        """Write the file; the seconds include the analysis, which is done once for all qualities."""
        from model.rate_control import pack_to_target

        codec = _loaded(self.folder, self.name, self.device)
        if self._last is None or self._last[0] is not pixels:
            start = time.perf_counter()
            latents = codec.analyse(pixels)
            self._last = pixels, latents, time.perf_counter() - start
        _, latents, seconds = self._last
        quality = parameters.get("quality")
        packed = timed_encode(lambda: pack_to_target(codec, latents, quality=_whole(quality)).data)
        return Encoded(packed.data, packed.seconds + seconds)

    def decode(self, data: bytes, parameters: Parameters) -> Decoded:
        """Run every denoising step."""
        codec = _loaded(self.folder, self.name, self.device)
        steps, gamma = int(parameters["steps"]), float(parameters["gamma"])
        return timed_decode(lambda: codec.decode(data, steps, gamma, _whole(parameters.get("seed"))))


def models(
    names: Sequence[str],
    qualities: Sequence[int],
    modes: Sequence[Mode],
    folder: Path | None = None,
    device: str = "cpu",
    eps_steps: int = 0,
) -> list[Model]:
    """Installed models of these names ("all": every one), each at every quality and mode.

    With `eps_steps` models of cdc-eps take so many steps in every mode.

    Raises:
        UnknownModel: a name that is not installed.
    """
    from model.architecture import architecture_of
    from model.weights.registry import Registry

    registry = Registry(folder)
    infos = {i.name: i for i in registry.infos()}
    chosen = list(infos) if "all" in names else list(names)
    found = []
    for name in chosen:
        digest = hashlib.sha256(registry.path(name).read_bytes()).hexdigest()[:12]
        info = infos[name]
        kind = architecture_of(info.architecture)
        points: list[Parameters] = []
        own = modes
        if eps_steps and info.architecture == "cdc-eps":
            own = list(dict.fromkeys(replace(mode, steps=eps_steps) for mode in modes))
        for mode in own:
            common: dict[str, Value] = {"steps": mode.steps, "gamma": mode.gamma}
            if mode.seed is not None:
                common["seed"] = mode.seed
            points += [common] if kind.fixed_rate else [{"quality": q, **common} for q in qualities]
        # A retrained decoder is another codec even where its version is the same.
        found.append(Model(name, f"{info.version}-{digest}-{device}", points, folder, device, label=name))
    return found


@cache
def _loaded(folder: Path | None, name: str, device: str) -> Codec:
    from model.weights.registry import Registry

    return Registry(folder, "float32", device).get(name)


def _whole(value: Value | None) -> int | None:
    return None if value is None else int(value)
