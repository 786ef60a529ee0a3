"""Visual Genome: described regions, objects, attributes, relationships, questions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from omnimill.pipelines.adapters.annotated_pictures import AnnotatedPictures
from omnimill.pipelines.adapters.picture_objects import ObjectSettings

Kind = Literal["regions", "objects", "attributes", "relationships", "questions"]


class VisualGenomeSource(AnnotatedPictures):
    """Visual Genome (Krishna et al., 2016, arXiv 1602.07332) as its JSON files come, with VG_100K and VG_100K_2.

    annotations: which files are read besides ``image_data.json``, which says how large the pictures are.
    pictures: folder that has VG_100K and VG_100K_2, by default `path`.
    objects: what objects, regions and relationships become; attributes go before the name of an object's region.
    max_questions: of a picture.
    """

    type: Literal["visual_genome"]
    annotations: tuple[Kind, ...] = ("regions", "objects", "attributes", "relationships", "questions")
    image_data: str = "image_data.json"
    region_descriptions: str = "region_descriptions.json"
    object_names: str = "objects.json"
    attributes: str = "attributes.json"
    relationships: str = "relationships.json"
    question_answers: str = "question_answers.json"
    objects: ObjectSettings = ObjectSettings()
    max_questions: int = Field(16, ge=0)
