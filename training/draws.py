"""Keys of everything random about an example of a task: one 64-bit key, and one derived from it for each purpose.

The key comes from the mixture's seed, the task's name, the first 16 hex digits of the example's id and the epoch, by
integer arithmetic that Python and NumPy do alike (`omnimill.rng.subkey`).
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
import pyarrow as pa

from omnimill.errors import IntegrityError
from omnimill.rng import UInt64s, digest64, subkey, subkey_many

# Hex digits of an id that enter the key.
_DIGITS = 16


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
        IntegrityError: the id does not begin with 16 hex digits.
    """
    try:
        word = bytes.fromhex(example_id[:_DIGITS])
    except ValueError:
        word = b""
    if len(word) != _DIGITS // 2:
        raise _not_an_id(example_id)
    return subkey(task, int.from_bytes(word, "big"), epoch)


def example_keys(task: int, words: UInt64s, epochs: UInt64s) -> UInt64s:
    """:func:`example_key` of many examples; `words` are their :func:`id_words`."""
    return subkey_many(task, words, epochs)


def id_words(ids: pa.StringArray) -> UInt64s:
    """The first 16 hex digits of every id as a number.

    Raises:
        IntegrityError: an id does not begin with 16 hex digits.
    """
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1].astype(np.int64)
    if not len(ids):
        return np.empty(0, np.uint64)
    short = np.flatnonzero(np.diff(offsets) < _DIGITS)
    if len(short):
        raise _not_an_id(ids[int(short[0])].as_py())
    text = np.frombuffer(ids.buffers()[2], np.uint8)
    digits = _VALUES[text[offsets[:-1, None] + np.arange(_DIGITS)]]
    wrong = np.flatnonzero((digits > 15).any(axis=1))
    if len(wrong):
        raise _not_an_id(ids[int(wrong[0])].as_py())
    pairs = (digits[:, 0::2] << 4) | digits[:, 1::2]
    words: UInt64s = np.ascontiguousarray(pairs).view(">u8").reshape(-1).astype(np.uint64)
    return words


def _not_an_id(found: str) -> IntegrityError:
    return IntegrityError(f"an example's id begins with {_DIGITS} hex digits; found {found!r}")


# Value of every byte as a hex digit, 255 for bytes that are none.
_VALUES = np.full(256, 255, np.uint8)
for _value, _digit in enumerate(b"0123456789abcdef"):
    _VALUES[_digit] = _VALUES[ord(chr(_digit).upper())] = _value
