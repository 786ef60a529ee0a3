"""Lists that say what is in pictures: ImageNet, iNaturalist, Places365, SUN397, CUB-200."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Literal, NamedTuple

from omnimill.errors import BadRecord, RecordDropped
from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures, Described, PictureRecord
from omnimill.pipelines.adapters.annotation_index import Row, Said
from omnimill.pipelines.adapters.annotation_rows import annotation_paths, json_rows, text_lines
from omnimill.pipelines.adapters.fields import keyed, objects
from omnimill.pipelines.adapters.row_pictures import media_url
from omnimill.pipelines.decoders.text import text_value

Layout = Literal["imagenet", "inaturalist", "places365", "sun397", "cub_200"]
Named = Iterator[tuple[str, str]]


class _Format(NamedTuple):
    """split: the training split. listing: files that list pictures. names: file of classes. pictures: folder.

    rows: of a listing, whose values of kind ``class`` are codes of classes. read_names: codes and names of classes.
    """

    split: str
    listing: tuple[str, ...]
    names: str
    pictures: str
    rows: Callable[[str], Iterator[Row]]
    read_names: Callable[[str, bool], Named]


class PictureLabelsSource(AnnotatedPictures):
    """Pictures with one class each, which becomes ``label``, in words.

    layout: which dataset's files these are; it decides the names of files and how classes are spelled. ImageNet's is
        that of ILSVRC with its ``ImageSets``, in which the folder of a training picture is its synset.
    split: as the dataset's files spell it; None: the layout's training split.
    listing: the file that lists pictures, with ``{split}``; None: those of the layout.
    names: the file that gives classes names; None: that of the layout.
    pictures: None: the layout's folder below `path`.
    common_names: of iNaturalist, the common name instead of the scientific one where there is one.
    """

    bytes_per_medium: ClassVar[int] = 60

    type: Literal["picture_labels"]
    layout: Layout
    split: str | None = None
    listing: str | None = None
    names: str | None = None
    common_names: bool = False

    def annotation_files(self) -> Sequence[tuple[str, str]]:
        layout = _FORMATS[self.layout]
        split = self.split or layout.split
        listing = layout.listing if self.listing is None else (self.listing,)
        found = [("listing", url) for url in annotation_paths(self.path, listing, split=split)]
        return [*found, *(("names", url) for url in self._names() if url not in [known for _, known in found])]

    def rows(self, kind: str, uri: str) -> Iterator[Row]:
        if kind == "names":
            return
        layout = _FORMATS[self.layout]
        names = dict(named for url in self._names() for named in layout.read_names(url, self.common_names))
        for row in layout.rows(uri):
            if row.kind != "class" or isinstance(row.value, BadRecord):
                yield row
            elif row.value in names:
                yield row._replace(kind="label", value=names[row.value])
            else:
                yield row._replace(
                    key=None, value=BadRecord("category_unknown", f"{row.key}: no name of {row.value!r}")
                )

    def media(self, key: str, said: Said, common: Said) -> Sequence[str]:  # noqa: ARG002
        layout = _FORMATS[self.layout]
        split = self.split or layout.split
        training = split == "train"
        if said.get("training", [training]) != [training]:
            raise RecordDropped("other_split")
        if "label" not in said:
            raise RecordDropped("no_label")
        picture = text_value(said["picture"][0] if "picture" in said else key, "picture")
        return [media_url(self.folder(layout.pictures.format(split=split)), picture)]

    def described(self, record: PictureRecord) -> Described:
        found = Described()
        for label in dict.fromkeys(record.said["label"]):
            found.say("label", label)
        return found

    def _names(self) -> list[str]:
        layout = _FORMATS[self.layout]
        return annotation_paths(self.path, [self.names or layout.names], split=self.split or layout.split)


def _pairs(uri: str) -> Iterator[tuple[str, str]]:
    """Lines of a word and the rest; the rest is empty where there is none."""
    for _, line in text_lines(uri):
        word, _, rest = line.strip().partition(" ")
        yield word, rest.strip()


def _imagenet_rows(uri: str) -> Iterator[Row]:
    for name, _ in _pairs(uri):
        yield Row(f"{name}.JPEG", "class", name.partition("/")[0])


def _imagenet_names(uri: str, common: bool) -> Named:  # noqa: ARG001
    return ((synset, words.partition(",")[0].strip()) for synset, words in _pairs(uri))


def _inaturalist_rows(uri: str) -> Iterator[Row]:
    for name, _, value in json_rows(uri, "images", "annotations"):
        if name == "images":
            row = keyed(value, "id", "picture")
            yield row if row.key is None else row._replace(value=value.get("file_name"))
        else:
            row = keyed(value, "image_id", "class")
            yield row if row.key is None else row._replace(value=str(value.get("category_id")))


def _inaturalist_names(uri: str, common: bool) -> Named:
    for value in objects([value for _, _, value in json_rows(uri, "categories")], "categories"):
        name = (common and value.get("common_name")) or value.get("name")
        yield str(value.get("id")), text_value(name, "name")


def _places_rows(uri: str) -> Iterator[Row]:
    for name, number in _pairs(uri):
        yield Row(name.lstrip("/"), "class", number)


def _places_names(uri: str, common: bool) -> Named:  # noqa: ARG001
    return ((number, _scene(name)) for name, number in _pairs(uri))


def _sun_rows(uri: str) -> Iterator[Row]:
    for name, _ in _pairs(uri):
        yield Row(name.lstrip("/"), "class", name.rsplit("/", 1)[0])


def _sun_names(uri: str, common: bool) -> Named:  # noqa: ARG001
    return ((name, _scene(name)) for name, _ in _pairs(uri))


def _scene(folder: str) -> str:
    """``/a/apartment_building/outdoor`` in words; the first part is the letter that it begins with."""
    parts = folder.strip("/").split("/")
    return ", ".join(part.replace("_", " ") for part in (parts[1:] if len(parts[0]) == 1 else parts))


def _cub_rows(uri: str) -> Iterator[Row]:
    file = uri.rsplit("/", 1)[-1]
    for number, value in _pairs(uri):
        if file == "images.txt":
            yield Row(number, "picture", value)
        elif file == "train_test_split.txt":
            yield Row(number, "training", value == "1")
        else:
            yield Row(number, "class", value)


def _cub_names(uri: str, common: bool) -> Named:  # noqa: ARG001
    return ((number, name.partition(".")[2].replace("_", " ")) for number, name in _pairs(uri))


_FORMATS: dict[Layout, _Format] = {
    "imagenet": _Format(
        "train",
        ("ILSVRC/ImageSets/CLS-LOC/{split}_cls.txt",),
        "LOC_synset_mapping.txt",
        "ILSVRC/Data/CLS-LOC/{split}",
        _imagenet_rows,
        _imagenet_names,
    ),
    "inaturalist": _Format("train", ("{split}.json",), "{split}.json", "", _inaturalist_rows, _inaturalist_names),
    "places365": _Format(
        "train_standard",
        ("places365_{split}.txt",),
        "categories_places365.txt",
        "data_256",
        _places_rows,
        _places_names,
    ),
    "sun397": _Format("Training_01", ("{split}.txt",), "ClassName.txt", "", _sun_rows, _sun_names),
    "cub_200": _Format(
        "train",
        ("images.txt", "image_class_labels.txt", "train_test_split.txt"),
        "classes.txt",
        "images",
        _cub_rows,
        _cub_names,
    ),
}
