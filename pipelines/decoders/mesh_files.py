"""Containers of 3D assets: which format it is, which other files it refers to, and what a glTF file claims to hold.

Everything here reads text and JSON only; geometry is decoded in :mod:`omnimill.pipelines.decoders.mesh`.
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import unquote

from omnimill.errors import BadRecord
from omnimill.pipelines.decoders.text import parse_json

MeshFormat = Literal["glb", "gltf", "obj", "ply"]

MESH_ENDINGS = (".glb", ".gltf", ".obj", ".ply")

# Extensions that may be required of a reader and either are understood or change nothing but the shading.
_EXTENSIONS = re.compile(r"KHR_materials_\w+|KHR_texture_transform|KHR_mesh_quantization|KHR_lights_punctual")
_MAX_JSON_BYTES = 64 << 20
_MAX_TREE_DEPTH = 200
_GLB_HEADER, _CHUNK_HEADER = struct.Struct("<4sII"), struct.Struct("<I4s")
_OBJ_LINE = re.compile(rb"^\s*(?:v|vn|vt|f|o|g|mtllib|usemtl|s)\s", re.MULTILINE)


def mesh_format(data: bytes, name: str) -> MeshFormat:
    """The format of an asset, by content.

    Raises:
        BadRecord: ``empty_file``, ``mesh_unsupported``, ``mesh_malformed`` (not what its name says).
    """
    if not data:
        raise BadRecord("empty_file", "no bytes")
    if data[:4] == b"glTF":
        return "glb"
    if data[:3] == b"ply" and data[3:4] in b"\r\n":
        return "ply"
    if data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{":
        return "gltf"
    if name.lower().endswith(".obj") and b"\0" not in data[:4096] and _OBJ_LINE.search(data[: 1 << 20]):
        return "obj"
    reason = "mesh_malformed" if name.lower().endswith(MESH_ENDINGS) else "mesh_unsupported"
    raise BadRecord(reason, f"neither GLB, glTF, OBJ nor PLY; it starts with {data[:12].hex(' ')}")


def references(data: bytes, form: MeshFormat) -> list[str]:
    """Names of the files that an asset refers to, as they are written in it; embedded data are not among them.

    Raises:
        BadRecord: ``mesh_malformed``.
    """
    if form in ("glb", "gltf"):
        tree = gltf_tree(data, form)
        entries = [*_list(tree, "buffers"), *_list(tree, "images")]
        names = [entry.get("uri") for entry in entries if isinstance(entry, dict)]
        return [name for name in names if isinstance(name, str) and not name.startswith("data:")]
    if form == "obj":
        return _named(data, rb"mtllib")
    return _named(data[: data.find(b"end_header") + 1], rb"comment TextureFile")


def material_references(data: bytes) -> list[str]:
    """Names of the textures that an OBJ material file refers to."""
    return _named(data, rb"map_Kd")


def resolve(folder: str, name: str) -> str | None:
    """URL of a referenced file if it lies below the asset's folder; None for any other place."""
    path = posixpath.normpath(unquote(name).replace("\\", "/"))
    if path.startswith(("/", "../")) or path in ("..", ".") or ":" in path or "\0" in path:
        return None
    return f"{folder.rstrip('/')}/{path}"


def gltf_tree(data: bytes, form: MeshFormat) -> dict[str, Any]:
    """The JSON part of a GLB or glTF file.

    Raises:
        BadRecord: ``mesh_malformed``, ``mesh_unsupported`` (another version of GLB).
    """
    text = _glb_json(data) if form == "glb" else data
    if len(text) > _MAX_JSON_BYTES:
        raise BadRecord("mesh_too_large", f"{len(text)} bytes of JSON, {_MAX_JSON_BYTES} allowed")
    try:
        tree = parse_json(text)
    except RecursionError:
        raise BadRecord("mesh_malformed", "JSON is nested too deep") from None
    except BadRecord as fault:
        raise BadRecord("mesh_malformed", f"its JSON cannot be read: {fault.message}") from None
    if not isinstance(tree, dict):
        raise BadRecord("mesh_malformed", "its JSON is no object")
    return tree


