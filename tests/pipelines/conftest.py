"""A source and an operator whose files say what happens: every way a record can end, without any media."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cloudpickle
import pytest
from blake3 import blake3
from imageio_ffmpeg import get_ffmpeg_exe

from omnimill.errors import BadRecord, ConfigError, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines.base import Operator, Record, Source
from omnimill.pipelines.dag import Dag, Pipeline
from omnimill.schema import Example, Meta, Provenance, Text, example_id

# Ray's workers cannot import a test module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Script(Source):
    """A unit per text file, a record per line ``key verb argument``; the verb says what decoding it does."""

    selection = ("only",)

    type: Literal["script"] = "script"
    name: str = "script"
    path: str
    only: str = ""

    def units(self) -> Iterator[Unit]:
        for uri in storage.list_files(self.path):
            if uri.endswith(f"{self.only}.txt"):
                yield Unit(source=self.name, files=(uri,))

    def read(self, unit: Unit) -> Iterator[Record]:
        for line in storage.read_bytes(unit.files[0]).decode().splitlines():
            key, verb, argument = (*line.split(" ", 2), "", "")[:3]
            if verb == "stop":
                raise BadRecord("archive_truncated", "the rest is missing")
            if verb == "break":
                raise RuntimeError(f"reader broke at <object at {id(line):#x}>")
            if verb == "lethal":
                os.kill(os.getpid(), signal.SIGABRT)
            digest = blake3(line.encode()).hexdigest()
            provenance = Provenance(uri=unit.files[0], digest=digest)
            yield Record(key, provenance, partial(self._decode, unit, key, provenance, verb, argument), line.encode())

    def _decode(self, unit: Unit, key: str, where: Provenance, verb: str, argument: str) -> list[Example]:
        if verb == "bad":
            raise BadRecord(argument, f"{key} is bad")
        if verb == "needs" and not Path(argument).exists():
            raise BadRecord("site_away", f"{argument} is not there")
        if verb == "drop":
            raise RecordDropped(argument)
        if verb == "raise":
            raise {"value": ValueError, "memory": MemoryError, "config": ConfigError}[argument](f"{key} raised")
        if verb == "slow":
            time.sleep(0.02)
        if verb == "kill":
            os.kill(os.getpid(), signal.Signals[argument or "SIGKILL"])
        if verb == "grow":
            held = bytearray()
            while len(held) < int(argument) << 20:
                held += bytes(1 << 20)
                time.sleep(0.001)
        if verb == "many":
            texts = argument.split(",") if argument else []
            return [self._example(unit, f"{key}/{i}", where, text) for i, text in enumerate(texts)]
        return [self._example(unit, key, where, argument)]

    def _example(self, unit: Unit, key: str, where: Provenance, text: str) -> Example:
        return Example(
            id=example_id(self.name, key, where.digest),
            source=self.name,
            unit=unit.id,
            key=key,
            provenance=where,
            text=[Text(role="body", text=text)],
            meta=Meta(licence=self.licence),
        )


class Shortest(Operator):
    """Drops texts below a length; ``explode`` and ``spoiled`` make it fail, ``fatal`` kills it."""

    op: Literal["shortest"] = "shortest"
    characters: int = 3

    def __call__(self, examples: Sequence[Example]) -> Sequence[str | None]:
        texts = [example.text[0].text for example in examples]
        if "fatal" in texts:
            os.kill(os.getpid(), signal.SIGSEGV)
        if "explode" in texts:
            raise ZeroDivisionError("explode")
        if "spoiled" in texts:
            raise BadRecord("spoiled", "cannot be measured")
        return ["too_short" if len(text) < self.characters else None for text in texts]


class Tagger(Operator):
    """Writes a score, so that a test sees which examples it was asked about."""

    op: Literal["tagger"] = "tagger"

    def __call__(self, examples: Sequence[Example]) -> Sequence[str | None]:
        for example in examples:
            example.meta.scores["seen"] = 1.0
        return [None] * len(examples)


@pytest.fixture
def script() -> type[Script]:
    return Script


@pytest.fixture
def operators() -> tuple[type[Shortest], type[Tagger]]:
    return Shortest, Tagger


@pytest.fixture
def root(tmp_path: Path, empty_tracking_store: Path) -> str:
    """A root for datasets and runs."""
    folder = tmp_path / "root"
    folder.mkdir()
    shutil.copy(empty_tracking_store, folder)
    return str(folder)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, str]], str]:
    """Writes script files into a folder and gives its path."""

    def to_folder(files: dict[str, str]) -> str:
        folder = tmp_path / "scripts"
        folder.mkdir(exist_ok=True)
        for name, text in files.items():
            (folder / f"{name}.txt").write_text(text)
        return str(folder)

    return to_folder


@pytest.fixture
def make_dag() -> Callable[..., Dag]:
    """A DAG around sources that YAML cannot name."""

    def build(
        *sources: Source, operators: Sequence[Operator] = (), of_dag: Mapping[str, Any] = {}, **settings: object
    ) -> Dag:
        values = {"operators": tuple(operators), "max_quarantined_share": 1.0, "max_consecutive_quarantined": None}
        pipelines = tuple(Pipeline.model_construct(source=source, **{**values, **settings}) for source in sources)
        return Dag.model_construct(dataset="made", sources=pipelines, decode_threads=2, **of_dag)

    return build


@pytest.fixture(scope="session")
def ffmpeg() -> Callable[..., None]:
    """Runs the wheel's ffmpeg binary with the given arguments; for making media."""

    def run(*arguments: object) -> None:
        command = [get_ffmpeg_exe(), "-nostdin", "-y", "-v", "error", *map(str, arguments)]
        subprocess.run(command, check=True, timeout=60)

    return run


@pytest.fixture(scope="session")
def read_source() -> Callable[[Source], tuple[list[Example], dict[str, str]]]:
    """Reads a whole source: its examples, and per record ``kept`` or the reason why not."""

    def read(source: Source) -> tuple[list[Example], dict[str, str]]:
        examples: list[Example] = []
        verdicts: dict[str, str] = {}
        for record in (record for unit in source.units() for record in source.read(unit)):
            assert record.key not in verdicts
            try:
                examples.extend(record.decode())
                verdicts[record.key] = "kept"
            except (BadRecord, RecordDropped) as verdict:
                verdicts[record.key] = verdict.reason
        return examples, verdicts

    return read
