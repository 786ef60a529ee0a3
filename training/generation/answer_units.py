"""Units of answering, in plain Python: some cases of a task, or some requests, become a shard of answers and a commit.

What is in a unit is answered in one batch, so that its bytes depend on nothing but its recipe and its content.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import torch
from blake3 import blake3

from omnimill.config import Config
from omnimill.errors import IntegrityError, OmnimillError
from omnimill.infra import storage
from omnimill.infra.dataset import Commit, Counts, Dataset, InputRef, Unit
from omnimill.infra.done import Done
from omnimill.infra.execution import Execution
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.versions import Versions
from omnimill.training.evaluation.held_out import HeldOut, Place, open_held_out
from omnimill.training.evaluation.scoring import answer_cases
from omnimill.training.generation.answer_rows import to_table
from omnimill.training.generation.decoding import Decoding
from omnimill.training.generation.generators import load_generator
from omnimill.training.generation.interleaved import SequenceGenerator
from omnimill.training.generation.request_rows import Ask, to_row, to_rows, to_sequence_row
from omnimill.training.rendering.prompt import Request, Target, render_request


class AnswerJob(Config):
    """What all units have in common.

    root: holds token datasets and tokenizers. checkpoint: its folder. folder, name: of the dataset of answers.
    recipe: digest of what decides a unit's answers besides the unit.
    device: that the model computes on. threads: of PyTorch.
    """

    root: str
    checkpoint: str
    folder: str
    name: str
    recipe: str
    decoding: Decoding
    device: str = "cpu"
    threads: int = 1


class HeldOutJob(AnswerJob):
    """mixture, versions, tasks, seen_too: see :func:`omnimill.training.evaluation.held_out.open_held_out`."""

    mixture: Mixture | None = None
    versions: Versions
    tasks: tuple[str, ...] = ()
    seen_too: bool = False


def case_units(held_out: HeldOut, count: int, batch: int) -> list[Unit]:
    """Units of the first `count` cases of every task, `batch` in each."""
    units = []
    places = held_out.places(count)
    for number, task in enumerate(held_out.tasks):
        rows = [place.row for place in places if place.task == number]
        for start in range(0, len(rows), batch):
            options = {"task": task.content_digest(), "rows": rows[start : start + batch]}
            units.append(Unit(source=task.name, files=(), options=options))
    return units


def request_units(asks: Sequence[Ask], batch: int) -> list[Unit]:
    """Units of requests, `batch` of one target and of numbers in equal groups in each, in their order."""
    units = []
    alike: dict[tuple[Target, int], list[Ask]] = {}
    for ask in asks:
        alike.setdefault((ask.target, ask.numbers), []).append(ask)
    for (target, _), own in alike.items():
        for start in range(0, len(own), batch):
            part = own[start : start + batch]
            files = tuple(dict.fromkeys(file.url for ask in part for file in ask.files))
            options = {"asks": [ask.model_dump(mode="json") for ask in part]}
            units.append(Unit(source=target, files=files, options=options))
    return units


def planned(unit: Unit, recipe: str) -> Commit:
    """The commit of a unit before it has content."""
    inputs = {
        file["url"]: InputRef(uri=file["url"], digest=file["digest"], bytes=file["bytes"])
        for ask in unit.options.get("asks", ())
        for file in (*ask["images"], *ask["audio"])
    }
    return Commit(unit=unit.id, source=unit.source, recipe=recipe, inputs=tuple(inputs.values()))


class Answerer(ABC):
    """Answers units, with the model loaded once."""

    def __init__(self, job: AnswerJob) -> None:
        torch.set_num_threads(job.threads)
        self.job = job
        self.dataset = Dataset(job.folder, job.name)

    def __call__(self, units: Sequence[Unit]) -> Iterator[Done]:
        """Answer and commit units; what is committed already is left as it is."""
        for unit in units:
            try:
                yield self._done(unit)
            except Exception as fault:  # noqa: BLE001 - a unit's fault is its own
                yield Done.failed(unit, fault)

    @abstractmethod
    def rows(self, unit: Unit) -> pa.Table:
        """The answers of a unit."""

    def _done(self, unit: Unit) -> Done:
        commit = planned(unit, self.job.recipe)
        if stored := self.dataset.committed(commit):
            return Done(unit, stored)
        execution = Execution()
        table = self.rows(unit)
        counts = Counts(records_in=table.num_rows, kept=table.num_rows, examples_written=table.num_rows)
        commit = commit.model_copy(update={"shards": (self.dataset.publish_shard(table),), "counts": counts})
        observed = execution.told()
        self.dataset.commit(commit, observed)
        return Done(unit, commit, observed=observed)


class CaseAnswerer(Answerer):
    """Answers held-out cases."""

    def __init__(self, job: HeldOutJob) -> None:
        super().__init__(job)
        self.generator, _ = load_generator(job.root, job.checkpoint, job.device)
        self._decoding = job.decoding
        self._held_out = open_held_out(
            job.root,
            self.generator.inputs,
            self.generator.tokenizers,
            job.mixture,
            job.tasks,
            versions=job.versions,
            seen_too=job.seen_too,
        )

    def rows(self, unit: Unit) -> pa.Table:
        number = [task.name for task in self._held_out.tasks].index(unit.source)
        cases = [self._held_out.case(Place(number, row)) for row in unit.options["rows"]]
        return to_table(list(answer_cases(self.generator, cases, self._decoding, batch=len(cases))))


class RequestAnswerer(Answerer):
    """Answers requests, by either kind of backbone."""

    def __init__(self, job: AnswerJob) -> None:
        super().__init__(job)
        self._generator, _ = load_generator(job.root, job.checkpoint, job.device)

    def rows(self, unit: Unit) -> pa.Table:
        asks = [Ask.model_validate(ask) for ask in unit.options["asks"]]
        requests = [_request(ask) for ask in asks]
        generator, decoding = self._generator, self.job.decoding
        if isinstance(generator, SequenceGenerator):
            answers = generator.generate(requests, decoding)
            return to_rows([to_sequence_row(ask, answer) for ask, answer in zip(asks, answers, strict=True)])
        inputs, text = generator.inputs, generator.tokenizers.text
        rendered = []
        for request in requests:
            try:
                rendered.append(render_request(request, inputs.layout, text, inputs.render))
            except OmnimillError as error:
                raise OmnimillError(f"request {request.key!r}: {error}") from error
        sampling = decoding.of("text" if asks[0].target == "interleaved" else asks[0].target)
        outputs = generator.answer([asked for asked, _ in rendered], sampling, asks[0].numbers)
        rate = inputs.layout.audio.sample_rate
        return to_rows(
            [
                to_row(ask, generator.decoded(ask.target, ids, cut), rate)
                for ask, ids, (_, cut) in zip(asks, outputs, rendered, strict=True)
            ]
        )


def _request(ask: Ask) -> Request:
    request = Request(ask.target, ask.prompt, numbers=ask.numbers, negative=ask.negative, key=ask.key)
    media = [[_read(file.url, file.digest) for file in files] for files in (ask.images, ask.audio)]
    return replace(request, pictures=media[0], clips=media[1])


def _read(url: str, digest: str) -> bytes:
    data = storage.read_bytes(url)
    if (found := blake3(data).hexdigest()) != digest:
        raise IntegrityError(f"{url}: has changed since it was listed: its content hashes to {found}")
    return data
