"""What spans do to the ids of a text: hidden behind sentinels (T5), or moved to its end (CM3).

Span corruption is that of T5 (arXiv 1910.10683, section 3.1.4), causal masking that of CM3 (arXiv 2201.07520, section
2); neither asks where ids come from, so a joint stream of text and codes can be masked like a text.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omnimill.tokenizers.vocabulary import TextVocabulary

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# The special token of a layout between two modalities of one stream, which no moved span holds.
BREAK = "<break>"


def noise_mask(length: int, noise: int, spans: int, rng: np.random.Generator) -> Mask:
    """Random spans of noise: bool [length], clean first, noise last, runs uniform over all ways to cut."""
    runs = np.empty(2 * spans, np.int64)
    runs[0::2] = _parts(length - noise, spans, rng)
    runs[1::2] = _parts(noise, spans, rng)
    return np.repeat(np.arange(2 * spans) % 2 == 1, runs)


def _parts(total: int, parts: int, rng: np.random.Generator) -> Ids:
    """`total` as a sum of `parts` numbers of at least 1."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupt(ids: Ids, mask: Mask, vocabulary: TextVocabulary) -> tuple[Ids, Ids]:
    """Inputs with every run of noise replaced by one sentinel, targets with every clean run replaced by one."""
    return _replace_runs(ids, mask, vocabulary), _replace_runs(ids, ~mask, vocabulary)


def _replace_runs(ids: Ids, mask: Mask, vocabulary: TextVocabulary) -> Ids:
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    sentinels = vocabulary.sentinels[np.cumsum(starts) - 1]
    result: Ids = np.where(starts, sentinels, ids)[~mask | starts]
    return result


def most_moved(length: int) -> int:
    """How many spans of a text can be moved at most: each has a token, and so has what is between two."""
    return (length + 1) // 2


def move_spans(ids: Ids, spans: int, rng: np.random.Generator, vocabulary: TextVocabulary) -> Ids:
    """Spans of the ids moved to their end: a sentinel in the place of each, and the same one before it at the end.

    The ends of the spans are uniform over all ways to choose them. Of a span with a `BREAK` in it only the longest
    stretch without one is moved, so that what is moved is of one modality; where it is nothing but breaks, nothing.

    Args:
        ids: int64 [n].
        spans: how many, at most :func:`most_moved`.

    Returns:
        int64 [n + 2 * spans].
    """
    order = moved_order(ids, spans, rng, vocabulary)
    found: Ids = np.where(order >= 0, ids[order], vocabulary.sentinels[np.where(order >= 0, 0, -1 - order)])
    return found


def moved_order(ids: Ids, spans: int, rng: np.random.Generator, vocabulary: TextVocabulary) -> Ids:
    """What :func:`move_spans` puts where: places in `ids`, and -1 - k for sentinel k."""
    ends = np.sort(rng.choice(len(ids) + 1, 2 * spans, replace=False)).reshape(spans, 2)
    places = np.arange(len(ids))
    kept, moved, last = [], [], 0
    for number, (start, stop) in enumerate(_within_breaks(ids, ends, vocabulary)):
        sentinel = np.array([-1 - number])
        kept += [places[last:start], sentinel]
        moved += [sentinel, places[start:stop]]
        last = stop
    return np.concatenate([*kept, places[last:], *moved])


def _within_breaks(ids: Ids, ends: Ids, vocabulary: TextVocabulary) -> list[tuple[int, int]]:
    """The longest stretch without a break of every span, the first of several."""
    spans = [(int(start), int(stop)) for start, stop in ends]
    if BREAK not in vocabulary.layout.specials:
        return spans
    breaks = np.flatnonzero(ids == vocabulary.special(BREAK))
    found = []
    for start, stop in spans:
        inside = breaks[(breaks >= start) & (breaks < stop)]
        starts, stops = np.append(start, inside + 1), np.append(inside, stop)
        best = int((stops - starts).argmax())
        found.append((int(starts[best]), int(stops[best])))
    return found
