"""Natural Instructions v2 (Super-NaturalInstructions): a JSON file per task with definition, examples and instances."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from blake3 import blake3
from pydantic import Field

from omnimill.config import canonical_json
from omnimill.errors import BadRecord, RecordDropped
from omnimill.infra import storage
from omnimill.infra.dataset import Unit
from omnimill.pipelines import files
from omnimill.pipelines.adapters.text_instructions import name_list
from omnimill.pipelines.base import Record, Source
from omnimill.pipelines.decoders.fields import fact, fact_values
from omnimill.pipelines.decoders.text import parse_json
from omnimill.pipelines.sources.examples import make_example, refusal
from omnimill.schema import Example, Meta, Provenance, Text


class NaturalInstructionsSource(Source):
    """Task files: an instance is a record; its question is the definition, examples that are shown, and the input.

    Several outputs of an instance are several answers of item 0. Tags: ``task``, ``category``, ``id``.

    tasks: a file below `path` with a task on each line (``splits/default/train_tasks.txt``); instances of others are
        dropped as ``other_split``.
    excluded: a file below `path` with tasks whose instances are dropped as ``excluded``.
    languages: instances of a task with an input or output in another one are dropped as ``language``; no condition
        when empty.
    shown: positive examples that come before the input, as many as there are.
    max_characters: of the question and of an answer; instances with a longer question are dropped as ``too_long``, and
        so are those that are left without an answer.
    max_instances: of a task that are read; None for all.
    """

    type: Literal["natural_instructions"]
    path: str
    include: tuple[str, ...] = ("tasks/task*.json",)
    exclude: tuple[str, ...] = ()
    tasks: str | None = None
    excluded: str | None = None
    languages: tuple[str, ...] = ("English",)
    shown: int = Field(0, ge=0)
    max_characters: int | None = Field(None, ge=1)
    max_instances: int | None = Field(None, ge=1)
    max_bytes: int = Field(256 << 20, ge=1)

    def units(self) -> Iterator[Unit]:
        """A unit is a task."""
        lists = tuple(storage.join(self.path, name) for name in (self.tasks, self.excluded) if name is not None)
        for url in files.find(self.path, self.include, self.exclude):
            yield Unit(source=self.name, files=(url, *lists))

    def read(self, unit: Unit) -> Iterator[Record]:
        uri = unit.files[0]
        name = posixpath.basename(uri).removesuffix(".json")
        task = parse_json(files.read_file(uri, self.max_bytes))
        if not isinstance(task, dict) or not isinstance(task.get("Instances"), list):
            raise BadRecord("wrong_type", "no object with a list of 'Instances'")
        verdict = self._verdict(name, task)
        common = blake3(canonical_json([name, task.get("Definition"), task.get("Positive Examples")])).hexdigest()
        for number, instance in enumerate(task["Instances"][: self.max_instances]):
            line = canonical_json(instance)
            provenance = Provenance(uri=uri, digest=blake3(common.encode() + line).hexdigest())
            key = f"{files.relative(uri, self.path)}:{number}"
            decode = partial(self._decode, unit, key, provenance, name, task, instance)
            small = line if len(line) <= files.SMALL_BYTES else None
            yield Record(key, provenance, decode if verdict is None else refusal(verdict), small)

    def _verdict(self, name: str, task: Mapping[str, Any]) -> RecordDropped | None:
        """Why no instance of a task is wanted."""
        if self.tasks is not None and name not in name_list(storage.join(self.path, self.tasks)):
            return RecordDropped("other_split")
        if self.excluded is not None and name in name_list(storage.join(self.path, self.excluded)):
            return RecordDropped("excluded")
        spoken = {one for field in ("Input_language", "Output_language") for one in fact_values(task, field)}
        return RecordDropped("language") if self.languages and spoken - set(self.languages) else None

    def _decode(
        self, unit: Unit, key: str, provenance: Provenance, name: str, task: Mapping[str, Any], instance: Any
    ) -> Sequence[Example]:
        if not isinstance(instance, dict):
            raise BadRecord("wrong_type", f"an instance is {type(instance).__name__}, not an object")
        asked = (fact(instance, "input") or "").strip()
        if not asked:
            raise RecordDropped("no_question")
        answers = dict.fromkeys(answer.strip() for answer in fact_values(instance, "output") if answer.strip())
        if not answers:
            raise RecordDropped("no_answer")
        question = "\n\n".join([*fact_values(task, "Definition"), *self._shown(task), asked])
        limit = self.max_characters
        kept = [answer for answer in answers if limit is None or len(answer) <= limit]
        if not kept or (limit is not None and len(question) > limit):
            raise RecordDropped("too_long")
        texts = [Text(role="question", text=question, item=0)]
        texts += [Text(role="answer", text=answer, item=0) for answer in kept]
        tags = {"task": name, "category": fact(task, "Categories"), "id": fact(instance, "id")}
        meta = Meta(tags={tag: value for tag, value in tags.items() if value is not None})
        return [make_example(self, unit, key, provenance, text=texts, meta=meta)]

    def _shown(self, task: Mapping[str, Any]) -> list[str]:
        examples = task.get("Positive Examples", [])
        if not isinstance(examples, list) or not all(isinstance(one, dict) for one in examples):
            raise BadRecord("wrong_type", "'Positive Examples' are no list of objects")
        return [f"{fact(one, 'input') or ''}\n{fact(one, 'output') or ''}" for one in examples[: self.shown]]