def check_gltf(tree: dict[str, Any], max_values: int) -> None:
    """Refuse what a glTF file cannot hold, or what would grow without bound when it is read.

    Args:
        max_values: elements of all accessors together.

    Raises:
        BadRecord: ``mesh_unsupported``, ``mesh_too_large``, ``mesh_malformed``.
    """
    required = [name for name in _list(tree, "extensionsRequired") if not _EXTENSIONS.fullmatch(str(name))]
    if required:
        raise BadRecord("mesh_unsupported", f"needs {', '.join(map(str, required))}")
    total = 0
    for accessor in _list(tree, "accessors"):
        count = accessor.get("count") if isinstance(accessor, dict) else None
        if not isinstance(count, int) or count < 0:
            raise BadRecord("mesh_malformed", "an accessor without a valid count")
        total += count
    if total > max_values:
        raise BadRecord("mesh_too_large", f"accessors of {total} elements, {max_values} allowed")
    _check_nodes(tree)


def _check_nodes(tree: dict[str, Any]) -> None:
    """The nodes must be trees: a node with two parents, or that is its own ancestor, may unfold without end."""
    nodes = _list(tree, "nodes")
    parents = [0] * len(nodes)
    children: list[list[int]] = []
    for node in nodes:
        below = node.get("children", []) if isinstance(node, dict) else []
        if not isinstance(below, list) or not all(isinstance(i, int) and 0 <= i < len(nodes) for i in below):
            raise BadRecord("mesh_malformed", "a node with children that are none")
        children.append(below)
        for index in below:
            parents[index] += 1
    if any(count > 1 for count in parents):
        raise BadRecord("mesh_malformed", "a node with more than one parent")
    level = [index for index, count in enumerate(parents) if count == 0]
    reached, depth = 0, 0
    while level:
        reached, depth = reached + len(level), depth + 1
        level = [below for index in level for below in children[index]]
    if reached < len(nodes) or depth > _MAX_TREE_DEPTH:
        raise BadRecord("mesh_malformed", "nodes in a circle, or nested too deep")


def _glb_json(data: bytes) -> bytes:
    """The first chunk of a GLB file, after a check of all chunks (glTF 2.0, section 4.4)."""
    if len(data) < _GLB_HEADER.size:
        raise BadRecord("mesh_malformed", f"GLB header cut off after {len(data)} bytes")
    _, version, length = _GLB_HEADER.unpack_from(data)
    if version != 2:
        raise BadRecord("mesh_unsupported", f"GLB version {version}; version 2 is read")
    if length != len(data):
        raise BadRecord("mesh_malformed", f"the GLB header says {length} bytes, the file has {len(data)}")
    chunks = list(_glb_chunks(data))
    if not chunks or chunks[0][0] != b"JSON":
        raise BadRecord("mesh_malformed", "the first GLB chunk is not JSON")
    if sum(kind == b"BIN\0" for kind, _ in chunks) > 1:
        raise BadRecord("mesh_malformed", "more than one binary GLB chunk")
    return chunks[0][1]


def _glb_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = _GLB_HEADER.size
    while offset < len(data):
        if offset + _CHUNK_HEADER.size > len(data):
            raise BadRecord("mesh_malformed", f"GLB chunk header cut off at byte {offset}")
        size, kind = _CHUNK_HEADER.unpack_from(data, offset)
        offset += _CHUNK_HEADER.size
        if offset + size > len(data):
            raise BadRecord("mesh_malformed", f"a GLB chunk of {size} bytes at byte {offset} does not fit in the file")
        yield kind, data[offset : offset + size]
        offset += size


def _list(tree: dict[str, Any], key: str) -> list[Any]:
    value = tree.get(key, [])
    if not isinstance(value, list):
        raise BadRecord("mesh_malformed", f"{key} is no list")
    return value


def _named(data: bytes, keyword: bytes) -> list[str]:
    """What follows a keyword at the start of a line, once each, in order."""
    found = re.findall(rb"^[ \t]*" + keyword + rb"[ \t]+([^\r\n]{1,1000})", data, re.MULTILINE | re.IGNORECASE)
    return list(dict.fromkeys(name.decode("utf-8", "replace").strip() for name in found))
