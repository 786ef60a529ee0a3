"""Made-up photographs: JPEG files with the sizes, edges and entropy of pictures from the web."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from omnimill import rng

# Half a megapixel on average; the first one is the usual size of ImageNet's files.
SIZES = ((500, 375), (640, 480), (720, 540), (800, 600), (900, 600), (1024, 683), (683, 1024), (1000, 750))
QUALITY = 90
# Grain that brings the files to about 1.8 bits a pixel: 110 kB at half a megapixel.
GRAIN = 3.0
SCENES = 16
SCENE_SIDE = 1536
LEAVES = 3000
SEED = 11


def write_photos(folder: Path, count: int) -> list[Path]:
    """JPEG files ``<folder>/00000.jpg``, …, every one another cut of one of the scenes with grain of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [scene(i) for i in range(SCENES)]
    paths = [folder / f"{i:05d}.jpg" for i in range(count)]
    with ThreadPoolExecutor() as pool:
        for path, data in zip(paths, pool.map(partial(photo, scenes), range(count)), strict=True):
            path.write_bytes(data)
    return paths


def scene(number: int) -> NDArray[np.uint8]:
    """Overlapping discs whose radii follow a power law, uint8 [1536, 1536, 3].

    The "dead leaves" model, which has the edges and the spectrum of photographs (Lee, Mumford and Huang, "Occlusion
    models for natural images", IJCV 2001; radii with an exponent of 3).
    """
    draw = rng.generator(SEED, "scene", number)
    canvas = np.zeros((SCENE_SIDE, SCENE_SIDE, 3), np.uint8)
    radii = 6 / np.sqrt(draw.uniform((6 / 400) ** 2, 1, LEAVES))
    centres = draw.integers(0, SCENE_SIDE, (LEAVES, 2))
    colours = draw.integers(10, 245, (LEAVES, 1)) + draw.integers(-40, 41, (LEAVES, 3))
    for radius, centre, colour in zip(radii, centres, colours.clip(0, 255), strict=True):
        cv2.circle(canvas, centre.tolist(), int(radius), colour.tolist(), -1, cv2.LINE_AA)
    y, x = np.mgrid[0:SCENE_SIDE, 0:SCENE_SIDE] / SCENE_SIDE
    light = 0.75 + 0.25 * np.sin(2 * np.pi * (draw.uniform() + x * draw.uniform(0.5, 2) + y * draw.uniform(0.5, 2)))
    return np.asarray(cv2.GaussianBlur(canvas * light[:, :, None], (0, 0), 0.8).clip(0, 255), np.uint8)


def photo(scenes: list[NDArray[np.uint8]], number: int) -> bytes:
    """A cut of a scene as a JPEG file of quality 90 with 4:2:0 chroma, as cameras and websites write them."""
    draw = rng.generator(SEED, "photo", number)
    width, height = SIZES[number % len(SIZES)]
    view = scenes[int(draw.integers(len(scenes)))]
    top, left = (int(draw.integers(SCENE_SIDE - side + 1)) for side in (height, width))
    cut = view[top : top + height, left : left + width].astype(np.int16)
    grain = (draw.standard_normal((height, width, 1), np.float32) * GRAIN).astype(np.int16)
    rgb = np.ascontiguousarray((cut + grain).clip(0, 255).astype(np.uint8)[:, :: int(draw.choice([-1, 1]))])
    return bytes(simplejpeg.encode_jpeg(rgb, QUALITY, colorspace="RGB", colorsubsampling="420"))
