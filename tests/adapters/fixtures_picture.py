"""Small copies of published datasets of annotated pictures, in their files, names and units.

``FORMATS`` gives for every format a function that writes it below a folder and returns the source that reads it.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow
from pycocotools import mask as coco_masks

Source = dict[str, Any]
Array = npt.NDArray[Any]
WIDTH, HEIGHT = 96, 64


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_json(path: Path, said: Any) -> None:
    put(path, json.dumps(said).encode())


def put_lines(path: Path, rows: Sequence[Any]) -> None:
    put(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def put_text(path: Path, *lines: str) -> None:
    put(path, "".join(f"{line}\n" for line in lines).encode())


def put_picture(path: Path, number: int = 0, width: int = WIDTH, height: int = HEIGHT) -> None:
    """A grey picture with a bright square that moves with its number."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    pixels[8:24, 4 + 8 * number : 20 + 8 * number] = (230, 200, 50)
    put_pixels(path, pixels)


def put_pixels(path: Path, pixels: Array) -> None:
    stream = io.BytesIO()
    form = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG"}[path.suffix.lower().lstrip(".")]
    Pillow.fromarray(pixels).save(stream, form, **({"quality": 95} if form == "JPEG" else {}))
    put(path, stream.getvalue())


def rectangle(left: int, top: int, width: int, height: int) -> Array:
    """A mask, bool [HEIGHT, WIDTH]."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def polygon(left: float, top: float, width: float, height: float) -> list[float]:
    return [left, top, left + width, top, left + width, top + height, left, top + height]


def run_lengths(mask: Array) -> dict[str, Any]:
    """COCO's uncompressed run lengths, as crowds have them."""
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat.astype(np.int8), [2]])))
    counts = np.diff(np.concatenate([[0], edges]))
    return {"counts": [int(count) for count in counts], "size": list(mask.shape)}


def compressed(mask: Array) -> dict[str, Any]:
    told = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"counts": told["counts"].decode(), "size": list(told["size"])}


COCO_CATEGORIES = [
    {"supercategory": "person", "id": 1, "name": "person"},
    {"supercategory": "animal", "id": 18, "name": "dog"},
    {"supercategory": "sports", "id": 37, "name": "sports ball"},
]
COCO_BOXES = {"dog": [12.0, 8.0, 24.0, 32.0], "ball": [60.0, 40.0, 10.0, 10.0], "person": [40.5, 2.25, 16.0, 60.0]}
# x, y, visibility of the 17 parts.
KEYPOINTS = [value for part in range(17) for value in ((41 + part, 4 + 3 * part, 2) if part % 3 else (0, 0, 0))]


def coco_image(number: int, split: str = "train2017", prefix: str = "") -> dict[str, Any]:
    return {
        "license": 3,
        "file_name": f"{prefix}{number:012d}.jpg",
        "coco_url": f"http://images.cocodataset.org/{split}/{number:012d}.jpg",
        "height": HEIGHT,
        "width": WIDTH,
        "date_captured": "2013-11-14 11:18:45",
        "flickr_url": "http://farm9.staticflickr.com/x.jpg",
        "id": number,
    }


def coco_instances(prefix: str = "") -> dict[str, Any]:
    """Three objects and a crowd in picture 9, one object in picture 25, and picture 30 without any."""

    def thing(number: int, image: int, category: int, box: list[float], **other: Any) -> dict[str, Any]:
        segmentation = {"segmentation": [polygon(*box)], "area": box[2] * box[3], "iscrowd": 0}
        return {"id": number, "image_id": image, "category_id": category, "bbox": box, **segmentation, **other}

    crowd = run_lengths(rectangle(70, 4, 20, 8))
    return {
        "info": {"description": "COCO 2017 Dataset"},
        "licenses": [{"id": 3, "name": "Attribution-NonCommercial-NoDerivs License"}],
        "images": [coco_image(number, prefix=prefix) for number in (9, 25, 30)],
        "annotations": [
            thing(1, 9, 18, COCO_BOXES["dog"]),
            thing(2, 9, 37, COCO_BOXES["ball"], segmentation=compressed(rectangle(60, 40, 10, 10))),
            thing(3, 9, 1, COCO_BOXES["person"]),
            thing(900100000001, 9, 1, [70, 4, 20, 8], segmentation=crowd, iscrowd=1),
            thing(4, 25, 18, [0.0, 0.0, 96.0, 64.0]),
        ],
        "categories": COCO_CATEGORIES,
    }


