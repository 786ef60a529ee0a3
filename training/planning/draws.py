"""Keys of everything random about an example of a task: one 64-bit key, and one derived from it for each purpose.

The key comes from the mixture's seed, the task's name, the first 16 hex digits of the example's id and the epoch, by
integer arithmetic that Python and NumPy do alike (`omnimill.rng.subkey`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache

import numpy as np
import pyarrow as pa

from omnimill.errors import IntegrityError
from omnimill.rng import Int64s, UInt64s, digest64, subkey, subkey_many

# Hex digits of an id.
_DIGITS = 32
_ALL = (1 << 64) - 1


class Purpose(IntEnum):
    """What a draw decides."""

    PROMPT_DROP = 0
    PROMPT = 1
    ITEM = 2
    TEXT = 3
    TARGET_PICTURE = 4
    DENOISER = 5
    WINDOW = 6
    NOISE = 7
    HIDDEN_SHARE = 8
    PATCHES = 9
    RATE = 10
    MOVED = 11
    KEEP_STREAM = 12
    BUDGET = 13
    CODES = 14


@lru_cache
def task_key(seed: int, task: str) -> int:
    """The key that the keys of all examples of a task are derived from."""
    return digest64("recipe", seed, task)


@lru_cache
def role_number(role: str) -> int:
    """A number that stands for a role in keys."""
    return digest64("role", role)


def example_key(task: int, example_id: str, epoch: int) -> int:
    """The key of an example when it is seen for the `epoch`-th time; `task` is a :func:`task_key`.

    Raises:
        IntegrityError: the id is not one.
    """
    words = id_words(pa.array([example_id]))
    return subkey(task, int(words[0, 0]), epoch)


def example_keys(task: int, ids: UInt64s, epochs: Int64s) -> UInt64s:
    """:func:`example_key` of many examples; `ids` are their :func:`id_words`."""
    return subkey_many(task, ids[:, 0], epochs.astype(np.uint64))


def id_words(ids: pa.StringArray) -> UInt64s:
    """Ids of n examples as numbers: uint64 [n, 2], the upper half first.

    Raises:
        IntegrityError: one is not what `omnimill.schema.example_id` makes, 32 hex digits.
    """
    if not len(ids):
        return np.empty((0, 2), np.uint64)
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    wrong = np.diff(offsets) != _DIGITS
    if not wrong.any():
        text = np.frombuffer(ids.buffers()[2], np.uint8)[offsets[0] : offsets[-1]].reshape(-1, _DIGITS)
        digits = _VALUES[text]
        wrong = (digits == _NO_DIGIT).any(axis=1)
    if wrong.any():
        found = ids[int(wrong.argmax())].as_py()
        raise IntegrityError(f"an example's id has {_DIGITS} hex digits in lower case; found {found!r}")
    pairs = (digits[:, 0::2] << 4) | digits[:, 1::2]
    words: UInt64s = np.ascontiguousarray(pairs).view(">u8").astype(np.uint64)
    return words


def id_of(words: Sequence[int]) -> str:
    """An id from its :func:`id_words`, also where these were taken for signed numbers."""
    high, low = words
    return f"{high & _ALL:016x}{low & _ALL:016x}"


# Value of every byte as a hex digit.
_NO_DIGIT = 255
_VALUES = np.full(256, _NO_DIGIT, np.uint8)
_VALUES[list(b"0123456789abcdef")] = np.arange(16)
