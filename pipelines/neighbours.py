"""Nearest neighbours of documents in one space of pictures and texts.

A document's vector is the mean of those of its picture and its text (as retrieval in RA-CM3 and CM3Leon has it, see
arXiv 2309.02591, section 2.2), of length 1; a score is the cosine of two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnimill import rng
from omnimill.errors import OmnimillError

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

# Up to so many documents every one is looked at.
_EXACT = 20_000
# Links of a document in the graph that is searched beyond that, and how many candidates building and searching hold.
_LINKS, _HELD = 32, 128


def document_vectors(images: Vectors, texts: Vectors) -> Vectors:
    """float32 [n, width] of length 1, from those of pictures and texts [n, width], zeros where a document lacks one.

    A document that lacks both keeps zeros.
    """
    total = images + texts
    lengths = np.linalg.norm(total, axis=1, keepdims=True)
    found: Vectors = np.divide(total, lengths, out=np.zeros_like(total), where=lengths > 0)
    return found


def drop_words(text: str, share: float, *key: rng.Key) -> str:
    """A text without about a share of its words, at least one of which stays."""
    words = text.split()
    draws = [rng.uniform("query", *key, number) for number in range(len(words))]
    kept = [word for word, draw in zip(words, draws, strict=True) if draw >= share]
    return " ".join(kept or words[:1])


class NeighbourIndex:
    """Searches a set of vectors with faiss: all of them, or beyond 20,000 a graph (HNSW, arXiv 1603.09320).

    Built and searched by one thread, so that the same vectors give the same neighbours.

    Args:
        vectors: float32 [n, width] of length 1.
    """

    def __init__(self, vectors: Vectors) -> None:
        faiss = _faiss()
        faiss.omp_set_num_threads(1)
        width = vectors.shape[1]
        if len(vectors) <= _EXACT:
            self._index = faiss.IndexFlatIP(width)
        else:
            self._index = faiss.IndexHNSWFlat(width, _LINKS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = self._index.hnsw.efSearch = _HELD
        self._vectors = vectors
        self._index.add(vectors)

    def search(self, queries: Vectors, count: int) -> tuple[Vectors, Rows]:
        """Scores and rows, [queries, count], the best first; row -1 where there are no more."""
        scores, rows = self._index.search(np.ascontiguousarray(queries), count)
        return scores, rows

    def neighbours(
        self, own: int, query: Vectors, count: int, most_alike: float, candidates: int
    ) -> list[tuple[int, float]]:
        """Rows and scores of the best documents for a query that are neither its own document, nor nearly the same as
        that or as one that was taken before.

        Args:
            own: row of the document that asks.
            query: float32 [width].
            count: most neighbours.
            most_alike: documents with a greater cosine are nearly the same.
            candidates: how many are looked at.
        """
        scores, rows = self.search(query[None], candidates)
        taken = [own]
        found: list[tuple[int, float]] = []
        for score, row in zip(scores[0].tolist(), rows[0].tolist(), strict=True):
            if row < 0 or row == own:
                continue
            if (self._vectors[taken] @ self._vectors[row]).max() > most_alike:
                continue
            taken.append(row)
            found.append((row, score))
            if len(found) == count:
                break
        return found


def _faiss() -> Any:
    try:
        import faiss  # noqa: PLC0415 - an extra
    except ImportError:
        raise OmnimillError("retrieval needs faiss: pip install 'omnimill[retrieval]'") from None
    return faiss
