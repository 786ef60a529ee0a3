"""TFRecord files and ``tf.train.Example`` messages made for tests, by protobuf's own encoder."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

REPEATED, OPTIONAL = 3, 1
KINDS = {"bytes_list": 12, "float_list": 2, "int64_list": 3}


@cache
def _messages() -> dict[str, Any]:
    """The message classes of TensorFlow's ``example.proto`` and ``feature.proto``."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    for kind, scalar in KINDS.items():
        message = file.message_type.add(name=kind)
        message.field.add(name="value", number=1, type=scalar, label=REPEATED)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, kind in enumerate(KINDS, start=1):
        feature.field.add(name=kind, number=number, type=11, type_name=f".t.{kind}", label=OPTIONAL, oneof_index=0)
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=OPTIONAL)
    entry.field.add(name="value", number=2, type=11, type_name=".t.Feature", label=OPTIONAL)
    features.field.add(name="feature", number=1, type=11, type_name=".t.Features.FeatureEntry", label=REPEATED)
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=11, type_name=".t.Features", label=OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClassesForFiles(["example.proto"], pool)


def example(features: Mapping[str, Sequence[bytes] | Sequence[float] | Sequence[int]]) -> bytes:
    """A serialised Example; the type of a list's first value says its kind."""
    message = _messages()["t.Example"]()
    for name, values in features.items():
        first = values[0] if values else b""
        kind = "bytes_list" if isinstance(first, bytes) else "float_list" if isinstance(first, float) else "int64_list"
        getattr(message.features.feature[name], kind).value.extend(values)
    return bytes(message.SerializeToString(deterministic=True))


def tfrecord(payloads: Iterable[bytes]) -> bytes:
    """A TFRecord file."""

    def checksum(data: bytes) -> bytes:
        crc = google_crc32c.value(data)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    parts = []
    for payload in payloads:
        length = struct.pack("<Q", len(payload))
        parts += [length, checksum(length), payload, checksum(payload)]
    return b"".join(parts)
