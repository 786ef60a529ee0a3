"""Visual Storytelling: a story in sentences along a sequence of pictures."""

from __future__ import annotations

from typing import Literal

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures


class VisualStoriesSource(AnnotatedPictures):
    """VIST (Huang et al., 2016, arXiv 1604.03968): ``sis/train.story-in-sequence.json`` beside pictures by id.

    An example is a story: its pictures in order, each with its sentence as ``caption``, and an item whose ``answer`` is
    the last sentence and whose ``question`` holds those before it. A story that lacks a picture is quarantined.

    file: ``{split}`` is `split`. pictures: by default ``{path}/images/{split}``; ``{photo id}.jpg`` or ``.png``.
    """

    type: Literal["visual_stories"]
    split: str = "train"
    file: str = "sis/{split}.story-in-sequence.json"