def coco(folder: Path) -> Source:
    for number in (9, 25, 30):
        put_picture(folder / f"train2017/{number:012d}.jpg", number % 5)
    put_json(folder / "annotations/instances_train2017.json", coco_instances())
    captions = [{"image_id": 9, "id": i, "caption": text} for i, text in enumerate(("A dog runs.", "A man and a dog."))]
    images = [coco_image(number) for number in (9, 25, 30)]
    put_json(folder / "annotations/captions_train2017.json", {"images": images, "annotations": captions})
    person = coco_instances()["annotations"][2] | {"keypoints": KEYPOINTS, "num_keypoints": 11}
    people = {"images": images, "annotations": [person], "categories": COCO_CATEGORIES[:1]}
    put_json(folder / "annotations/person_keypoints_train2017.json", people)
    return {"type": "coco", "path": str(folder)}


def coco_panoptic(folder: Path) -> Source:
    source = coco(folder)
    ids = np.full((HEIGHT, WIDTH), 7 + 256 * 3, np.int64)
    ids[rectangle(12, 8, 24, 32)] = 5 + 65536
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    put_pixels(folder / "annotations/panoptic_train2017/000000000009.png", colours)
    segments = [
        {"id": 5 + 65536, "category_id": 18, "area": 768, "bbox": [12, 8, 24, 32], "iscrowd": 0},
        {"id": 7 + 256 * 3, "category_id": 154, "area": 5376, "bbox": [0, 0, 96, 64], "iscrowd": 0},
    ]
    told = {"image_id": 9, "file_name": "000000000009.png", "segments_info": segments}
    sand = {"supercategory": "ground", "isthing": 0, "id": 154, "name": "sand"}
    categories = [*({"isthing": 1} | one for one in COCO_CATEGORIES), sand]
    said = {"images": [coco_image(9)], "annotations": [told], "categories": categories}
    put_json(folder / "annotations/panoptic_train2017.json", said)
    return source | {"annotations": ["panoptic", "instances"]}


WORDS = {"STOP": [10.0, 12.0, 30.0, 8.0], "Main": [50.0, 20.0, 24.0, 6.0], "": [2.0, 2.0, 4.0, 4.0]}


def coco_text(folder: Path) -> Source:
    name = "COCO_train2014_000000217925.jpg"
    put_picture(folder / "train2014" / name)
    image = {"id": 217925, "set": "train", "width": WIDTH, "height": HEIGHT, "file_name": name}
    other = {"id": 5, "set": "val", "width": WIDTH, "height": HEIGHT, "file_name": "COCO_train2014_000000000005.jpg"}
    anns = {
        str(45000 + place): {
            "mask": polygon(*box),
            "class": "machine printed",
            "bbox": box,
            "image_id": 217925,
            "id": 45000 + place,
            "language": "english" if word else "na",
            "area": box[2] * box[3],
            "utf8_string": word,
            "legibility": "legible" if word else "illegible",
        }
        for place, (word, box) in enumerate(WORDS.items())
    }
    said = {"cats": {}, "anns": anns, "imgs": {"217925": image, "5": other}, "imgToAnns": {}, "info": {}}
    put_json(folder / "cocotext.v2.json", said)
    return {"type": "coco_text", "path": str(folder)}


def lvis(folder: Path) -> Source:
    put_picture(folder / "train2017/000000000042.jpg")
    image = coco_image(42) | {"not_exhaustive_category_ids": [2], "neg_category_ids": [3]}
    del image["file_name"]
    names = {1: "sofa", 2: "cup", 3: "crab_(animal)"}
    categories = [
        {"id": i, "name": name, "synonyms": [name], "def": "", "frequency": "c", "synset": f"{name}.n.01"}
        for i, name in names.items()
    ]
    boxes = {1: [10.0, 20.0, 60.0, 30.0], 2: [40.0, 10.0, 8.0, 8.0]}
    annotations = [
        {"id": i, "image_id": 42, "category_id": i, "bbox": box, "area": 1.0, "segmentation": [polygon(*box)]}
        for i, box in boxes.items()
    ]
    said = {"info": {}, "images": [image], "annotations": annotations, "categories": categories, "licenses": []}
    put_json(folder / "lvis_v1_train.json", said)
    return {"type": "lvis", "path": str(folder)}


