"""Pairs of views that are rendered already: ``00000000_1.jpeg`` beside ``00000000_2.jpeg``, as CroCo publishes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Provenance

_VIEW = re.compile(r"(?s)(.*)_([12])(\.[^./]+)")


class ViewPairsSource(Source):
    """Pairs by the names of their pictures, which end in ``_1`` and ``_2``; a unit is a run of pairs.

    The second picture of a pair is its current one. A picture without the other is quarantined.

    path: folder. images: which pictures are accepted.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "pairs_per_unit")

    type: Literal["view_pairs"]
    path: str
    include: tuple[str, ...] = ("**/*_[12].jpeg", "**/*_[12].jpg", "**/*_[12].png")
    exclude: tuple[str, ...] = ()
    pairs_per_unit: int = Field(256, ge=1)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        pairs: dict[str, list[str]] = {}
        for url in files.find(self.path, self.include, self.exclude):
            pairs.setdefault(_stem(files.relative(url, self.path)), []).append(url)
        for group in files.groups(list(pairs.values()), self.pairs_per_unit):
            yield Unit(source=self.name, files=tuple(url for pair in group for url in pair))

    def read(self, unit: Unit) -> Iterator[Record]:
        pairs: dict[str, list[str]] = {}
        for url in unit.files:
            pairs.setdefault(_stem(files.relative(url, self.path)), []).append(url)
        for key, urls in pairs.items():
            if len(urls) != 2:
                names = ", ".join(files.relative(url, self.path) for url in urls)
                fault = BadRecord("pair_incomplete", f"two pictures should stand together, found {names}")
                yield Record(key, Provenance(uri=urls[0], digest=""), refusal(fault))
                continue
            yield from self._pair(unit, key, urls)

    def _pair(self, unit: Unit, key: str, urls: Sequence[str]) -> Iterator[Record]:
        digest = blake3()
        try:
            pictures = [files.read_file(url, self.images.max_bytes) for url in urls]
        except BadRecord as fault:
            yield Record(key, Provenance(uri=urls[0], digest=""), refusal(fault))
            return
        for picture in pictures:
            digest.update(blake3(picture).digest())
        provenance = Provenance(uri=urls[0], digest=digest.hexdigest())
        yield Record(key, provenance, partial(self._decode, unit, key, provenance, urls, pictures))

    def _decode(
        self, unit: Unit, key: str, provenance: Provenance, urls: Sequence[str], pictures: Sequence[bytes]
    ) -> Sequence[Example]:
        images = [decode_image(data, self.images, url) for data, url in zip(pictures, urls, strict=True)]
        return [make_example(self, unit, key, provenance, images=images)]


def _stem(name: str) -> str:
    """A pair's name: that of a picture without its number."""
    found = _VIEW.fullmatch(name)
    return name if found is None else found[1] + found[3]
