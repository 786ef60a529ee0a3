"""What a backbone has learnt: its answers for combinations that it was never trained on, told right from wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnimill.errors import OmnimillError
from omnimill.learn.recognise import scene_of, tune_of
from omnimill.progress import progress
from omnimill.tokenizers import image
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.evaluation.held_out import open_held_out
from omnimill.training.evaluation.scoring import Answer, answer_cases
from omnimill.training.generation.decoding import Decoding, Sampling
from omnimill.training.generation.generators import load_generator

# Share of the answers that have to be right: text and boxes to the last token, pictures and sound as recognised.
NEEDED = {"text": 0.95, "image": 0.90, "audio": 0.90}
# Every answer is known, so the most likely one is asked for.
_DECODING = Decoding(text=Sampling(temperature=0.0), image=Sampling(temperature=0.0), audio=Sampling(temperature=0.0))
_BATCH = 32


@dataclass(frozen=True)
class TaskResult:
    """right: of `count` answers. exact: those that are the right ids or codes to the last one. seen: rows among them
    that were trained on. needed: share that has to be right. loss: mean NLL in nats of a token of the right answers.
    """

    task: str
    modality: str
    count: int
    right: int
    exact: int
    seen: int
    needed: float
    loss: float

    @property
    def passed(self) -> bool:
        return self.right >= self.needed * self.count


def check(root: str, checkpoint: str | Path, count: int) -> list[TaskResult]:
    """Ask a checkpoint up to `count` held-out cases of every task that its mixture holds out.

    Raises:
        OmnimillError: there is no such checkpoint, or its mixture holds no task out.
    """
    generator, record = load_generator(root, checkpoint)
    held_out = open_held_out(root, generator.inputs, generator.tokenizers)
    places = held_out.places(count)
    results = []
    with progress(f"check {record.run} at step {record.step}", len(places), "answers") as advance:
        for number, task in enumerate(held_out.tasks):
            cases = [held_out.case(place) for place in places if place.task == number]
            answers = list(answer_cases(generator, cases, _DECODING, batch=_BATCH, advance=advance))
            results.append(judge(task.name, task.target_modality, answers, generator.tokenizers))
    return results


def judge(task: str, modality: str, answers: Sequence[Answer], tokenizers: Tokenizers) -> TaskResult:
    """How many of a task's answers are right.

    Text is right to the last token; a picture or clip when what is recognised in it is what is recognised in the one
    that the row holds.

    Raises:
        OmnimillError: what a row itself holds is not recognised.
    """
    exact = [list(answer.case.output) == list(answer.case.wanted) for answer in answers]
    right = exact
    if modality != "text":
        made = [_recognised(modality, answer.case.output, tokenizers) for answer in answers]
        wanted = [_recognised(modality, answer.case.wanted, tokenizers) for answer in answers]
        if None in wanted:
            key = answers[wanted.index(None)].key
            raise OmnimillError(f"{key}: what its own codes show is not recognised; the tokenizers are too coarse")
        right = [one == other for one, other in zip(made, wanted, strict=True)]
    return TaskResult(
        task=task,
        modality=modality,
        count=len(answers),
        right=sum(right),
        exact=sum(exact),
        seen=sum(answer.seen for answer in answers),
        needed=NEEDED[modality],
        loss=sum(answer.loss[0] for answer in answers) / sum(answer.loss[1] for answer in answers),
    )


def _recognised(modality: str, codes: Sequence[int], tokenizers: Tokenizers) -> object:
    if modality == "image":
        return scene_of(image.to_bytes(tokenizers.image.decode([codes])[0]))
    return tune_of(tokenizers.waveform(tokenizers.audio.decode([codes])[0]))