def open_images(folder: Path) -> Source:
    key, cat, table, tree = "000026e7ee790996", "/m/01yrx", "/m/04bcr3", "/m/07j7r"
    put_picture(folder / f"train/{key}.jpg")
    put_text(
        folder / "oidv6-train-annotations-bbox.csv",
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside",
        f"{key},xclick,{cat},1,0.125,0.375,0.25,0.75,0,0,0,0,0",
        f"{key},xclick,{table},1,0.5,1,0.5,1,0,0,0,0,0",
        f"{key},xclick,{tree},1,0.4375,0.5625,0.0625,0.4375,0,1,1,0,0",
    )
    put_text(
        folder / "train-annotations-human-imagelabels-boxable.csv",
        "ImageID,Source,LabelName,Confidence",
        f"{key},verification,{cat},1",
        f"{key},verification,{tree},0",
    )
    put_text(
        folder / "train-annotations-object-segmentation.csv",
        "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks",
        f"{key}_m01yrx_34fbc4fa.png,{key},{cat},34fbc4fa,0.125,0.375,0.25,0.75,0.86864,0.1 0.2 1;0.3 0.4 0",
    )
    mask = np.kron(rectangle(12, 16, 24, 32), np.ones((2, 2), bool))
    stream = io.BytesIO()
    Pillow.fromarray(mask).save(stream, "PNG")
    put(folder / f"train-masks/{key}_m01yrx_34fbc4fa.png", stream.getvalue())
    put_text(
        folder / "oidv6-train-annotations-vrd.csv",
        "ImageID,LabelName1,LabelName2,XMin1,XMax1,YMin1,YMax1,XMin2,XMax2,YMin2,YMax2,RelationshipLabel",
        f"{key},{cat},{table},0.125,0.375,0.25,0.75,0.5,1,0.5,1,inside_of",
        f"{key},{table},/m/083vt,0.5,1,0.5,1,0.5,1,0.5,1,is",
    )
    narrative = {
        "dataset_id": "open_images_train",
        "image_id": key,
        "annotator_id": 12,
        "caption": "In this image I can see a cat.",
        "timed_caption": [{"utterance": "In", "start_time": 0.0, "end_time": 0.4}],
        "traces": [[{"x": 0.2, "y": 0.3, "t": 0.01}]],
        "voice_recording": "open_images_train/x.ogg",
    }
    put_lines(folder / "open_images_train_v6_localized_narratives-00000-of-00010.jsonl", [narrative])
    put_text(folder / "class-descriptions-boxable.csv", f"{cat},Cat", f"{table},Table", f"{tree},Tree")
    put_text(folder / "oidv6-attributes-description.csv", "/m/083vt,Wooden")
    return {"type": "open_images", "path": str(folder)}


def visual_genome(folder: Path) -> Source:
    put_picture(folder / "VG_100K_2/1.jpg")
    url = "https://cs.stanford.edu/people/rak248/VG_100K_2/1.jpg"
    image = {"image_id": 1, "url": url, "width": WIDTH, "height": HEIGHT, "coco_id": None, "flickr_id": None}
    put_json(folder / "image_data.json", [image])
    region = {
        "region_id": 1382,
        "width": 48,
        "height": 32,
        "image_id": 1,
        "phrase": "the clock is green",
        "y": 16,
        "x": 24,
    }
    put_json(folder / "region_descriptions.json", [{"id": 1, "regions": [region]}])
    clock = {"object_id": 1058, "x": 24, "y": 16, "w": 48, "h": 32, "names": ["clock"], "synsets": ["clock.n.01"]}
    street = {"object_id": 5046, "x": 0, "y": 32, "w": 96, "h": 32, "names": ["street"], "synsets": ["street.n.01"]}
    both = [one | {"merged_object_ids": []} for one in (clock, street)]
    put_json(folder / "objects.json", [{"image_id": 1, "objects": both, "image_url": url}])
    put_json(
        folder / "attributes.json", [{"image_id": 1, "attributes": [clock | {"attributes": ["green", "tall"]}, street]}]
    )
    ends = {"subject": {"name": "clock", **clock}, "object": {"name": "street", **street}}
    relation = {"relationship_id": 15927, "predicate": "ON", "synsets": ["along.r.01"], **ends}
    put_json(folder / "relationships.json", [{"image_id": 1, "relationships": [relation]}])
    qa = {"a_objects": [], "question": "What colour is the clock?", "image_id": 1, "qa_id": 986768, "answer": "Green."}
    put_json(folder / "question_answers.json", [{"id": 1, "qas": [qa | {"q_objects": []}]}])
    return {"type": "visual_genome", "path": str(folder)}


