"""Checkpoint files of others as tensors by name: safetensors and PyTorch's own format, in one file or several.

Nothing in a file is executed: PyTorch's format is read with ``weights_only``, which knows tensors and plain containers.
"""

from __future__ import annotations

import json
import pickle
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from omnimill.config import digest_json
from omnimill.errors import OmnimillError
from omnimill.infra import storage

# What a folder is searched for, in this order.
FOLDER_NAMES = (
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
# Keys that training programs put a network's tensors under.
_NESTED = ("state_dict", "generator", "model")


class Checkpoint:
    """Tensors of one checkpoint, read when they are asked for.

    Args:
        url: a file (safetensors when its name ends so, PyTorch otherwise), an index of several files
            (``….index.json``), or a folder that holds one of `FOLDER_NAMES`.
        scratch: folder for what is not on this machine.

    Raises:
        OmnimillError: there is no such file, or it is none of these.
    """

    def __init__(self, url: str, scratch: Path) -> None:
        self.url = _file(url)
        self._scratch = scratch
        self._paths: dict[str, Path] = {}
        self._loaded: dict[str, dict[str, Tensor]] = {}
        self._place = self._places()
        self.names = tuple(self._place)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of some of `names`, as stored."""
        by_file: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_file[self._place[name]].append(name)
        return {name: tensor for file, wanted in by_file.items() for name, tensor in self._read(file, wanted).items()}

    def digest(self, names: Iterable[str]) -> str:
        """Over the content of the files that hold these tensors."""
        return digest_json(sorted(storage.digest_files(sorted({self._place[name] for name in names}))))

    def _places(self) -> dict[str, str]:
        """The file of every tensor."""
        if not self.url.endswith(".json"):
            return dict.fromkeys(self._names(self.url), self.url)
        try:
            placed = json.loads(storage.read_bytes(self.url))["weight_map"]
            files = {str(name): str(file) for name, file in placed.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise OmnimillError(f"{self.url}: not an index of checkpoint files, it has no weight_map") from None
        if bad := sorted({file for file in files.values() if "/" in file or "\\" in file}):
            raise OmnimillError(f"{self.url}: files must lie beside the index, found {bad[0]!r}")
        folder = self.url.rpartition("/")[0] or "."
        return {name: storage.join(folder, file) for name, file in files.items()}

    def _names(self, file: str) -> list[str]:
        if not file.endswith(".safetensors"):
            return list(self._torch(file))
        with _readable(file), safe_open(self._local(file), framework="pt") as content:
            return list(content.keys())

    def _read(self, file: str, names: list[str]) -> dict[str, Tensor]:
        if not file.endswith(".safetensors"):
            tensors = self._torch(file)
            with _readable(file):
                return {name: tensors[name] for name in names}
        with _readable(file), safe_open(self._local(file), framework="pt") as content:
            return {name: content.get_tensor(name) for name in names}

    def _torch(self, file: str) -> dict[str, Tensor]:
        if file not in self._loaded:
            path = self._local(file)
            with _readable(file):
                mapped = zipfile.is_zipfile(path)
                found: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
            if not isinstance(found, dict):
                raise OmnimillError(f"{file}: expected tensors by name, found a {type(found).__name__}")
            inner = next((found[key] for key in _NESTED if isinstance(found.get(key), dict)), found)
            self._loaded[file] = {str(name): value for name, value in inner.items() if isinstance(value, Tensor)}
        return self._loaded[file]

    def _local(self, file: str) -> Path:
        """A path of the file on this machine."""
        if file not in self._paths:
            if storage.is_local(file):
                self._paths[file] = Path(storage.filesystem(file)[1])
            else:
                self._paths[file] = self._scratch / str(len(self._paths))
                with _readable(file):
                    storage.download(file, self._paths[file])
        return self._paths[file]


@contextmanager
def open_checkpoint(url: str) -> Iterator[Checkpoint]:
    """A checkpoint; what had to be fetched for it is removed afterwards."""
    with TemporaryDirectory(prefix="omnimill-checkpoint-") as scratch:
        yield Checkpoint(url, Path(scratch))


def _file(url: str) -> str:
    """The file to begin with."""
    names = storage.list_folder(url)
    if names:
        found = next((name for name in FOLDER_NAMES if name in names), None)
        if found is None:
            raise OmnimillError(f"{url}: the folder holds none of {', '.join(FOLDER_NAMES)}")
        return storage.join(url, found)
    if not storage.exists(url):
        raise OmnimillError(f"{url} does not exist")
    return url


@contextmanager
def _readable(file: str) -> Iterator[None]:
    """Failures of the libraries that read files, as messages."""
    try:
        yield
    except FileNotFoundError:
        raise OmnimillError(f"{file} does not exist") from None
    except pickle.UnpicklingError:
        raise OmnimillError(
            f"{file}: holds more than tensors, which is not read because it could run code; save its tensors as "
            "safetensors where you trust it"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        text = str(error).strip().splitlines()
        raise OmnimillError(
            f"{file}: cannot be read as a checkpoint: {text[0] if text else type(error).__name__}"
        ) from None
