"""Open Images: boxes, verified labels, masks, relationships and spoken descriptions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures
from omnimill.pipelines.adapters.picture_objects import ObjectSettings

Kind = Literal["labels", "boxes", "masks", "narratives", "relationships"]


class OpenImagesSource(AnnotatedPictures):
    """Open Images V7 (Kuznetsova et al., 2018, arXiv 1811.00982; Pont-Tuset et al., 2019, arXiv 1912.03098) as its CSV
    files come, all in one folder, with ``{ImageID}.jpg`` in a folder per split.

    Labels count where people said yes or no: what is confirmed becomes ``label``. Boxes around groups
    (``IsGroupOf``) count for regions, not for lists of all objects. Narratives become captions.

    annotations: which files are read; globs, several may fit. ``{split}`` in them is `split`.
    masks_folder: where the PNG files named by ``MaskPath`` lie, also in folders below.
    class_names, predicate_names: of labels and relationships; from code to name.
    pictures: by default ``{path}/{split}``.
    max_labels: of a picture.
    """

    type: Literal["open_images"]
    split: str = "train"
    annotations: tuple[Kind, ...] = ("labels", "boxes", "masks", "narratives", "relationships")
    labels: tuple[str, ...] = ("*{split}-annotations-human-imagelabels.csv",)
    boxes: tuple[str, ...] = ("*{split}-annotations-bbox.csv",)
    masks: tuple[str, ...] = ("*{split}-annotations-object-segmentation.csv",)
    narratives: tuple[str, ...] = ("open_images_{split}*localized_narratives*.jsonl",)
    relationships: tuple[str, ...] = ("*{split}-annotations-vrd.csv",)
    masks_folder: str = "{split}-masks"
    class_names: tuple[str, ...] = ("*class-descriptions*.csv",)
    predicate_names: tuple[str, ...] = ("*relationships-description.csv", "*attributes-description.csv")
    objects: ObjectSettings = ObjectSettings()
    max_labels: int = Field(32, ge=0)