def references() -> list[dict[str, Any]]:
    def ref(number: int, annotation: int, split: str, *sentences: str) -> dict[str, Any]:
        told = [
            {"tokens": text.split(), "raw": text.title(), "sent_id": 10 * number + i, "sent": text}
            for i, text in enumerate(sentences)
        ]
        return {
            "sent_ids": [one["sent_id"] for one in told],
            "file_name": f"COCO_train2014_{9:012d}_{annotation}.jpg",
            "ann_id": annotation,
            "ref_id": number,
            "image_id": 9,
            "split": split,
            "sentences": told,
            "category_id": 18,
        }

    return [
        ref(1, 1, "train", "the dog", "brown dog on the left"),
        ref(2, 2, "train", "ball"),
        ref(3, 3, "val", "man"),
    ]


def refcoco(folder: Path, protocol: int = 2) -> Source:
    put_picture(folder / "train2014/COCO_train2014_000000000009.jpg")
    put_json(folder / "refcoco/instances.json", coco_instances(prefix="COCO_train2014_"))
    put(folder / "refcoco/refs(unc).p", pickle.dumps(references(), protocol))
    return {"type": "refcoco", "path": str(folder)}


def _qa(layout: str, folder: Path, **settings: Any) -> Source:
    return {"type": "picture_qa", "layout": layout, "path": str(folder), **settings}


def vqa_v2(folder: Path, layout: str = "vqa_v2", prefix: str = "v2_") -> Source:
    put_picture(folder / "train2014/COCO_train2014_000000458752.jpg")
    asked = {"image_id": 458752, "question": "What is this photo taken looking through?", "question_id": 458752000}
    put_json(folder / f"{prefix}OpenEnded_mscoco_train2014_questions.json", {"info": {}, "questions": [asked]})
    answers = [
        {"answer": "net" if i < 8 else "netting", "answer_confidence": "maybe", "answer_id": i} for i in range(1, 11)
    ]
    told = {
        "question_type": "what is this",
        "multiple_choice_answer": "net",
        "answers": answers,
        "image_id": 458752,
        "answer_type": "other",
        "question_id": 458752000,
    }
    put_json(folder / f"{prefix}mscoco_train2014_annotations.json", {"annotations": [told]})
    return _qa(layout, folder)


def a_okvqa(folder: Path) -> Source:
    put_picture(folder / "train2017/000000299207.jpg")
    said = {
        "split": "train",
        "image_id": 299207,
        "question_id": "22MexNkBPpdZGX6sxbxVBH",
        "question": "What is the man by the bags awaiting?",
        "choices": ["skateboarder", "train", "delivery", "cab"],
        "correct_choice_idx": 3,
        "direct_answers": ["ride", "ride", "bus", "taxi"],
        "difficult_direct_answer": False,
        "rationales": ["A train would not be on the street.", "He would be looking for a cab."],
    }
    put_json(folder / "aokvqa_v1p0_train.json", [said])
    return _qa("a_okvqa", folder)


def gqa(folder: Path) -> Source:
    put_picture(folder / "images/2354786.jpg")
    said = {
        "question": "Is the sky dark?",
        "imageId": "2354786",
        "answer": "yes",
        "fullAnswer": "Yes, the sky is dark.",
    }
    put_json(folder / "train_balanced_questions.json", {"02930152": {"semantic": [], **said, "isBalanced": True}})
    return _qa("gqa", folder)


