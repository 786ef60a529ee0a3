"""Objaverse as published: ``glbs/000-000/<uid>.glb`` with names, tags and licences in ``metadata/000-000.json.gz``.

Needs the optional extra ``assets3d``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.tars import gunzip
from omnimill.pipelines.decoders.text import parse_json, text_value
from omnimill.pipelines.sources.assets3d import ViewSettings, asset_examples, require_extra
from omnimill.pipelines.sources.examples import refusal
from omnimill.schema import Example, Provenance

_MAX_METADATA_BYTES = 1 << 30
_ASSET = re.compile(r"(?:.*/)?glbs/([^/]+)/([^/]+)\.glb")
# Sketchfab's licence codes, but for CC0 those of Creative Commons 4.0.
_CREATIVE_COMMONS = re.compile(r"by(-nc)?(-sa|-nd)?")


class ObjaverseSource(ViewSettings, Source):
    """Assets below ``glbs/``, rendered as by `assets3d`; a unit is `assets_per_unit` assets of one folder.

    An asset's name is its text of role ``label``; its licence is recorded, its tags and categories are in
    ``meta.tags``, its page is ``meta.url``.

    path: folder that holds glbs/ and metadata/.
    require_metadata: quarantine an asset of which the metadata say nothing, as its licence is not known.
    age_restricted: whether assets that are marked so are kept.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "assets_per_unit")

    type: Literal["objaverse"]
    path: str
    include: tuple[str, ...] = ("glbs/**/*.glb",)
    exclude: tuple[str, ...] = ()
    assets_per_unit: int = Field(16, ge=1)
    require_metadata: bool = True
    age_restricted: bool = False

    def units(self) -> Iterator[Unit]:
        require_extra()
        listed = files.find(self.path)
        present, belongs = set(listed), files.matcher(self.include, self.exclude)
        wanted = [url for url in listed if belongs(files.relative(url, self.path)) and _ASSET.fullmatch(url)]
        for folder, assets in groupby(wanted, key=lambda url: url.rsplit("/", 2)[-2]):
            metadata = storage.join(self.path, "metadata", f"{folder}.json.gz")
            beside = (metadata,) if metadata in present else ()
            for group in files.groups(list(assets), self.assets_per_unit):
                yield Unit(source=self.name, files=(*group, *beside), options={"assets": len(group)})

    def read(self, unit: Unit) -> Iterator[Record]:
        count = int(unit.options["assets"])
        fault, known = None, dict[str, Any]()
        for url in unit.files[count:]:
            try:
                known = _metadata(files.read_file(url, _MAX_METADATA_BYTES))
            except BadRecord as found:
                fault = BadRecord("metadata_malformed", f"{files.relative(url, self.path)}: {found.message}")
        for url in unit.files[:count]:
            provenance = Provenance(uri=url, digest=storage.digest_file(url), length=int(storage.stat(url)["bytes"]))
            key = files.relative(url, self.path)
            uid = url.rsplit("/", 1)[-1].removesuffix(".glb")
            if fault is not None:
                yield Record(key, provenance, refusal(fault))
            else:
                yield Record(key, provenance, partial(self._decode, unit, url, key, provenance, known.get(uid)))

    def _decode(self, unit: Unit, url: str, key: str, provenance: Provenance, about: Any) -> Sequence[Example]:
        if about is None and self.require_metadata:
            raise BadRecord("metadata_missing", "the metadata do not name it")
        facts = {} if about is None else about
        if not isinstance(facts, dict):
            raise BadRecord("wrong_type", f"metadata that are {type(facts).__name__}, not an object")
        if facts.get("isAgeRestricted") and not self.age_restricted:
            raise RecordDropped("age_restricted")
        name = text_value(facts.get("name") or "", "name").strip()
        examples = asset_examples(url, self, unit, key, provenance, self, name or None)
        for example in examples:
            example.meta.url = text_value(facts.get("viewerUrl") or "", "viewerUrl") or None
            example.meta.licence = _licence(facts.get("license")) or self.licence
            example.meta.tags |= {kind: names for kind in ("tags", "categories") if (names := _names(facts.get(kind)))}
        return examples


def _metadata(data: bytes) -> dict[str, Any]:
    found = parse_json(gunzip(data, _MAX_METADATA_BYTES))
    if not isinstance(found, dict):
        raise BadRecord("wrong_type", f"it holds {type(found).__name__}, not an object")
    return found


def _licence(code: Any) -> str | None:
    """SPDX identifier of a licence code; the code itself when it is another one."""
    if not code:
        return None
    text = text_value(code, "license")
    if text == "cc0":
        return "CC0-1.0"
    return f"CC-{text.upper()}-4.0" if _CREATIVE_COMMONS.fullmatch(text) else text


def _names(entries: Any) -> str:
    """Names of tags or categories, one after the other."""
    named = entries if isinstance(entries, list) else []
    names = [entry.get("name") for entry in named if isinstance(entry, dict)]
    return ", ".join(text_value(name, "name") for name in names if name)
