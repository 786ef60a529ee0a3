"""RefCOCO, RefCOCO+ and RefCOCOg: expressions that single out an object of a picture of COCO."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures


class RefCocoSource(AnnotatedPictures):
    """Referring expressions (Kazemzadeh et al., 2014; Mao et al., 2015, arXiv 1511.02283; Yu et al., 2016, arXiv
    1608.00272): ``{dataset}/refs({splits_by}).p`` beside ``{dataset}/instances.json``.

    The published file is a pickle. It is read as a list of operations that build texts, numbers, lists and
    dictionaries; any other operation is refused, none is executed. A JSON file of the same content will do as well.

    An item is an object: its expressions, its box and, with `masks`, its mask.

    split: train, val, testA, testB or test.
    refs, instances: file names, with ``{dataset}`` and ``{splits_by}``.
    pictures: folder of COCO's train2014, by default ``{path}/train2014``.
    """

    type: Literal["refcoco"]
    dataset: Literal["refcoco", "refcoco+", "refcocog", "refclef"] = "refcoco"
    splits_by: Literal["unc", "google", "umd", "berkeley"] = "unc"
    split: str = "train"
    refs: str = "{dataset}/refs({splits_by}).p"
    instances: str = "{dataset}/instances.json"
    masks: bool = True
    max_items: int = Field(16, ge=1)
