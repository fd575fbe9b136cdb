"""Which models are installed, by name and by the codec id of the files they decode."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from weakref import WeakValueDictionary

from model.codec import Codec, Precision
from model.errors import UnknownCodec, UnknownModel, WeightsError
from model.weights.files import WeightsInfo, load_weights, read_info

SHIPPED = Path(__file__).parent
DEFAULT_MODEL = "cdc-lite"


class Registry:
    """Finds weights files and loads each when it is first needed. Safe to share between threads.

    Weights beyond `memory_bytes` are let go of, least recently used first, and read again when they are asked for. Work
    that still runs on a model keeps it alive: until that ends the limit may be exceeded, and asking for the model again
    gives the same one.

    Files are `*.safetensors` of the package's own `weights/` and of `folder`; of two with one name, the higher version
    wins, so better weights are installed by dropping a file into a folder.
    """

    def __init__(
        self,
        folder: Path | None = None,
        precision: Precision = "auto",
        device: str = "cpu",
        memory_bytes: int = 0,
    ) -> None:
        """Look through the folders; `memory_bytes` 0 keeps all models that were loaded.

        Raises:
            WeightsError: a file that is no weights file, or a missing folder.
        """
        self._precision: Precision = precision
        self._device = device
        self._paths: dict[str, Path] = {}
        self._infos: dict[str, WeightsInfo] = {}
        self._memory_bytes = memory_bytes
        self._loaded: OrderedDict[str, Codec] = OrderedDict()  # least recently used first
        self._alive: WeakValueDictionary[str, Codec] = WeakValueDictionary()  # also those that only work still holds
        self._lock = threading.Lock()  # of the two above
        if folder is not None and not folder.is_dir():
            raise WeightsError(f"the models folder {folder} does not exist")
        for path in _files([SHIPPED] if folder is None else [SHIPPED, folder]):
            info = read_info(path)
            known = self._infos.get(info.name)
            if known is None or info.version >= known.version:
                self._infos[info.name], self._paths[info.name] = info, path
        self._loading = {name: threading.Lock() for name in self._infos}

    def infos(self) -> list[WeightsInfo]:
        """Metadata of all installed models, the default first."""
        return sorted(self._infos.values(), key=lambda i: (i.name != DEFAULT_MODEL, i.name))

    def path(self, name: str) -> Path:
        """Return the weights file of an installed model.

        Raises:
            UnknownModel: no such model is installed.
        """
        if name not in self._paths:
            raise UnknownModel(f"no model named {name!r}; installed: {', '.join(i.name for i in self.infos())}")
        return self._paths[name]

    def get(self, name: str | None = None) -> Codec:
        """Return the model of that name, loading it if need be; None asks for the default.

        Raises:
            UnknownModel: no such model is installed.
        """
        name = name or DEFAULT_MODEL
        if name not in self._infos:
            raise UnknownModel(f"no model named {name!r}; installed: {', '.join(i.name for i in self.infos())}")
        with self._loading[name]:  # one thread reads a model; others get theirs meanwhile
            with self._lock:
                codec = self._alive.get(name)
            if codec is None:
                codec = Codec(load_weights(self._paths[name]), self._precision, self._device)
            with self._lock:
                self._keep(name, codec)
            return codec

    def loaded(self) -> list[str]:
        """Names of the models that are kept in memory, least recently used first."""
        with self._lock:
            return list(self._loaded)

    def _keep(self, name: str, codec: Codec) -> None:
        """Make this model the most recently used one, and let go of others beyond the limit."""
        self._loaded[name] = self._alive[name] = codec
        self._loaded.move_to_end(name)
        while self._memory_bytes and len(self._loaded) > 1 and self._held_bytes() > self._memory_bytes:
            self._loaded.popitem(last=False)

    def _held_bytes(self) -> int:
        return sum(codec.bytes for codec in self._loaded.values())

    def for_file(self, codec_id: bytes, name: str | None = None) -> Codec:
        """Return the model that decodes files of `codec_id`: the named one, else the highest version.

        Raises:
            UnknownCodec: no installed model has this codec id.
            UnknownModel: the named model is not installed or has another codec id.
        """
        fitting = [i for i in self.infos() if i.codec_id == codec_id.hex()]
        if name is not None:
            if name in self._infos and name not in (i.name for i in fitting):
                raise UnknownModel(f"model {name!r} cannot decode files of codec id {codec_id.hex()}")
            return self.get(name)
        if not fitting:
            raise UnknownCodec(f"no installed model decodes codec id {codec_id.hex()}")
        return self.get(max(fitting, key=lambda i: i.version).name)


def _files(folders: Iterable[Path]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
