"""Examples with their neighbours before them: retrieval augmentation as a dataset made from an ingested one."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import PIL.Image as Pillow
import pyarrow as pa
from pydantic import Field, model_validator

from omnimill.config import digest_json
from omnimill.errors import IntegrityError, RecordDropped
from omnimill.infra import arrow_files, storage
from omnimill.infra.dataset import Unit
from omnimill.infra.erasures import SETTLED
from omnimill.pipelines.base import Record
from omnimill.pipelines.neighbours import NeighbourIndex, Vectors, document_vectors, drop_words
from omnimill.pipelines.sources.example_shards import ExampleShards, examples_at, open_shard, shard_digest
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Image, Provenance, Text

if TYPE_CHECKING:
    from omnimill.pipelines.dedup.scorers import ImageText

# Texts that stand for a document, the best first.
_ROLES = ("caption", "alt_text", "label", "body")
_BATCH = 32
_MOST_CHARACTERS = 4000


class RetrievedSource(ExampleShards):
    """Every example of a dataset with its nearest neighbours before it, as one document of the role `role`.

    The document is the neighbours' texts and pictures, the most alike last, then those of the example itself; the
    example's own texts stay beside that with their roles. So neighbours are earlier pictures of the last one, which is
    the example's. Of a document the first picture and the best text count (caption, alternative text, label, body);
    one that has neither is dropped as ``nothing_to_ask_by``, and one without neighbours as ``no_neighbours``.

    ``meta.tags["neighbours"]`` has the ids of the neighbours, ``meta.scores["neighbour_1"]``, … their scores, in the
    order of the document.

    model, revision: a checkpoint of transformers that puts pictures and texts into one space, as of `model_scorer`.
    vectors: folder of the vectors of every shard, which are made when they are missing: columns ``image``, ``text`` and
        ``query`` (the text with words dropped), float32.
    neighbours: most of them. most_alike: documents with a greater cosine are nearly the same, and are passed over.
    candidates: of how many of the best neighbours are chosen.
    query_dropout: share of the words of an example's text that is not used to look for neighbours, drawn by `seed`.
    separator: text between a document and the next one.
    digest: of the checkpoint's files; filled in.
    """

    type: Literal["retrieved"]
    model: str = Field(min_length=1)
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    vectors: str
    neighbours: int = Field(2, ge=1, le=8)
    most_alike: float = Field(0.9, gt=-1, le=1)
    candidates: int = Field(64, ge=1)
    query_dropout: float = Field(0.2, ge=0, lt=1)
    seed: int = 0
    separator: str = "\n"
    role: str = Field("retrieved", pattern=r"^\w+$")
    digest: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_checkpoint(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("model"), str):
            return values
        folder = Path(values["model"])
        if not folder.is_dir() and values.get("revision") is None:
            raise ValueError(f"{folder}: no such folder; a repository on the hub needs its commit as `revision`")
        if folder.is_dir() and values.get("digest") is None:
            return {**values, "digest": _checkpoint_digest(folder)}
        return values

    def units(self) -> Iterator[Unit]:
        """A unit for every shard; what is in it depends on all of the version."""
        dataset = self._dataset()
        version, _ = dataset.manifest(self.manifest)
        # What is erased is nobody's neighbour, in units that were done before as little as in new ones.
        settled = sorted(storage.list_folder(storage.join(dataset.url, SETTLED)))
        among = digest_json([version, settled])
        for unit in super().units():
            yield unit.model_copy(update={"options": {**unit.options, "among": among}})

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        corpus = _corpus(self)
        table, rows = open_shard(unit)
        ids = table.column("id").to_pylist()
        for row in rows:
            provenance = Provenance(uri=uri, digest=shard_digest(uri))
            own = corpus.number.get((uri, row))
            if own is None:
                yield Record(ids[row], provenance, refusal(RecordDropped("nothing_to_ask_by")))
            else:
                yield Record(ids[row], provenance, partial(self._decode, unit, ids[row], corpus, own))

    def _decode(self, unit: Unit, key: str, corpus: Corpus, own: int) -> list[Example]:
        found = corpus.index.neighbours(
            own, corpus.queries[own], self.neighbours, self.most_alike, max(self.candidates, self.neighbours + 1)
        )
        if not found:
            raise RecordDropped("no_neighbours")
        found.reverse()
        before = [corpus.example(row) for row, _ in found]
        asked = corpus.example(own)
        text, images = _joined([*before, asked], self.role, self.separator)
        last = len(images) - 1 if asked.images else None
        text += [_moved(one, last) for one in asked.text if one.image in (None, 0) and one.audio is None]
        example = make_example(self, unit, key, asked.provenance, text=text, images=images, meta=asked.meta)
        example.meta.tags = {**example.meta.tags, "neighbours": " ".join(one.id for one in before)}
        scores = {f"neighbour_{number}": score for number, (_, score) in enumerate(found, 1)}
        example.meta.scores = {**example.meta.scores, **scores}
        return [example]


@dataclass(frozen=True)
class Corpus:
    """All documents of a version that can be neighbours.

    places: shard and row of each. number: the way back. queries: what each is looked for by. index: over all of them.
    """

    places: list[tuple[str, int]]
    number: dict[tuple[str, int], int]
    queries: Vectors
    index: NeighbourIndex

    def example(self, number: int) -> Example:
        url, row = self.places[number]
        (found,) = examples_at(arrow_files.read_table(url), [row])
        return found


def _corpus(source: RetrievedSource) -> Corpus:
    """Made once in a process for a version, less what is erased by now."""
    units = tuple(source.units())
    return _made(source.model_dump_json(), tuple(unit.model_dump_json() for unit in units))


@lru_cache(maxsize=2)
def _made(settings: str, listed: tuple[str, ...]) -> Corpus:
    source = RetrievedSource.model_validate_json(settings)
    embed = _Lazy(source)
    places: list[tuple[str, int]] = []
    documents, queries = [], []
    for unit in (Unit.model_validate_json(one) for one in listed):
        table, rows = open_shard(unit)
        images, texts, asked = _vectors(source, unit.files[0], table, embed)
        whole, query = document_vectors(images, texts), document_vectors(images, asked)
        kept = [row for row in rows if whole[row].any()]
        places += [(unit.files[0], row) for row in kept]
        documents.append(whole[kept])
        queries.append(query[kept])
    number = {place: at for at, place in enumerate(places)}
    return Corpus(places, number, np.concatenate(queries), NeighbourIndex(np.concatenate(documents)))


class _Lazy:
    """The model, loaded when something has to be embedded."""

    def __init__(self, source: RetrievedSource) -> None:
        self._source = source
        self._model: ImageText | None = None

    def __call__(self) -> ImageText:
        if self._model is None:
            from omnimill.pipelines.dedup.checkpoints import Checkpoint  # noqa: PLC0415 - seconds to import
            from omnimill.pipelines.dedup.scorers import TransformersImageText  # noqa: PLC0415

            source = self._source
            if source.digest is not None and _checkpoint_digest(Path(source.model)) != source.digest:
                raise IntegrityError(f"{source.model} is not the checkpoint that the configuration was read with")
            self._model = TransformersImageText(Checkpoint(source.model, source.revision))
        return self._model


def _vectors(source: RetrievedSource, url: str, table: pa.Table, embed: _Lazy) -> tuple[Vectors, Vectors, Vectors]:
    """Of every row of a shard: of its picture, its text, and its text with words dropped; zeros where it lacks one."""
    decisive = [source.model, source.revision, source.digest, source.query_dropout, source.seed]
    path = storage.join(source.vectors, digest_json(decisive)[:16], f"{shard_digest(url)}.arrow")
    if not storage.exists(path):
        made = _embedded(source, table, embed())
        columns = {name: pa.FixedSizeListArray.from_arrays(one.ravel(), one.shape[1]) for name, one in made.items()}
        stored = pa.table({"id": table.column("id"), **columns})
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, stored.schema) as writer:
            writer.write_table(stored)
        storage.publish_bytes(path, sink.getvalue())
    read = pa.ipc.open_file(pa.BufferReader(storage.read_bytes(path))).read_all()
    images, texts, queries = (_matrix(read.column(name)) for name in ("image", "text", "query"))
    return images, texts, queries


def _matrix(column: pa.ChunkedArray) -> Vectors:
    whole = column.combine_chunks()
    return whole.values.to_numpy().reshape(len(whole), -1)  # type: ignore[no-any-return]


def _embedded(source: RetrievedSource, table: pa.Table, model: ImageText) -> dict[str, Vectors]:
    import torch  # noqa: PLC0415 - seconds to import

    parts: dict[str, list[Vectors]] = {"image": [], "text": [], "query": []}
    for first in range(0, table.num_rows, _BATCH):
        members = examples_at(table, range(first, min(first + _BATCH, table.num_rows)))
        texts = [_text(member)[:_MOST_CHARACTERS] for member in members]
        asked = [
            drop_words(text, source.query_dropout, source.seed, member.id)
            for text, member in zip(texts, members, strict=True)
        ]
        pictures = [_picture(member.images[0]) if member.images else None for member in members]
        with torch.inference_mode():
            width = model.texts(["a"]).shape[1]
            for name, values, function in (
                ("image", pictures, model.images),
                ("text", texts, model.texts),
                ("query", asked, model.texts),
            ):
                parts[name].append(_filled(values, function, width))
    return {name: np.concatenate(found) for name, found in parts.items()}


def _filled(values: Sequence[Any], function: Any, width: int) -> Vectors:
    """Vectors of the values that are there, zeros of the others."""
    vectors = np.zeros((len(values), width), np.float32)
    there = [at for at, value in enumerate(values) if value]
    if there:
        vectors[there] = function([values[at] for at in there]).float().cpu().numpy()
    return vectors


def _picture(image: Image) -> Pillow.Image:
    with Pillow.open(io.BytesIO(image.data)) as opened:
        return opened.convert("RGB")


def _text(example: Example) -> str:
    found = [text for text in example.text if text.role in _ROLES and text.image in (None, 0) and text.text.strip()]
    return min(found, key=lambda text: _ROLES.index(text.role)).text if found else ""


def _joined(members: Sequence[Example], role: str, separator: str) -> tuple[list[Text], list[Image]]:
    """The documents one after the other, of each its text, then its picture."""
    texts: list[Text] = []
    images: list[Image] = []
    for number, member in enumerate(members):
        last = len(images) - 1 if images else None
        if number and separator:
            texts.append(Text(role=role, text=separator, image=last))
        if text := _text(member):
            texts.append(Text(role=role, text=text, image=last))
        images += member.images[:1]
    return texts, images


def _moved(text: Text, image: int | None) -> Text:
    """The example's own text, which belongs to its picture where it did."""
    return Text(role=text.role, text=text.text, image=None if text.image is None else image, item=text.item)


def _checkpoint_digest(folder: Path) -> str:
    names = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors", ".txt", ".model")]
    return digest_json({path.name: storage.digest_file(str(path)) for path in names})