def text_vqa(folder: Path) -> Source:
    put_picture(folder / "train_images/0054c91397f2fe05.jpg")
    said = {
        "question": "what is the brand of phone?",
        "image_id": "0054c91397f2fe05",
        "image_classes": ["Telephone"],
        "answers": ["nokia"] * 9 + ["toshiba"],
        "question_id": 0,
        "set_name": "train",
    }
    put_json(folder / "TextVQA_0.5.1_train.json", {"dataset_type": "train", "data": [said]})
    return _qa("text_vqa", folder)


def st_vqa(folder: Path) -> Source:
    put_picture(folder / "coco-text/COCO_train2014_000000456496.jpg")
    said = {
        "answers": ["single", "1"],
        "file_name": "COCO_train2014_000000456496.jpg",
        "file_path": "coco-text/COCO_train2014_000000456496.jpg",
        "question": "What does the sign say?",
        "question_id": 0,
        "set_name": "train",
        "dataset": "coco-text",
    }
    put_json(folder / "train_task_3.json", {"task_name": "3 - Open Dictionary", "data": [said]})
    return _qa("st_vqa", folder)


def ocr_vqa(folder: Path) -> Source:
    put_picture(folder / "images/1588382341.jpg")
    book = {
        "authorName": "A. Writer",
        "genre": "Cookbooks",
        "imageURL": "http://ecx.images-amazon.com/images/I/51l6XIoa3rL.jpg",
        "questions": ["Who wrote this book?", "What is the genre of this book?"],
        "answers": ["A. Writer", "Cookbooks"],
        "split": 1,
        "title": "With Schwinn",
    }
    put_json(folder / "dataset.json", {"1588382341": book, "000000000X": book | {"split": 3}})
    return _qa("ocr_vqa", folder)


def doc_vqa(folder: Path) -> Source:
    put_picture(folder / "documents/xnbl0037_1.png")
    said = {
        "questionId": 337,
        "question": "what is the date mentioned in this letter?",
        "image": "documents/xnbl0037_1.png",
        "docId": 279,
        "answers": ["1/8/93"],
        "data_split": "train",
    }
    put_json(folder / "train_v1.0_withQT.json", {"dataset_name": "docvqa", "dataset_split": "train", "data": [said]})
    return _qa("doc_vqa", folder)


def vizwiz(folder: Path) -> Source:
    put_picture(folder / "train/VizWiz_train_00000000.jpg")
    given = [{"answer_confidence": "yes", "answer": "basil leaves"}] * 6 + [
        {"answer_confidence": "no", "answer": "basil"}
    ]
    said = {"image": "VizWiz_train_00000000.jpg", "question": "What's the name of this product?", "answers": given}
    put_json(folder / "Annotations/train.json", [said | {"answer_type": "other", "answerable": 1}])
    return _qa("vizwiz", folder)


def tally_qa(folder: Path) -> Source:
    put_picture(folder / "VG_100K_2/2410408.jpg")
    said = {
        "image": "VG_100K_2/2410408.jpg",
        "answer": 2,
        "data_source": "imported_genome",
        "question": "How many men are wearing ties?",
        "image_id": 92410408,
        "question_id": 30096622,
    }
    put_json(folder / "train.json", [said])
    return _qa("tally_qa", folder)


def clevr(folder: Path) -> Source:
    put_picture(folder / "images/train/CLEVR_train_000000.png")
    said = {
        "image_index": 0,
        "program": [],
        "question_index": 0,
        "image_filename": "CLEVR_train_000000.png",
        "question_family_index": 2,
        "split": "train",
        "answer": "yes",
        "question": "Are there more big green things than large purple shiny cubes?",
    }
    put_json(folder / "questions/CLEVR_train_questions.json", {"info": {}, "questions": [said]})
    return _qa("clevr", folder)


def science_qa(folder: Path) -> Source:
    put_picture(folder / "train/1/image.png")
    problem = {
        "question": "Which of these states is farthest north?",
        "choices": ["West Virginia", "Louisiana", "Arizona", "Oklahoma"],
        "answer": 0,
        "hint": "",
        "image": "image.png",
        "task": "closed choice",
        "lecture": "Maps have four cardinal directions.",
        "solution": "West Virginia is farthest north.",
        "split": "train",
    }
    problems = {"1": problem, "2": problem | {"image": None}, "4": problem | {"split": "test"}}
    put_json(folder / "problems.json", problems)
    return _qa("science_qa", folder, rationales=True)


