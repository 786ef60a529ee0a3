"""Edited pictures in folders, as InstructPix2Pix publishes them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.edit_rows import edit_example
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.fields import fact
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.text import parse_json
from omnimill.pipelines.sources.examples import refusal
from omnimill.schema import Example, Meta, Provenance

_PROMPT = "prompt.json"
_BEFORE, _AFTER = "_0.jpg", "_1.jpg"
_MAX_PROMPT_BYTES = 1 << 20


class InstructPix2PixSource(Source):
    """``shard-*/<id>/prompt.json`` with pictures ``<seed>_0.jpg`` (before) and ``<seed>_1.jpg`` (after) beside it.

    A pair of pictures is a record: ``instruction`` (the prompt's ``edit``) and target ``edited``. What the two show
    (``input`` or ``caption``, and ``output``) goes into the tags ``before`` and ``after``. A picture without its
    counterpart is quarantined as ``missing_file``, a prompt without pictures dropped as ``no_pictures``.

    pairs_per_prompt: of a prompt with more pairs, so many are taken, in the order of their names; None for all.
    """

    selection: ClassVar[tuple[str, ...]] = ("exclude", "prompts_per_unit")

    type: Literal["instruct_pix2pix"]
    path: str
    exclude: tuple[str, ...] = ()
    prompts_per_unit: int = Field(64, ge=1)
    pairs_per_prompt: int | None = Field(None, ge=1)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        folders: dict[str, list[str]] = {}
        for url in files.find(self.path, (f"**/{_PROMPT}", f"**/*{_BEFORE}", f"**/*{_AFTER}"), self.exclude):
            folders.setdefault(posixpath.dirname(url), []).append(url)
        for group in files.groups(sorted(folders), self.prompts_per_unit):
            yield Unit(source=self.name, files=tuple(url for folder in group for url in folders[folder]))

    def read(self, unit: Unit) -> Iterator[Record]:
        folders: dict[str, list[str]] = {}
        for url in unit.files:
            folders.setdefault(posixpath.dirname(url), []).append(posixpath.basename(url))
        for folder, names in folders.items():
            seeds = sorted({name[: -len(_BEFORE)] for name in names if name != _PROMPT})
            if not seeds:
                url = storage.join(folder, _PROMPT)
                provenance = Provenance(uri=url, digest=storage.digest_file(url))
                yield Record(files.relative(url, self.path), provenance, refusal(RecordDropped("no_pictures")))
            for seed in seeds[: self.pairs_per_prompt]:
                yield self._record(unit, folder, seed, names)

    def _record(self, unit: Unit, folder: str, seed: str, names: Sequence[str]) -> Record:
        wanted = (_PROMPT, seed + _BEFORE, seed + _AFTER)
        urls = [storage.join(folder, name) for name in wanted]
        key = files.relative(storage.join(folder, seed), self.path)
        missing = [name for name in wanted if name not in names]
        present = [url for url, name in zip(urls, wanted, strict=True) if name in names]
        digest = blake3("\n".join(storage.digest_files(present)).encode()).hexdigest()
        provenance = Provenance(uri=present[-1], digest=digest)
        if missing:
            verdict = BadRecord("missing_file", f"no {', '.join(missing)} beside {posixpath.basename(present[-1])}")
            return Record(key, provenance, refusal(verdict))
        return Record(key, provenance, partial(self._decode, unit, key, provenance, urls))

    def _decode(self, unit: Unit, key: str, provenance: Provenance, urls: Sequence[str]) -> Sequence[Example]:
        told = parse_json(files.read_file(urls[0], _MAX_PROMPT_BYTES))
        if not isinstance(told, dict):
            raise BadRecord("wrong_type", f"{_PROMPT} is {type(told).__name__}, not an object")
        edit = (fact(told, "edit") or "").strip()
        if not edit:
            raise RecordDropped("no_instruction")
        before, after = (
            decode_image(files.read_file(url, self.images.max_bytes), self.images, url) for url in urls[1:]
        )
        tags = {"before": fact(told, "input") or fact(told, "caption"), "after": fact(told, "output")}
        meta = Meta(tags={tag: value for tag, value in tags.items() if value is not None})
        return [edit_example(self, unit, key, provenance, [before], [edit], after, meta)]
