"""Sources of scenes, agents and masks: 3-D assets, pairs of views, episodes in houses, segmented pictures."""

from __future__ import annotations

import gzip
import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image as Pillow
from pycocotools import mask as coco

from layouts import Expected, Layout
from omnimill import rng


def picture(*name: str | int, width: int = 96, height: int = 72) -> bytes:
    """A JPEG of coarse noise that depends on its name."""
    coarse = rng.generator("layout", *name).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BILINEAR).save(stream, "JPEG")
    return stream.getvalue()


def write(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def masks(name: str, **changes: Any) -> bytes:
    """The JSON of a picture of SA-1B: two masks."""
    annotations = []
    for number, (top, left, bottom, right) in enumerate(((10, 10, 40, 50), (0, 60, 72, 96))):
        mask = np.zeros((72, 96), np.uint8, order="F")
        mask[top:bottom, left:right] = 1
        told = coco.encode(mask)
        annotations.append(
            {
                "bbox": [left, top, right - left - 1, bottom - top - 1],
                "area": int(mask.sum()),
                "segmentation": {"size": [72, 96], "counts": told["counts"].decode()},
                "predicted_iou": 0.96,
                "point_coords": [[left + 5.0, top + 5.0]],
                "crop_box": [0, 0, 96, 72],
                "id": 500 + number,
                "stability_score": 0.98,
            }
        )
    image = {"image_id": 1, "width": 96, "height": 72, "file_name": f"{name}.jpg", **changes}
    return json.dumps({"image": image, "annotations": annotations}).encode()


def segment_anything(folder: Path) -> Expected:
    """A tar as published, whose members begin with ``./``, and one that was unpacked into a folder."""
    root = folder / "segment_anything"
    root.mkdir(parents=True)
    members = {
        "./sa_1.jpg": picture("sa", 1),
        "./sa_1.json": masks("sa_1"),
        "./sa_2.jpg": picture("sa", 2),
        "./sa_2.json": masks("sa_2", height=73),
        "./sa_3.jpg": picture("sa", 3)[:300],
        "./sa_3.json": masks("sa_3"),
    }
    with tarfile.open(root / "sa_000000.tar", "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    write(root / "sa_000001" / "sa_11186.jpg", picture("sa", 11186))
    write(root / "sa_000001" / "sa_11186.json", masks("sa_11186"))
    bad = {"mask_size_mismatch": 1, "image_truncated": 1}
    return Expected(records=5, examples=2, quarantined=bad, dropped={"sidecar": 1})


def objaverse(folder: Path) -> Expected:
    """Assets by the first letters of their ids; metadata and paths as gzipped JSON."""
    root = folder / "objaverse"
    known, paths = {}, {}
    for number, shape in enumerate(
        (trimesh.creation.box(), trimesh.creation.icosphere(), trimesh.creation.annulus(1, 2, 1))
    ):
        uid = f"{number:032x}"
        paths[uid] = f"glbs/000-023/{uid}.glb"
        write(root / paths[uid], trimesh.Scene([shape]).export(file_type="glb"))
        known[uid] = {
            "uri": f"https://api.sketchfab.com/v3/models/{uid}",
            "uid": uid,
            "name": ("Crate", "Ball", "Ring")[number],
            "viewerUrl": f"https://sketchfab.com/3d-models/{uid}",
            "viewCount": 7,
            "likeCount": 1,
            "isDownloadable": True,
            "publishedAt": "2020-01-01T00:00:00",
            "tags": [{"name": "simple", "slug": "simple", "uri": "https://api.sketchfab.com/v3/tags/simple"}],
            "categories": [],
            "user": {"username": "somebody"},
            "description": "",
            "faceCount": len(shape.faces),
            "isAgeRestricted": number == 2,
            "license": "by",
        }
    paths["f" * 32] = f"glbs/000-023/{'f' * 32}.glb"
    write(root / paths["f" * 32], b"glTF\2\0\0\0 cut off")
    known["f" * 32] = {"uid": "f" * 32, "name": "Broken", "license": "cc0"}
    write(root / "metadata" / "000-023.json.gz", gzip.compress(json.dumps(known).encode(), mtime=0))
    write(root / "object-paths.json.gz", gzip.compress(json.dumps(paths).encode(), mtime=0))
    return Expected(records=4, examples=2, quarantined={"mesh_malformed": 1}, dropped={"age_restricted": 1})


def croco_habitat(folder: Path) -> Expected:
    """Pairs as CroCo's generator numbers them, and a scene in the folders of HM3D, whose files have z up."""
    root = folder / "croco_habitat"
    scene = root / "habitat_release" / "hm3d" / "train" / "00000-kfPV7w3FaU5"
    for number in range(3):
        for view in (1, 2):
            write(scene / f"{number:08d}_{view}.jpeg", picture("croco", number, view))
    (scene / "00000002_2.jpeg").unlink()
    room = trimesh.Scene([trimesh.creation.box(extents=(6, 3, 5))])
    for place in ((1.5, -1, 1), (-2, -1, -1)):
        box = trimesh.creation.box(extents=(1, 1, 1), transform=trimesh.transformations.translation_matrix(place))
        box.visual.face_colors = (200, 40, 30, 255)
        room.add_geometry(box)
    room.apply_transform(trimesh.transformations.rotation_matrix(math.pi / 2, (1, 0, 0)))
    name = "00800-TEEsavR23oF/TEEsavR23oF"
    write(root / "scene_datasets" / "hm3d" / "val" / f"{name}.glb", room.export(file_type="glb"))
    write(root / "scene_datasets" / "hm3d" / "val" / f"{name}.basis.glb", b"compressed textures")
    return Expected(records=4, examples=4, quarantined={"pair_incomplete": 1}, environment={"PAIRS_PER_SCENE": "2"})


def recorded(folder: Path, filmed: int, **said: Any) -> None:
    write(folder / "episode.json", json.dumps(said))
    for number in range(filmed):
        write(folder / "frames" / f"{number:06d}.jpg", picture(str(said.get("episode_id")), number))


def habitat(folder: Path) -> Expected:
    """PointNav and ObjectNav datasets, whose episodes lie in a file per scene, and recorded episodes."""
    root = folder / "habitat"
    start = {"start_position": [-1.2, 0.1, 3.4], "start_rotation": [0.0, 0.7, 0.0, 0.7]}
    path = [{"position": [-1.2, 0.1, 3.4 - 0.25 * i], "rotation": [0.0, 0.7, 0.0, 0.7], "action": 1} for i in range(7)]
    pointnav = [
        {
            "episode_id": str(number),
            "scene_id": "gibson/Adrian.glb",
            **start,
            "info": {"geodesic_distance": 1.5, "difficulty": "easy"},
            "goals": [{"position": [-1.2, 0.1, 1.9], "radius": None}],
            "shortest_paths": paths,
            "start_room": None,
        }
        for number, paths in enumerate(([[*path, {**path[-1], "action": None}]], None))
    ]
    objectnav = [
        {
            "episode_id": "0",
            "scene_id": "hm3d/val/00800-TEEsavR23oF/TEEsavR23oF.basis.glb",
            **start,
            "object_category": "plant",
            "goals": [],
            "reference_replay": [
                {"action": action, "agent_state": {key: path[0][key] for key in ("position", "rotation")}}
                for action in ("STOP", "TURN_LEFT", "MOVE_FORWARD")
            ],
        }
    ]
    data = root / "data" / "datasets"
    for name, episodes in {
        "pointnav/gibson/v1/train/train": [],
        "pointnav/gibson/v1/train/content/Adrian": pointnav,
        "objectnav/hm3d/v1/val/content/TEEsavR23oF": objectnav,
    }.items():
        write(data / f"{name}.json.gz", gzip.compress(json.dumps({"episodes": episodes}).encode(), mtime=0))
    recorded(
        root / "episodes" / "train" / "000017",
        6,
        episode_id="17",
        scene_id="gibson/Adrian.glb",
        goal={"position": [-1.2, 0.1, 1.9]},
        actions=["MOVE_FORWARD", "MOVE_FORWARD", "TURN_LEFT", "MOVE_FORWARD", "MOVE_FORWARD", "STOP"],
        states=[[0.25 * step, 0.1, 0.0, 0.0] for step in range(6)],
        state_names=["x", "y", "z", "heading"],
    )
    recorded(root / "episodes" / "train" / "000018", 1, episode_id="18", actions=["MOVE_FORWARD", "STOP"])
    recorded(root / "episodes" / "train" / "000019", 0, episode_id="19", actions="forward")
    return Expected(
        records=6,
        examples=5,
        quarantined={"frame_missing": 1, "trajectory_malformed": 1},
        dropped={"no_trajectory": 1},
    )


def procthor(folder: Path) -> Expected:
    """The houses of ProcTHOR-10K, a line each, and recorded episodes in some of them."""
    root = folder / "procthor"
    house = {
        "doors": [],
        "metadata": {"agent": {"horizon": 30}},
        "objects": [],
        "proceduralParameters": {},
        "rooms": [],
    }
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        lines = "\n".join([json.dumps(house)] * count)
        write(root / f"{split}.jsonl.gz", gzip.compress(lines.encode(), mtime=0))
    recorded(
        root / "episodes" / "train" / "000000",
        5,
        episode_id=0,
        scene_id="train/0",
        instruction="find an apple",
        goal={"object_category": "Apple"},
        actions=["MoveAhead", "RotateRight", "LookDown", "MoveAhead", "End"],
    )
    return Expected(records=5, examples=1, dropped={"no_trajectory": 4})


LAYOUTS: dict[str, Layout] = {
    "croco_habitat": croco_habitat,
    "habitat": habitat,
    "objaverse": objaverse,
    "procthor": procthor,
    "segment_anything": segment_anything,
}
