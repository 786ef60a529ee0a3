"""A folder of anything: every file is decoded as what it holds, whatever it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import ClassVar, Literal

from pydantic import Field

from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import InputRef, Unit
from omnimill.pipelines import files
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.images import ImageSettings, decode_image
from omnimill.pipelines.decoders.sniff import HEAD_BYTES, Content, claimed_medium, sniff, suffix
from omnimill.pipelines.decoders.text import html_text, plain_text
from omnimill.pipelines.decoders.transcripts import parse_transcript, transcript_form
from omnimill.pipelines.sources.assets3d import ViewSettings, asset_examples, attachment_inputs
from omnimill.pipelines.sources.audio_files import AudioSettings, audio_examples
from omnimill.pipelines.sources.examples import make_example, name_tags
from omnimill.pipelines.sources.video import VideoSettings, video_examples
from omnimill.schema import Example, Provenance, Text

_Decode = Callable[["FilesSource", Unit, Provenance, str, Content], Sequence[Example]]
# Data in these formats describe other files; tables and archives of records have sources of their own.
_SIDECARS = ("json", "csv", "tsv", "mtl", "yaml", "yml", "toml", "xml")


class FilesSource(Source):
    """Every regular file below a folder is a record, told apart by its content.

    Pictures, sound, video, meshes, plain text, HTML and transcripts (WebVTT, SubRip, SubViewer, TTML, CTM) become
    examples. Dropped: ``sidecar`` (JSON, CSV, materials and the like: data about other files), ``unsupported_type``.
    Quarantined besides what cannot be decoded: ``empty_file``, ``pointer_file`` (the content lies elsewhere),
    ``mislabelled`` (a medium by its name that holds something else which is none). Media that are another one, or
    pictures of another format, than their name says are read as what they are, with the tag ``mislabelled``.

    max_text_bytes: of text, HTML and transcripts. max_file_bytes: of sound and video.
    images, audio, video, mesh: how these are decoded, as in the sources made for them.
    """

    selection: ClassVar[tuple[str, ...]] = ("include", "exclude", "files_per_unit")

    type: Literal["files"]
    path: str
    include: tuple[str, ...] = ("**",)
    exclude: tuple[str, ...] = ()
    files_per_unit: int = Field(16, gt=0)
    max_text_bytes: int = Field(4 << 20, gt=0)
    max_file_bytes: int = Field(16 << 30, gt=0)
    images: ImageSettings = ImageSettings()
    audio: AudioSettings = AudioSettings()
    video: VideoSettings = VideoSettings()
    mesh: ViewSettings = ViewSettings()

    def units(self) -> Iterator[Unit]:
        for group in files.groups(files.find(self.path, self.include, self.exclude), self.files_per_unit):
            yield Unit(source=self.name, files=group)

    def inputs(self, unit: Unit) -> list[InputRef]:
        """The files, and those that meshes among them refer to."""
        refs = {ref.uri: ref for ref in super().inputs(unit)}
        for uri in unit.files:
            content = sniff(self._head(uri), files.relative(uri, self.path))
            if content is not None and content.medium == "mesh":
                for ref in attachment_inputs(uri, self.mesh.max_bytes):
                    refs.setdefault(ref.uri, ref)
        return list(refs.values())

    def read(self, unit: Unit) -> Iterator[Record]:
        for uri in unit.files:
            key = files.relative(uri, self.path)
            size = int(storage.stat(uri)["bytes"])
            small = storage.read_bytes(uri) if size <= files.SMALL_BYTES else None
            provenance = Provenance(uri=uri, digest=storage.digest_file(uri), length=size)
            yield Record(key, provenance, partial(self._decode, unit, provenance, key), small)

    def _decode(self, unit: Unit, provenance: Provenance, key: str) -> Sequence[Example]:
        if not provenance.length:
            raise BadRecord("empty_file", "no bytes")
        head = self._head(provenance.uri)
        content = sniff(head, key)
        claimed = claimed_medium(key)
        if content is None:
            # A damaged file may have lost its mark; the decoder of what its name says has the last word.
            content = Content(claimed or "other", suffix(key))
        if content.medium == "pointer":
            raise BadRecord("pointer_file", f"a {content.format} pointer; the content itself is not here")
        decode = _DECODERS.get(content.medium)
        if claimed is not None and content.medium not in _MEDIA:
            raise BadRecord("mislabelled", f"named .{suffix(key)} but holds {content.medium} ({content.format})")
        if decode is None:
            raise RecordDropped("sidecar" if content.format in _SIDECARS else "unsupported_type")
        examples = decode(self, unit, provenance, key, content)
        tags = name_tags(key, head)
        for example in examples:
            example.meta.tags |= tags
        return examples

    @staticmethod
    def _head(uri: str) -> bytes:
        with storage.open_read(uri) as stream:
            return stream.read(HEAD_BYTES)


def _picture(source: FilesSource, unit: Unit, provenance: Provenance, key: str, _: Content) -> Sequence[Example]:
    data = files.read_file(provenance.uri, source.images.max_bytes)
    return [make_example(source, unit, key, provenance, images=[decode_image(data, source.images, provenance.uri)])]


def _sound(source: FilesSource, unit: Unit, provenance: Provenance, key: str, _: Content) -> Sequence[Example]:
    _check_size(source, provenance)
    with files.local_copy(provenance.uri) as path:
        return audio_examples(str(path.absolute()), source, unit, key, provenance, source.audio)


def _film(source: FilesSource, unit: Unit, provenance: Provenance, key: str, content: Content) -> Sequence[Example]:
    _check_size(source, provenance)
    with files.local_copy(provenance.uri) as path:
        try:
            return video_examples(str(path.absolute()), source, unit, key, provenance, source.video)
        except BadRecord as fault:
            if fault.reason != "video_no_stream":
                raise
    return _sound(source, unit, provenance, key, content)  # a container of video that holds sound alone


def _asset(source: FilesSource, unit: Unit, provenance: Provenance, key: str, _: Content) -> Sequence[Example]:
    return asset_examples(provenance.uri, source, unit, key, provenance, source.mesh)


def _document(source: FilesSource, unit: Unit, provenance: Provenance, key: str, content: Content) -> Sequence[Example]:
    data = files.read_file(provenance.uri, source.max_text_bytes)
    role = "body"
    if content.medium == "html":
        text = html_text(data)
    elif content.medium == "text":
        text = plain_text(data)
    elif (form := transcript_form(content.format)) is not None:
        role = "transcript"
        text = "\n".join(cue.text for cue in parse_transcript(data, form))
    else:
        raise RecordDropped("unsupported_type")
    if not text.strip():
        raise RecordDropped("no_text")
    return [make_example(source, unit, key, provenance, text=[Text(role=role, text=text)])]


def _check_size(source: FilesSource, provenance: Provenance) -> None:
    if (provenance.length or 0) > source.max_file_bytes:
        raise BadRecord("file_too_large", f"{provenance.length} bytes; at most {source.max_file_bytes}")


_MEDIA = ("image", "audio", "video", "mesh")
_DECODERS: dict[str, _Decode] = {
    "image": _picture,
    "audio": _sound,
    "video": _film,
    "mesh": _asset,
    "text": _document,
    "html": _document,
    "transcript": _document,
}
