"""Lists that say what is in pictures: ImageNet, iNaturalist, Places365, SUN397, CUB-200."""

from __future__ import annotations

from typing import Literal

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures

Layout = Literal["imagenet", "inaturalist", "places365", "sun397", "cub_200"]


class PictureLabelsSource(AnnotatedPictures):
    """Pictures with one class each, which becomes ``label``, in words.

    layout: which dataset's files these are; it decides the names of files and how classes are spelled.
    split: as the dataset's files spell it; None: the layout's training split.
    listing: the file that lists pictures, with ``{split}``; None: that of the layout.
    names: the file that gives classes names; None: that of the layout.
    pictures: None: the layout's folder below `path`.
    common_names: of iNaturalist, the common name instead of the scientific one where there is one.
    """

    type: Literal["picture_labels"]
    layout: Layout
    split: str | None = None
    listing: str | None = None
    names: str | None = None
    common_names: bool = False
