"""Small copies of published maps, edits, control pairs and cuboids, in their files, names and units.

Those of conversations, instructions and documents are in :mod:`adapters.fixtures_text`.

``FORMATS`` gives for every format a function that writes it below a folder and returns the source that reads it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from adapters import fixtures_text
from adapters.made_pictures import (
    HEIGHT,
    WIDTH,
    Array,
    encoded,
    put,
    put_json,
    put_lines,
    put_picture,
    put_table,
    scene,
)

Source = dict[str, Any]


def struct_of(number: int) -> dict[str, Any]:
    """A picture as Hugging Face's Parquet has it."""
    return {"bytes": encoded(scene(number)), "path": None}


def taskonomy_depth(folder: Path) -> Source:
    for point in range(3):
        name = f"point_{point}_view_0_domain"
        put_picture(folder / "rgb/taskonomy/allensville" / f"{name}_rgb.png", point)
        if point < 2:
            levels = np.full((HEIGHT, WIDTH), 512 * (point + 2), np.uint16)
            levels[:, :8], levels[:, 8:16] = 65535, 0
            put(folder / "depth_zbuffer/taskonomy/allensville" / f"{name}_depth_zbuffer.png", encoded(levels))
    return {"type": "depth_maps", "name": "taskonomy-depth", "path": str(folder)}


def blended_mvs_depth(folder: Path) -> Source:
    scan = folder / "5a3ca9cb270f0e3f14d0eddb"
    put_picture(scan / "blended_images/00000000.jpg", 0)
    put_picture(scan / "blended_images/00000000_masked.jpg", 0)
    depth = np.tile(np.linspace(0.5, 4.5, HEIGHT, dtype="<f4")[:, None], (1, WIDTH))
    header = f"Pf\n{WIDTH} {HEIGHT}\n-1.000000\n".encode()
    put(scan / "rendered_depth_maps/00000000.pfm", header + depth[::-1].tobytes())
    return {
        "type": "depth_maps",
        "name": "blended-mvs-depth",
        "path": str(folder),
        "pictures": ["*/blended_images/*.jpg"],
        "exclude": ["**/*_masked.jpg"],
        "map_path": {"blended_images/": "rendered_depth_maps/", ".jpg": ".pfm"},
    }


def nyu_h5(folder: Path) -> Source:
    import h5py

    for number, scan in enumerate(("basement_0001a", "bathroom_0001")):
        path = folder / "train" / scan / "00001.h5"
        path.parent.mkdir(parents=True)
        with h5py.File(path, "w") as file:
            file["rgb"] = scene(number).transpose(2, 0, 1)
            file["depth"] = np.full((HEIGHT, WIDTH), 1.5 + number, np.float32)
    return {"type": "hdf5_depth", "name": "nyu-depth", "path": str(folder), "include": ["train/**/*.h5"]}