def vcr(folder: Path) -> Source:
    name = "lsmdc_3015_CHARLIE_ST_CLOUD/3015_CHARLIE_ST_CLOUD_00.23.57.935-00.24.00.783@0.jpg"
    put_picture(folder / "vcr1images" / name)
    said = {
        "movie": "3015_CHARLIE_ST_CLOUD",
        "objects": ["person", "person", "car"],
        "img_fn": name,
        "metadata_fn": name.replace(".jpg", ".json"),
        "question": ["Does", [0], "feel", "comfortable", "with", [1, 2], "?"],
        "answer_choices": [["Yes", "she", "does", "."], ["No", ",", [0], "does", "not", "."]],
        "answer_label": 1,
        "rationale_choices": [["She", "looks", "away", "from", [1], "."], ["She", "smiles", "."]],
        "rationale_label": 0,
        "annot_id": "train-1",
        "img_id": "train-0",
    }
    put_lines(folder / "train.jsonl", [said])
    return _qa("vcr", folder)


def visual_mrc(folder: Path) -> Source:
    put_picture(folder / "images/a/1.png")
    said = {
        "id": "1",
        "url": "https://example.org/page",
        "screenshot_filename": "screenshots/a/1.png",
        "image_filename": "images/a/1.png",
        "bounding_boxes": [],
        "qa_data": [{"question": {"text": "Who founded it?"}, "answer": {"text": "Two brothers did.", "relevant": []}}],
    }
    put_lines(folder / "train.jsonl", [said])
    return _qa("visual_mrc", folder)


def class_masks(folder: Path) -> Source:
    put_picture(folder / "images/training/ADE_train_00000001.jpg")
    numbers = np.full((HEIGHT, WIDTH), 3, np.uint8)
    numbers[rectangle(12, 8, 24, 32)] = 13
    numbers[0, 0] = 5
    numbers[60:, :] = 0
    put_pixels(folder / "annotations/training/ADE_train_00000001.png", numbers)
    put_text(
        folder / "objectInfo150.txt",
        "Idx\tRatio\tTrain\tVal\tStuff\tName",
        "3\t0.0878\t8260\t835\t1\tsky",
        "5\t0.0480\t6678\t641\t0\ttree",
        "13\t0.0160\t5041\t524\t0\tperson, individual, someone, somebody, mortal, soul",
    )
    put_text(folder / "sceneCategories.txt", "ADE_train_00000001 airport_terminal")
    return {"type": "class_masks", "path": str(folder)}


def _labels(layout: str, folder: Path, **settings: Any) -> Source:
    return {"type": "picture_labels", "layout": layout, "path": str(folder), **settings}


def imagenet(folder: Path) -> Source:
    put_picture(folder / "ILSVRC/Data/CLS-LOC/train/n01440764/n01440764_10026.JPEG")
    put_text(
        folder / "ILSVRC/ImageSets/CLS-LOC/train_cls.txt", "n01440764/n01440764_10026 1", "n09999999/n09999999_1 2"
    )
    put_text(folder / "LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus")
    return _labels("imagenet", folder)


def inaturalist(folder: Path) -> Source:
    name = "train/02912_Animalia_Chordata/a5cd8c6b.jpg"
    put_picture(folder / name)
    image = {
        "id": 0,
        "width": WIDTH,
        "height": HEIGHT,
        "file_name": name,
        "license": 0,
        "rights_holder": "Ken-ichi Ueda",
    }
    category = {"id": 2912, "name": "Turdus merula", "common_name": "Eurasian Blackbird", "supercategory": "Birds"}
    annotation = {"id": 0, "image_id": 0, "category_id": 2912}
    said = {"info": {}, "images": [image], "categories": [category], "annotations": [annotation], "licenses": []}
    put_json(folder / "train.json", said)
    return _labels("inaturalist", folder)


