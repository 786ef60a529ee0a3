"""Statements about pictures that are true or false: VSR, and NLVR2 with two pictures."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures


class VsrSource(AnnotatedPictures):
    """Visual Spatial Reasoning (Liu et al., 2022, arXiv 2205.00363): ``train.jsonl``, pictures of COCO 2017.

    An item is a statement (``question``) with the answer true or false.

    file: JSON Lines, ``{split}`` is `split`. pictures: by default ``{path}/images``.
    """

    type: Literal["vsr"]
    split: str = "train"
    file: str = "{split}.jsonl"
    max_statements: int = Field(16, ge=1)


class Nlvr2Source(AnnotatedPictures):
    """NLVR2 (Suhr et al., 2018, arXiv 1811.00491): statements about two pictures, ``data/train.json``.

    An example is a pair of pictures, the left one first; an item is a statement (``question``) with the answer true or
    false.

    file: JSON Lines, ``{split}`` is `split`. pictures: by default ``{path}/images/{split}``, for training in folders by
        ``directory``.
    """

    type: Literal["nlvr2"]
    split: str = "train"
    file: str = "data/{split}.json"
    max_statements: int = Field(16, ge=1)
