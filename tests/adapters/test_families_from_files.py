"""Every family of the published table renders from the files of a dataset: adapter, augmentation, tokens, page.

``--contact-sheet FOLDER`` writes the page to look at, as for ``tests/training/test_contact_sheet.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import family_examples
import pytest
from adapters import fixtures_clip, fixtures_map, fixtures_picture
from adapters.round_trip import read
from contact_sheet import Page, Sheet

from omnimill.infra.dataset import Dataset
from omnimill.mixtures.task_families import families
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.process import process_unit
from omnimill.schema import Example
from omnimill.training.showing.page import write_page

FORMATS = {**fixtures_picture.FORMATS, **fixtures_map.FORMATS, **fixtures_clip.FORMATS}
# The published format that a family is shown from.
FORMAT_OF = {
    "3d": "omni3d",
    "action-from-picture": "vima",
    "audio-captioning": "clotho",
    "audio-from-text": "audiocaps",
    "audio-from-video": "vggsound",
    "audio-tagging": "vggsound",
    "controllable-image-editing": "multi_gen",
    "depth-estimation": "taskonomy_depth",
    "image-captioning": "coco",
    "image-editing": "magicbrush",
    "image-from-text": "coco",
    "image-instruction-following": "llava",
    "image-pair-qa": "nlvr2",
    "image-tagging": "imagenet",
    "keypoint-detection": "coco",
    "localized-segmentation": "coco",
    "music-captioning": "musiccaps",
    "next-frame-generation": "got10k",
    "object-detection": "coco",
    "object-localization": "open_images",
    "optical-flow": "sintel",
    "paragraph-captioning": "paragraphs",
    "referring-expression": "refcoco",
    "referring-expression-segmentation": "refcoco",
    "region-captioning": "visual_genome",
    "region-classification": "visual_genome",
    "relationship-prediction": "visual_genome",
    "scene-tagging": "places365",
    "semantic-segmentation": "class_masks",
    "species-tagging": "inaturalist",
    "speech-transcription": "ljspeech",
    "surface-normal-estimation": "frame_net",
    "text-detection": "coco_text",
    "text-instruction-following": "flan",
    "video-action-localization": "ava",
    "video-captioning": "msrvtt",
    "video-instruction-following": "mimic_it",
    "video-question-answering": "msrvtt_qa",
    "video-sound-localization": "flickr_soundnet",
    "video-tagging": "kinetics",
    "video-tracking": "lasot",
    "vqa": "vqa_v2",
}
# Families that an operator makes of a format, and its settings.
AUGMENTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "caption-longer": ("coco", "augment_captions", {"variants": ["longer"]}),
    "detection-any-of": ("coco", "augment_detection", {"variants": ["any_of"]}),
    "expressions-in-order": ("refcoco", "augment_detection", {"variants": ["several"]}),
    "image-inpainting": ("coco", "augment_inpainting", {"min_share": 0.01}),
    "normals-channels": ("frame_net", "augment_normals", {"variants": ["channels"]}),
    "relations-of-class": ("visual_genome", "augment_relations", {"variants": ["of_class"]}),
    "segmentation-any-of": ("coco", "augment_segmentation", {"variants": ["any_of"]}),
}
# Of the published table, families whose data are not read by an adapter: text, robots, agents and views have sources
# of their own, and tests of their own.
OTHER_SOURCES = {
    "action-prediction",
    "embodied-qa",
    "goal-generation",
    "language-modeling",
    "next-frame-state-prediction",
    "view-synthesis",
}


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Sheet:
    used = {*FORMAT_OF.values(), *(entry[0] for entry in AUGMENTED.values())}
    folder = tmp_path_factory.mktemp("files")
    by_format = {name: read(FORMATS[name](folder / name))[0] for name in sorted(used)}
    examples: dict[str, Example] = {}
    for family, name in FORMAT_OF.items():
        examples[family] = Sheet.serving(family, by_format[name])
    for family, (name, operator, settings) in AUGMENTED.items():
        copies = read(FORMATS[name](folder / f"{name}-again-{family}"))[0]
        made = [one for one in copies if family_examples.verdict(operator, settings, one) is None]
        examples[family] = Sheet.serving(family, made)
    return Sheet(examples)


def test_every_published_family_is_shown_from_files_or_has_other_sources() -> None:
    published = {name for name, family in families().items() if family.part_of is None}
    assert published == ({*FORMAT_OF, *AUGMENTED} & published) | OTHER_SOURCES
    assert not OTHER_SOURCES & {*FORMAT_OF, *AUGMENTED}


def test_families_render_from_published_files(sheet: Sheet, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for name, shown in sheet.shown.items():
        assert shown.writes or shown.target_pictures or shown.target_clips, name
        assert len(shown.reads) > 2, name
    path = Path(request.config.getoption("--contact-sheet") or tmp_path) / "contact-sheet-of-files.html"
    write_page(path, "Contact sheet of files in published formats", list(sheet.shown.values()))
    page = Page(path.read_text())
    assert set(sheet.examples) <= page.ids
    assert (page.outside, page.unnamed) == ([], [])


def test_an_ingestion_with_augmentation_is_the_same_whatever_the_number_of_threads(tmp_path: Path) -> None:
    adding = [{"op": "augment_captions"}, {"op": "augment_detection"}, {"op": "augment_segmentation"}]
    adding += [{"op": "augment_boxes"}, {"op": "augment_keypoints"}]
    coco = FORMATS["coco"](tmp_path / "coco")
    dag = Dag.model_validate(
        {
            "dataset": "made",
            "sources": [
                {"name": "coco", **coco, "operators": adding},
                {"name": "coco_inpainting", **coco, "operators": [{"op": "augment_inpainting", "min_share": 0.5}]},
            ],
        }
    )
    written = []
    for pipeline in dag.sources:
        (unit,) = pipeline.source.units()
        roots = [str(tmp_path / f"{pipeline.source.name}-{threads}") for threads in (1, 4)]
        commits = [
            process_unit(pipeline.source, pipeline.operators, unit, Dataset(root, "made"), threads=threads)
            for root, threads in zip(roots, (1, 4), strict=True)
        ]
        assert commits[0] == commits[1]
        rows = [row for ref in commits[0].shards for row in Dataset(roots[0], "made").read(ref).to_pylist()]
        written.append((commits[0].counts.as_json()["examples"], rows))
    (added, augmented), (cut, holed) = written
    assert added == {"written": 2, "dropped": {}}
    roles = {text["role"] for row in augmented for text in row["text"]}
    assert {"more_than", "fitting_caption", "any_of", "none_of", "wanted", "several", "part"} <= roles
    assert cut == {"written": 1, "dropped": {"no_large_object": 1}}
    assert [target["role"] for target in holed[0]["targets"]] == ["picture"]
