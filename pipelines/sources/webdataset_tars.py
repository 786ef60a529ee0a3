"""WebDataset tars: members that share a key are one sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.sniff import claimed_medium
from omnimill.pipelines.decoders.tars import Member, gunzip, read_members
from omnimill.pipelines.decoders.text import parse_json, text_value, utf8
from omnimill.pipelines.sources.examples import make_example, refuse
from omnimill.schema import Example, Image, Meta, Provenance, Text

_KINDS = {"txt": "text", "text": "text", "caption": "text", "json": "facts", "cls": "label"}


class WebDatasetSource(Source):
    """Tar files in the WebDataset convention; a unit is a tar, a record is a sample.

    Pictures become images; ``txt`` is the caption (the body, in a sample without picture); ``cls`` is a class number or
    name; ``json`` holds facts. Any of them may be gzipped. Other members turn their sample down as
    ``unsupported_member`` unless `ignore` names their extension, and so do members that belong to no sample.

    path: a tar, or a folder of tars.
    caption_field, url_field, licence_field: keys of ``json``; its caption counts when there is no ``txt``.
    classes: names of the class numbers in ``cls``.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude")

    type: Literal["webdataset"]
    path: str
    include: tuple[str, ...] = ("**/*.tar", "**/*.tar.gz", "**/*.tgz")
    exclude: tuple[str, ...] = ()
    caption_field: str | None = "caption"
    url_field: str | None = "url"
    licence_field: str | None = "licence"
    classes: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    max_member_bytes: int = Field(256 << 20, gt=0)
    images: ImageSettings = ImageSettings()

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.include, self.exclude):
            yield Unit(source=self.name, files=(url,))

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        name = files.relative(uri, self.path)
        taken: set[str] = set()
        for sample in _samples(read_members(uri, self.max_member_bytes)):
            key = f"{name}/{sample.pop('__key__')}"
            members: dict[str, Member] = sample
            ordered = sorted(members.values(), key=lambda member: member.offset)
            digest = blake3()
            for member in ordered:
                digest.update(f"{member.name}\n".encode())
                digest.update(member.data or b"")
            first, last = ordered[0], ordered[-1]
            provenance = Provenance(
                uri=uri, digest=digest.hexdigest(), offset=first.offset, length=last.end - first.offset
            )
            if key in taken:
                # Members of one key must stand together; a later group would silently be half a sample.
                fault = BadRecord("split_sample", f"members of {key!r} do not stand together")
                yield Record(f"{key}@{first.offset}", provenance, partial(refuse, fault))
                continue
            taken.add(key)
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, members))

    def _decode(self, unit: Unit, key: str, provenance: Provenance, members: dict[str, Member]) -> Sequence[Example]:
        parts: dict[str, list[tuple[Member, bytes]]] = {"image": [], "text": [], "facts": [], "label": []}
        for extension, member in members.items():
            if member.fault is not None:
                raise BadRecord(member.fault.reason, f"{member.name}: {member.fault.message}")
            data = member.data or b""
            kind, data = self._kind(extension, data)
            if kind is not None:
                parts[kind].append((member, data))
        images = [decode_image(data, self.images, f"{provenance.uri}#{member.name}") for member, data in parts["image"]]
        facts = self._facts(parts["facts"])
        texts = self._texts(parts, facts, images)
        if not images and not texts:
            raise RecordDropped("no_content")
        meta = Meta(url=_fact(facts, self.url_field), licence=_fact(facts, self.licence_field))
        return [make_example(self, unit, key, provenance, text=texts, images=images, meta=meta)]

    def _kind(self, extension: str, data: bytes) -> tuple[str | None, bytes]:
        """What a member is to its sample, and its bytes decompressed; None for one to ignore."""
        if extension in self.ignore:
            return None, data
        if extension.endswith(".gz"):
            extension, data = extension[:-3], gunzip(data, self.max_member_bytes)
        last = extension.rsplit(".", 1)[-1]
        kind = "image" if claimed_medium(f"x.{last}") == "image" else _KINDS.get(last)
        if kind is None:
            raise RecordDropped("unsupported_member")
        return kind, data

    def _facts(self, members: list[tuple[Member, bytes]]) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for member, data in members:
            value = parse_json(data)
            if not isinstance(value, dict):
                raise BadRecord("wrong_type", f"{member.name} holds {type(value).__name__}, not an object")
            facts |= value
        return facts

    def _texts(
        self, parts: dict[str, list[tuple[Member, bytes]]], facts: dict[str, Any], images: list[Image]
    ) -> list[Text]:
        role = "caption" if images else "body"
        found = [(role, utf8(data)) for _, data in parts["text"]]
        if not found and (caption := _fact(facts, self.caption_field)) is not None:
            found = [(role, caption)]
        found += [("label", self._label(utf8(data).strip())) for _, data in parts["label"]]
        about = 0 if len(images) == 1 else None
        return [Text(role=role, text=text.strip(), image=about) for role, text in found if text.strip()]

    def _label(self, text: str) -> str:
        if not text.isdecimal() or not self.classes:
            return text
        if int(text) >= len(self.classes):
            raise BadRecord("unknown_class", f"class {text}; there are {len(self.classes)} names")
        return self.classes[int(text)]


def _samples(members: Iterator[Member]) -> Iterator[dict[str, Any]]:
    """Members grouped by webdataset's rule: the key is the path up to the first dot of the file's name."""
    from webdataset.tariterators import base_plus_ext, group_by_keys  # noqa: PLC0415 - imports torch

    def split(name: str) -> tuple[str, str]:
        key, extension = base_plus_ext(name)
        return (name, "") if key is None else (key, extension)

    def named() -> Iterator[dict[str, Any]]:
        current, seen = "", set[str]()
        for member in members:
            key, extension = split(member.name)
            if key != current:
                current, seen = key, set()
            if extension.lower() in seen:
                twice = replace(member, data=None, fault=BadRecord("duplicate_member", "it comes twice"))
                yield {"fname": f"{member.name}@{member.offset}", "data": twice, "__url__": ""}
                continue
            seen.add(extension.lower())
            yield {"fname": member.name, "data": member, "__url__": ""}

    for sample in group_by_keys(named(), keys=split):
        del sample["__url__"]
        yield sample


def _fact(facts: dict[str, Any], field: str | None) -> str | None:
    value = facts.get(field) if field is not None else None
    return None if value is None or field is None else text_value(value, field)
