"""WebDataset tars: members that share a key are one sample."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.sniff import HEAD_BYTES, claimed_medium, sniff
from omnimill.pipelines.decoders.tars import Member, gunzip, read_members
from omnimill.pipelines.decoders.text import parse_json, plain_text, text_value
from omnimill.pipelines.sources.audio_files import AudioSettings, audio_examples
from omnimill.pipelines.sources.examples import make_example, name_tags, refusal
from omnimill.pipelines.sources.media import Words
from omnimill.pipelines.sources.video import VideoSettings, video_examples
from omnimill.schema import Example, Image, Provenance, Text

_MEDIA = ("image", "audio", "video")
_KINDS = {"txt": "text", "text": "text", "caption": "text", "json": "facts", "cls": "label"}


@dataclass
class _Parts:
    """A sample's members by what they are to it: name and decompressed bytes."""

    image: list[tuple[str, bytes]] = field(default_factory=list)
    audio: list[tuple[str, bytes]] = field(default_factory=list)
    video: list[tuple[str, bytes]] = field(default_factory=list)
    text: list[tuple[str, bytes]] = field(default_factory=list)
    facts: list[tuple[str, bytes]] = field(default_factory=list)
    label: list[tuple[str, bytes]] = field(default_factory=list)


class WebDatasetSource(Source):
    """Tar files in the WebDataset convention; a unit is a tar, a record is a sample.

    Pictures become images; ``txt`` is the caption (the body, in a sample without media); ``cls`` is a class number or
    name; ``json`` holds facts. Any of them may be gzipped. A sample may instead have one video or audio member, its
    texts the caption. Other members turn their sample down as ``unsupported_member`` unless `ignore` names their
    extension, and so do members that belong to no sample.

    Media that are not what their names say are read as what they are; their sample has the tag ``mislabelled``.

    path: a tar, or a folder of tars.
    caption_field, url_field, licence_field: keys of ``json``; its caption counts when there is no ``txt``.
    classes: names of the class numbers in ``cls``.
    images, audio, video: how these are decoded, as in the sources made for them.
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
    audio: AudioSettings = AudioSettings()
    video: VideoSettings = VideoSettings()

    def units(self) -> Iterator[Unit]:
        for url in files.find(self.path, self.include, self.exclude):
            yield Unit(source=self.name, files=(url,))

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        name = files.relative(uri, self.path)
        taken: set[str] = set()
        for own, members in _samples(read_members(uri, self.max_member_bytes)):
            key = f"{name}/{own}"
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
                yield Record(f"{key}@{first.offset}", provenance, refusal(fault))
                continue
            taken.add(key)
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, members))

    def _decode(self, unit: Unit, key: str, provenance: Provenance, members: dict[str, Member]) -> Sequence[Example]:
        parts = _Parts()
        for extension, member in members.items():
            if member.fault is not None:
                raise BadRecord(member.fault.reason, f"{member.name}: {member.fault.message}")
            kind, data = self._kind(extension, member.data or b"")
            if kind is not None:
                getattr(parts, kind).append((member.name, data))
        recordings = [("video", data) for _, data in parts.video] + [("audio", data) for _, data in parts.audio]
        if len(recordings) > 1 or (recordings and parts.image):
            raise RecordDropped("unsupported_member")
        images = [decode_image(data, self.images, f"{provenance.uri}#{name}") for name, data in parts.image]
        facts = self._facts(parts)
        texts = self._texts(parts, facts, images)
        if recordings:
            examples = self._recording(*recordings[0], unit, key, provenance, texts)
        elif images or texts:
            examples = [make_example(self, unit, key, provenance, text=texts, images=images)]
        else:
            raise RecordDropped("no_content")
        named = [name_tags(name.removesuffix(".gz"), data) for name, data in parts.image + parts.audio + parts.video]
        wrong = "; ".join(tag for tags in named for tag in tags.values())
        for example in examples:
            if wrong:
                example.meta.tags["mislabelled"] = wrong
            example.meta.url = _fact(facts, self.url_field)
            example.meta.licence = _fact(facts, self.licence_field) or self.licence
        return examples

    def _recording(
        self, medium: str, data: bytes, unit: Unit, key: str, provenance: Provenance, texts: list[Text]
    ) -> list[Example]:
        words = Words(caption="\n".join(text.text for text in texts) or None)
        with tempfile.NamedTemporaryFile() as copy:
            copy.write(data)
            copy.flush()
            if medium == "video":
                return video_examples(copy.name, self, unit, key, provenance, self.video, words)
            return audio_examples(copy.name, self, unit, key, provenance, self.audio, words)

    def _kind(self, extension: str, data: bytes) -> tuple[str | None, bytes]:
        """What a member is to its sample, and its bytes decompressed; None for one to ignore."""
        if extension in self.ignore:
            return None, data
        if extension.endswith(".gz"):
            extension, data = extension[:-3], gunzip(data, self.max_member_bytes)
        last = extension.rsplit(".", 1)[-1]
        kind = _KINDS.get(last)
        if kind is None and (claimed := claimed_medium(f"x.{last}")) in _MEDIA:
            # The name says that it is a medium, the content which one.
            content = sniff(data[:HEAD_BYTES])
            kind = content.medium if content is not None and content.medium in _MEDIA else claimed
        if kind is None:
            raise RecordDropped("unsupported_member")
        return kind, data

    def _facts(self, parts: _Parts) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        for name, data in parts.facts:
            value = parse_json(data)
            if not isinstance(value, dict):
                raise BadRecord("wrong_type", f"{name} holds {type(value).__name__}, not an object")
            facts |= value
        return facts

    def _texts(self, parts: _Parts, facts: dict[str, Any], images: Sequence[Image]) -> list[Text]:
        role = "caption" if images else "body"
        found = [(role, plain_text(data)) for _, data in parts.text]
        if not found and (caption := _fact(facts, self.caption_field)) is not None:
            found = [(role, caption)]
        found += [("label", self._label(plain_text(data).strip())) for _, data in parts.label]
        about = 0 if len(images) == 1 else None
        return [Text(role=role, text=text.strip(), image=about) for role, text in found if text.strip()]

    def _label(self, text: str) -> str:
        if not text.isdecimal() or not self.classes:
            return text
        if int(text) >= len(self.classes):
            raise BadRecord("unknown_class", f"class {text}; there are {len(self.classes)} names")
        return self.classes[int(text)]


def _samples(members: Iterator[Member]) -> Iterator[tuple[str, dict[str, Member]]]:
    """Neighbouring members of one key, by their extensions in lower case; a second of the same is a fault."""
    key, sample = None, dict[str, Member]()
    for member in members:
        own, extension = _split(member.name)
        extension = extension.lower()
        if own != key:
            if key is not None:
                yield key, sample
            key, sample = own, {}
        if extension in sample:
            fault = BadRecord("duplicate_member", "it comes twice")
            sample[f"{extension}@{member.offset}"] = replace(member, data=None, fault=fault)
        else:
            sample[extension] = member
    if key is not None:
        yield key, sample


def _split(name: str) -> tuple[str, str]:
    """Key and extension by the convention: the key ends at the first dot of the file's name.

    What has no dot, or nothing before it, is no member of a sample: a key of its own without an extension.
    """
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return (f"{folder}{slash}{stem}", extension) if stem and extension else (name, "")


def _fact(facts: dict[str, Any], name: str | None) -> str | None:
    value = facts.get(name) if name is not None else None
    return None if value is None or name is None else text_value(value, name)