def places365(folder: Path) -> Source:
    put_picture(folder / "data_256/a/apartment_building/outdoor/00000001.jpg")
    put_text(folder / "places365_train_standard.txt", "/a/apartment_building/outdoor/00000001.jpg 8")
    put_text(folder / "categories_places365.txt", "/a/airfield 0", "/a/apartment_building/outdoor 8")
    return _labels("places365", folder)


def sun397(folder: Path) -> Source:
    put_picture(folder / "a/abbey/sun_aaaalbzqrimafwbiv.jpg")
    put_text(folder / "Training_01.txt", "/a/abbey/sun_aaaalbzqrimafwbiv.jpg")
    put_text(folder / "ClassName.txt", "/a/abbey", "/a/airplane_cabin")
    return _labels("sun397", folder)


def cub_200(folder: Path) -> Source:
    name = "001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg"
    put_picture(folder / "images" / name)
    put_text(folder / "images.txt", f"1 {name}", "2 001.Black_footed_Albatross/Black_Footed_Albatross_0009_34.jpg")
    put_text(folder / "image_class_labels.txt", "1 1", "2 1")
    put_text(folder / "train_test_split.txt", "1 1", "2 0")
    put_text(folder / "classes.txt", "1 001.Black_footed_Albatross", "2 002.Laysan_Albatross")
    return _labels("cub_200", folder)


def _captions(layout: str, folder: Path) -> Source:
    return {"type": "picture_captions", "layout": layout, "path": str(folder)}


def _coco_captions(folder: Path, layout: str, file: str, picture: str, *captions: dict[str, Any]) -> Source:
    put_picture(folder / picture)
    image = {"id": 0, "file_name": picture.rsplit("/", 1)[1], "width": WIDTH, "height": HEIGHT}
    said = {"images": [image], "annotations": [{"image_id": 0, "id": i} | one for i, one in enumerate(captions)]}
    put_json(folder / file, said)
    return _captions(layout, folder)


def vizwiz_captions(folder: Path) -> Source:
    plain = {"is_precanned": False, "is_rejected": False, "text_detected": True}
    excuse = {"caption": "Quality issues are too severe to recognize visual content.", **plain, "is_precanned": True}
    said = [{"caption": "A can on a table.", **plain}, excuse, {"caption": "bad", **plain, "is_rejected": True}]
    return _coco_captions(folder, "vizwiz", "annotations/train.json", "train/VizWiz_train_00000000.jpg", *said)


def sci_cap(folder: Path) -> Source:
    said = {"caption": "Figure 3: Loss over time.", "caption_no_index": "Loss over time.", "mention": [[]]}
    return _coco_captions(folder, "sci_cap", "train.json", "train/1001.0025v1-Figure3-1.png", said)


def no_caps(folder: Path) -> Source:
    said = [{"caption": "A baby is standing in front of a house."}, {"caption": "A child by a door."}]
    return _coco_captions(folder, "no_caps", "nocaps_val_4500_captions.json", "images/0013ea2087020901.jpg", *said)


def text_caps(folder: Path) -> Source:
    put_picture(folder / "train_images/6fb9bf8b2ab6b5e3.jpg")
    texts = ["A copy of Metropolis.", "The cover of a magazine."]
    rows = [
        {
            "caption_id": i,
            "caption_str": text,
            "caption_tokens": text.lower().split(),
            "image_id": "6fb9bf8b2ab6b5e3",
            "image_path": "train/6fb9bf8b2ab6b5e3.jpg",
            "reference_strs": texts,
        }
        for i, text in enumerate(texts)
    ]
    put_json(folder / "TextCaps_0.1_train.json", {"dataset_type": "train", "dataset_name": "textcaps", "data": rows})
    return _captions("text_caps", folder)


def paragraphs(folder: Path) -> Source:
    put_picture(folder / "VG_100K/2356347.jpg")
    url = "https://cs.stanford.edu/people/rak248/VG_100K/2356347.jpg"
    text = "A large building with bars on the windows in front of it. There are people walking."
    put_json(folder / "paragraphs_v1.json", [{"url": url, "image_id": 2356347, "paragraph": text}])
    return _captions("paragraphs", folder)