def nyu_labelled(folder: Path) -> Source:
    import h5py

    folder.mkdir(parents=True)
    with h5py.File(folder / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        frames = np.stack([scene(number) for number in range(3)])
        file.create_dataset("images", data=frames.transpose(0, 3, 2, 1), chunks=(1, 3, WIDTH, HEIGHT), compression=3)
        depths = np.stack([np.full((WIDTH, HEIGHT), 2.0 + number, np.float32) for number in range(3)])
        file.create_dataset("depths", data=depths, chunks=(1, WIDTH, HEIGHT), compression=3)
    return {
        "type": "hdf5_depth",
        "name": "nyu-labelled",
        "path": str(folder),
        "include": ["**/*.mat"],
        "picture": "images",
        "depth": "depths",
        "picture_axes": "ncwh",
        "depth_axes": "nwh",
        "frames_per_unit": 2,
    }


def wall(x: float, y: float, z: float) -> Array:
    """A map of one direction, as 8-bit colours, unknown on the left."""
    colours = np.rint((np.array([x, y, z]) / np.linalg.norm([x, y, z]) + 1) * 127.5)
    levels = np.tile(colours.astype(np.uint8), (HEIGHT, WIDTH, 1))
    levels[:, :8] = 0
    return levels


def frame_net(folder: Path) -> Source:
    scan = folder / "scannet-frames/scene0016_02"
    put_picture(scan / "frame-000000-color.png", 1)
    put(scan / "frame-000000-normal.png", encoded(wall(0.6, 0.0, -0.8)))
    put(scan / "frame-000000-orient-X.png", encoded(wall(1, 0, 0)))
    return {
        "type": "normal_maps",
        "name": "frame-net",
        "path": str(folder),
        "pictures": ["scannet-frames/*/*-color.png"],
        "map_path": {"-color.": "-normal."},
        "flip": ["y", "z"],
    }


def taskonomy_normals(folder: Path) -> Source:
    name = "point_0_view_3_domain"
    put_picture(folder / "rgb/blended_mvg/5a3ca9cb270f0e3f14d0eddb" / f"{name}_rgb.png", 0)
    levels = wall(0.0, 0.6, 0.8)
    levels[:, 8:16] = 128
    put(folder / "normal/blended_mvg/5a3ca9cb270f0e3f14d0eddb" / f"{name}_normal.png", encoded(levels))
    return {"type": "normal_maps", "name": "taskonomy-normals", "path": str(folder)}


def moving(u: float, v: float) -> Array:
    """A flow that is the same everywhere, but not known in the first columns: float32 [height, width, 2]."""
    flow = np.tile(np.array([u, v], "<f4"), (HEIGHT, WIDTH, 1))
    flow[:, :8] = 1.7e9
    return flow


def flo(flow: Array) -> bytes:
    height, width = flow.shape[:2]
    return struct.pack("<fii", 202021.25, width, height) + flow.astype("<f4").tobytes()


def flying_chairs(folder: Path) -> Source:
    for pair in (1, 2, 3):
        for number in (1, 2):
            put_picture(folder / "data" / f"{pair:05}_img{number}.ppm", number)
        put(folder / "data" / f"{pair:05}_flow.flo", flo(moving(4.0, 0.0)))
    put(folder / "FlyingChairs_train_val.txt", b"1\n2\n1\n")
    split = "FlyingChairs_train_val.txt"
    return {"type": "optical_flow", "name": "flying-chairs", "path": str(folder), "split_file": split}


def sintel(folder: Path) -> Source:
    for frame in (1, 2, 3):
        for kind in ("clean", "final"):
            put_picture(folder / "training" / kind / "alley_1" / f"frame_{frame:04}.png", frame)
        if frame < 3:
            put(folder / "training/flow/alley_1" / f"frame_{frame:04}.flo", flo(moving(4.0, -1.5)))
    return {"type": "optical_flow", "name": "sintel", "path": str(folder), "layout": "sintel"}


def kitti_flow(folder: Path) -> Source:
    levels = np.zeros((HEIGHT, WIDTH, 3), np.uint16)
    levels[..., 0], levels[..., 1] = (1 << 15) + 64 * 4, (1 << 15) - 96
    levels[:, 8:, 2] = 1
    done, data = cv2.imencode(".png", np.ascontiguousarray(levels[..., ::-1]))
    assert done
    put(folder / "training/flow_occ/000000_10.png", data.tobytes())
    for number in (10, 11):
        put_picture(folder / "training/image_2" / f"000000_{number}.png", number - 9)
    return {"type": "optical_flow", "name": "kitti-flow", "path": str(folder), "layout": "kitti"}


def instruct_pix2pix(folder: Path) -> Source:
    pair = folder / "shard-00/0000000"
    told = {"input": "a grey room with a box", "edit": "move the box to the right", "output": "a box on the right"}
    put_json(pair / "prompt.json", told)
    for seed in ("1154229941", "3306218763"):
        put_picture(pair / f"{seed}_0.jpg", 0)
        put_picture(pair / f"{seed}_1.jpg", 3)
    put_json(folder / "shard-00/0000001/prompt.json", told)
    put_lines(pair / "metadata.jsonl", [{"seed": 1154229941, "clip_sim_dir": 0.25}])
    put_json(folder / "seeds.json", [["shard-00/0000000", ["1154229941", "3306218763"]]])
    return {"type": "instruct_pix2pix", "name": "instruct-pix2pix", "path": str(folder)}


def pix2pix_parquet(folder: Path) -> Source:
    rows = [
        {
            "original_prompt": "a box",
            "original_image": struct_of(0),
            "edit_prompt": "move it to the right",
            "edited_prompt": "a box on the right",
            "edited_image": struct_of(number),
        }
        for number in (3, 5)
    ]
    put_table(folder / "data/train-00000-of-00001.parquet", rows)
    return {"type": "edit_rows", "name": "pix2pix-rows", "path": str(folder)}


def magicbrush_rows() -> list[dict[str, Any]]:
    turns = [("242679", 1), ("242679", 2), ("242679", 3), ("368667", 1)]
    return [
        {
            "img_id": name,
            "turn_index": turn,
            "source_img": struct_of(turn),
            "mask_img": struct_of(turn),
            "instruction": f"push the box, turn {turn}",
            "target_img": struct_of(turn + 1),
        }
        for name, turn in turns
    ]


def magicbrush(folder: Path) -> Source:
    put_table(folder / "data/train-00000-of-00051.parquet", magicbrush_rows())
    return {"type": "magicbrush", "name": "magicbrush", "path": str(folder)}


def magicbrush_history(folder: Path) -> Source:
    return {**magicbrush(folder), "name": "magicbrush-history", "history": True}


def control_net(folder: Path) -> Source:
    root = folder / "training/fill50k"
    rows = [
        {"source": f"source/{n}.png", "target": f"target/{n}.png", "prompt": f"box number {n} on grey"} for n in (0, 1)
    ]
    put_lines(root / "prompt.json", rows)
    for n in (0, 1):
        put(root / "source" / f"{n}.png", encoded((scene(n) > 150).astype(np.uint8) * 255))
        put_picture(root / "target" / f"{n}.png", n)
    return {"type": "control_pairs", "name": "fill50k", "path": str(root), "controls": {"source": "edges"}}


def multi_gen(folder: Path) -> Source:
    row = {"source": "group_0_3/a.png", "prompt": "a box in a room", "control_canny": "group_0_3_canny/a.png"}
    put_lines(folder / "json_files/aesthetics_plus_all_group_canny_all.json", [row])
    put_picture(folder / "images/group_0_3/a.png", 2)
    put(folder / "conditions/group_0_3_canny/a.png", encoded(scene(2)[..., 0]))
    return {
        "type": "control_pairs",
        "name": "multigen-canny",
        "path": str(folder),
        "include": ["json_files/*_canny_all.json"],
        "controls": {"control_canny": "edges"},
        "target_field": "source",
        "controls_folder": str(folder / "conditions"),
        "pictures": str(folder / "images"),
    }


def coco_stuff_control(folder: Path) -> Source:
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[10:30], labels[30:] = 1, 181
    put(folder / "stuffthingmaps/000000000139.png", encoded(labels))
    put_picture(folder / "train2017/000000000139.jpg", 0)
    row = {"source": "stuffthingmaps/000000000139.png", "target": "train2017/000000000139.jpg", "prompt": "a room"}
    put_lines(folder / "pairs.jsonl", [row])
    return {
        "type": "control_pairs",
        "name": "coco-segmentation-control",
        "path": str(folder),
        "controls": {"source": "segmentation"},
        "colour_labels": True,
    }


def omni3d(folder: Path) -> Source:
    camera = [[70.0, 0.0, 40.0], [0.0, 70.0, 30.0], [0.0, 0.0, 1.0]]

    def cuboid(number: int, picture: int, **more: Any) -> dict[str, Any]:
        return {
            "id": number,
            "image_id": picture,
            "dataset_id": 0,
            "category_id": 3,
            "category_name": "chair",
            "valid3D": True,
            "bbox2D_tight": [-1, -1, -1, -1],
            "bbox2D_proj": [28.0, 20.0, 60.0, 44.0],
            "bbox2D_trunc": [28.0, 20.0, 60.0, 44.0],
            "center_cam": [0.2, 0.1, 3.0],
            "dimensions": [0.8, 1.0, 0.6],
            "R_cam": [[0.8, 0.0, 0.6], [0.0, 1.0, 0.0], [-0.6, 0.0, 0.8]],
            "behind_camera": False,
            "visibility": 1.0,
            "truncation": 0.0,
            "segmentation_pts": -1,
            "lidar_pts": -1,
            "depth_error": -1,
            **more,
        }

    said = {
        "info": {"id": 0, "source": "SUNRGBD", "name": "SUNRGBD Train", "split": "Train", "version": "0.1"},
        "categories": [{"id": 3, "name": "chair", "supercategory": "furniture"}],
        "images": [
            {
                "id": number,
                "dataset_id": 0,
                "width": WIDTH,
                "height": HEIGHT,
                "file_path": f"SUNRGBD/kv2/{number}/image/0000.jpg",
                "K": camera,
                "src_90_rotate": 0,
                "src_flagged": False,
            }
            for number in (7, 8)
        ],
        "annotations": [
            cuboid(70, 7),
            cuboid(71, 7, behind_camera=True),
            cuboid(72, 7, truncation=0.9),
            cuboid(80, 8, valid3D=False),
        ],
    }
    put_json(folder / "Omni3D/SUNRGBD_train.json", said)
    for number in (7, 8):
        put_picture(folder / f"SUNRGBD/kv2/{number}/image/0000.jpg", 2)
    return {"type": "omni3d", "name": "omni3d", "path": str(folder)}


def objectron(folder: Path) -> Source:
    """One frame of 60 x 80 pixels, held upright, with a box of 0.2 m by 0.3 m by 0.4 m, 1.5 m before the camera."""
    width, height, focal = 60, 80, 90.0
    projection = np.zeros((4, 4))
    # The camera lies on its side: its x is the picture's downward axis.
    projection[0, 0], projection[1, 1] = 2 * focal / height, 2 * focal / width
    projection[2, 2], projection[2, 3], projection[3, 2] = -1.0, -0.002, -1.0
    size, centre = np.array([0.2, 0.3, 0.4]), np.array([0.05, -0.1, -1.5])
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * size + centre
    points = np.concatenate([centre[None], corners])
    clip = (projection @ np.concatenate([points, np.ones((9, 1))], axis=1).T).T
    x, y = (1 + clip[:, 1] / clip[:, 3]) / 2, (1 + clip[:, 0] / clip[:, 3]) / 2
    keypoints = [
        {"id": i, "point2d": {"x": float(x[i]), "y": float(y[i]), "depth": float(-points[i, 2])}} for i in range(9)
    ]
    said = {
        "objects": [
            {
                "id": 0,
                "category": "cereal_box",
                "type": "BOUNDING_BOX",
                "rotation": np.eye(3).ravel().tolist(),
                "translation": centre.tolist(),
                "scale": size.tolist(),
            }
        ],
        "frameAnnotations": [
            {
                "frameId": 0,
                "annotations": [{"objectId": 0, "keypoints": keypoints, "visibility": 1.0}],
                "camera": {
                    "viewMatrix": np.eye(4).ravel().tolist(),
                    "projectionMatrix": projection.ravel().tolist(),
                    "imageResolutionWidth": height,
                    "imageResolutionHeight": width,
                },
                "timestamp": 0.0,
            }
        ],
    }
    put_json(folder / "cereal_box/batch-1/0/annotation.json", said)
    put(folder / "cereal_box/batch-1/0/frames/0.jpg", encoded(scene(1, width, height), "JPEG"))
    return {"type": "objectron", "name": "objectron", "path": str(folder)}


FORMATS: dict[str, Callable[[Path], Source]] = {
    **fixtures_text.FORMATS,
    **{
        maker.__name__: maker
        for maker in (
            taskonomy_depth,
            blended_mvs_depth,
            nyu_h5,
            nyu_labelled,
            frame_net,
            taskonomy_normals,
            flying_chairs,
            sintel,
            kitti_flow,
            instruct_pix2pix,
            pix2pix_parquet,
            magicbrush,
            magicbrush_history,
            control_net,
            multi_gen,
            coco_stuff_control,
            omni3d,
            objectron,
        )
    },
}