def vsr(folder: Path) -> Source:
    put_picture(folder / "images/000000050403.jpg")
    row = {"image": "000000050403.jpg", "image_link": "http://images.cocodataset.org/train2017/000000050403.jpg"}
    told = {"caption": "The teddy bear is in the person.", "label": 1, "relation": "in", "annotator_id": 31}
    put_lines(
        folder / "train.jsonl", [row | told, row | told | {"caption": "The person is under the bed.", "label": 0}]
    )
    return {"type": "vsr", "path": str(folder)}


def nlvr2(folder: Path) -> Source:
    for side in (0, 1):
        put_picture(folder / f"images/train/40/train-10171-0-img{side}.png", side)
    row = {
        "validation": {"2": "False"},
        "sentence": "An image shows one leather pencil case.",
        "left_url": "https://example.org/left.jpg",
        "writer": "13",
        "label": "False",
        "right_url": "https://example.org/right.jpg",
        "synset": "pencil box",
        "query": "pencil boxes4",
        "identifier": "train-10171-0-0",
        "directory": 40,
    }
    other = row | {"sentence": "There are two cases.", "label": "True", "identifier": "train-10171-0-1"}
    put_lines(folder / "data/train.json", [row, other])
    return {"type": "nlvr2", "path": str(folder)}


def visual_dialog(folder: Path) -> Source:
    put_picture(folder / "val2014/COCO_val2014_000000378466.jpg")
    turns = [
        {"question": 1, "answer": 0, "answer_options": [0, 1], "gt_index": 0},
        {"question": 0, "answer": 1, "answer_options": [0, 1], "gt_index": 1},
    ]
    dialog = {"image_id": 378466, "caption": "a woman with a dog", "dialog": turns}
    data = {"dialogs": [dialog], "questions": ["what breed is it", "is the dog big"], "answers": ["no", "a poodle"]}
    put_json(folder / "visdial_1.0_train.json", {"version": "1.0", "split": "train", "data": data})
    return {"type": "visual_dialog", "path": str(folder)}


def visual_stories(folder: Path) -> Source:
    sentences = ["The day began.", "We went to the park.", "It was fun."]
    for place in range(3):
        put_picture(folder / f"images/train/{693397800 + place}.{'png' if place else 'jpg'}", place)

    def sentence(story: str, place: int, photo: int) -> list[dict[str, Any]]:
        told = {"original_text": sentences[place], "album_id": "44277", "photo_flickr_id": str(photo), "tier": "sis"}
        order = {"story_id": story, "worker_arranged_photo_order": place, "text": sentences[place], "storylet_id": "1"}
        return [{"setting": "first-2-pick-and-tell", **told, **order}]

    said = [sentence("30355", place, 693397800 + place) for place in (2, 0, 1)]
    lost = [sentence("30356", place, 1) for place in (0, 1)]
    put_json(folder / "sis/train.story-in-sequence.json", {"images": [], "annotations": [*said, *lost], "albums": []})
    return {"type": "visual_stories", "path": str(folder)}


FORMATS: dict[str, Callable[[Path], Source]] = {
    "coco": coco,
    "coco_panoptic": coco_panoptic,
    "coco_text": coco_text,
    "lvis": lvis,
    "open_images": open_images,
    "visual_genome": visual_genome,
    "refcoco": refcoco,
    "vqa_v2": vqa_v2,
    "ok_vqa": partial(vqa_v2, layout="ok_vqa", prefix=""),
    "a_okvqa": a_okvqa,
    "gqa": gqa,
    "text_vqa": text_vqa,
    "st_vqa": st_vqa,
    "ocr_vqa": ocr_vqa,
    "doc_vqa": doc_vqa,
    "vizwiz": vizwiz,
    "tally_qa": tally_qa,
    "clevr": clevr,
    "science_qa": science_qa,
    "vcr": vcr,
    "visual_mrc": visual_mrc,
    "class_masks": class_masks,
    "imagenet": imagenet,
    "inaturalist": inaturalist,
    "places365": places365,
    "sun397": sun397,
    "cub_200": cub_200,
    "text_caps": text_caps,
    "no_caps": no_caps,
    "vizwiz_captions": vizwiz_captions,
    "sci_cap": sci_cap,
    "paragraphs": paragraphs,
    "vsr": vsr,
    "nlvr2": nlvr2,
    "visual_dialog": visual_dialog,
    "visual_stories": visual_stories,
}
