"""Recipes of sequences: everything that is decided about one example for a decoder-only backbone.

A sequence is one stream of ids: the pictures that the task reads, the prompt, what a denoising objective shows of a
text, what is asked for, EOS. Pictures are their codes, and `<break>` stands wherever text and pictures, or two
pictures, meet. With objective ``causal`` all of it is to be predicted, with ``causal_masked`` some spans of it after
all the rest; with the others only what is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.objectives import MOST_MOVED, OBJECTIVES
from omnimill.mixtures.row_columns import RowLengths
from omnimill.rng import Int64s, UInt64s, subkey, unit
from omnimill.tokens import TokenLayout
from omnimill.training.objectives.text import TextSplit, TextSplits, denoise, moved_spans
from omnimill.training.planning.draws import Purpose, example_key
from omnimill.training.planning.lengths import Budgets, Lengths
from omnimill.training.rendering.choices import Choices
from omnimill.training.rendering.frames import may_drop, numbers_read, streams_read
from omnimill.training.rendering.prompt_text import PromptText
from omnimill.training.rendering.prompting import Piece, Prompting
from omnimill.training.rendering.sequence_room import check_sequences
from omnimill.training.rendering.settings import RenderSettings

# Of a document's slots, the share that its prompt may take.
_PROMPT_SHARE = 4


@dataclass(frozen=True, slots=True)
class Words:
    """The first `tokens` tokens of a row's text segment."""

    segment: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """All codes of the row's picture `number`; where `target`, of its target picture of that number."""

    number: int
    target: bool = False


@dataclass(frozen=True, slots=True)
class SequenceRecipe:
    """What planning counts and rendering fills in.

    shown: pictures before the prompt. head: the prompt's pieces; prompt_tokens: how many of their tokens are kept.
    dropped: the prompt is the uninformative one.
    answer: what is asked for, in order; of a text that is divided (`split`) its segments, whole.
    spans: how many are moved to the end.
    """

    task: Task
    key: int
    shown: tuple[Drawn, ...]
    head: tuple[Piece, ...]
    prompt_tokens: int
    dropped: bool
    answer: tuple[Words | Drawn, ...]
    split: TextSplit | None
    spans: int
    lengths: Lengths

    @property
    def target_segments(self) -> tuple[int, ...]:
        """The row's text segments that are asked for."""
        return tuple(one.segment for one in self.answer if isinstance(one, Words))

    @property
    def target_picture(self) -> int | None:
        """Which of the row's target pictures is asked for; None for other targets."""
        return next((one.number for one in self.answer if isinstance(one, Drawn) and one.target), None)


@dataclass(frozen=True)
class Counted:
    """Lengths of n sequences: int64 [n] each. prompt, answer: tokens of text kept; answer with what a denoising
    objective shows. spans: to be moved. text: ids that are no codes, EOS included. cut: tokens of text left out.
    splits: of texts that are divided.
    """

    prompt: Int64s
    answer: Int64s
    spans: Int64s
    text: Int64s
    cut: Int64s
    splits: TextSplits | None = None


class SequenceRecipes(Prompting):
    """Makes the recipe of any example; arguments as of `omnimill.training.rendering.recipe.Recipes`.

    Raises:
        ConfigError: a task asks for what a sequence cannot hold.
    """

    def __init__(
        self, mixture: Mixture, layout: TokenLayout, text: PromptText, settings: RenderSettings, budgets: Budgets
    ) -> None:
        super().__init__(mixture, text, settings)
        check_sequences(mixture, layout, text, settings, budgets)
        self.budgets = budgets

    def make(self, task_index: int, lengths: RowLengths, example_id: str, epoch: int) -> SequenceRecipe:
        """Decide everything about one example; see `omnimill.training.rendering.recipe.Recipes.make`."""
        task = self.mixture.tasks[task_index]
        key = example_key(self.task_keys[task_index], example_id, epoch)
        keys = np.array([key], np.uint64)
        choices = Choices(task, lengths, key)
        prompt = self.prompt(task_index, choices, key)
        asked = sum(lengths.text_lengths[piece] if isinstance(piece, int) else len(piece) for piece in prompt)
        shown = [Drawn(number) for number in self._shown(task, lengths.image_codes_lengths, key)]
        codes = sum(lengths.image_codes_lengths[one.number] for one in shown)
        answer: list[Words | Drawn]
        if task.reads_document:
            texts = [
                (segment, image, tokens)
                for segment, (role, image, tokens) in enumerate(
                    zip(lengths.text_roles, lengths.text_images, lengths.text_lengths, strict=True)
                )
                if role == task.target_role
            ]
            answer, counted, codes = self.document(task, asked, texts, lengths.image_codes_lengths, keys)
        else:
            segments = self._segments(task, lengths, choices)
            picture = self._picture(task, lengths, choices)
            codes += sum(self._codes_of(one, lengths) for one in picture)
            whole = sum(lengths.text_lengths[segment] for segment in segments)
            prompted, told, pictures, drawn = np.array([[asked], [whole], [len(shown) + len(picture)], [codes]])
            counted = self.count(task, prompted, told, pictures, drawn, keys)
            kept = whole if task.denoises_text else int(counted.answer[0])
            answer = [Words(segment, min(lengths.text_lengths[segment], kept)) for segment in segments] + picture
        return SequenceRecipe(
            task=task,
            key=key,
            shown=tuple(shown),
            head=tuple(prompt),
            prompt_tokens=int(counted.prompt[0]),
            dropped=self.drops_prompt(task, key),
            answer=tuple(answer),
            split=counted.splits.one() if counted.splits else None,
            spans=int(counted.spans[0]),
            lengths=Lengths(text=0, target_text=int(counted.text[0]), target_image=codes, cut=int(counted.cut[0])),
        )

    def count(
        self, task: Task, prompt: Int64s, whole: Int64s, pictures: Int64s, codes: Int64s, keys: UInt64s
    ) -> Counted:
        """Lengths of n sequences that are no documents.

        Args:
            prompt: int64 [n]; tokens of the prompts. whole: of the target texts, 0 for other targets.
            pictures: how many, shown and asked for. codes: theirs.
            keys: uint64 [n].
        """
        settings = self.settings
        room = self.budgets.decoder - codes - pictures - 1 - self._moved_room(task)
        kept = np.minimum(prompt, np.minimum(settings.max_text, room // 2 if task.target_role else room))
        left, splits = room - kept, None
        if task.denoises_text:
            denoisers = settings.objectives.denoisers_of(task)
            # What is all asked for shows nothing.
            shown = left // 2 if any(one.rates[0] < 1 for one in denoisers) else np.zeros_like(left)
            target = np.minimum(left - shown, settings.max_target_text - 1)
            splits = denoise(denoisers, whole, np.minimum(shown, settings.max_text), target, keys)
            answer, unused = splits.inputs + splits.targets, whole - splits.length
        else:
            answer = np.minimum(np.minimum(whole, left), settings.max_target_text - 1)
            unused = whole - answer
        words = kept + answer
        breaks = np.maximum(pictures + (words > 0) - 1, 0)
        spans = self._spans(task, words + breaks + codes, keys)
        return Counted(kept, answer, spans, words + breaks + 1 + 2 * spans, prompt - kept + unused, splits)

    def document(
        self,
        task: Task,
        prompt: int,
        texts: Sequence[tuple[int, int | None, int]],
        codes: Sequence[int],
        keys: UInt64s,
    ) -> tuple[list[Words | Drawn], Counted, int]:
        """A document in reading order, as far as it fits: its pieces, its lengths (arrays of one) and its codes.

        Args:
            prompt: tokens of the prompt.
            texts: number, picture that it follows (None: it comes before all pictures) and tokens of every segment.
            codes: of every picture of the row.
            keys: uint64 [1].
        """
        room = self.budgets.decoder - 1 - self._moved_room(task)
        kept = min(prompt, self.settings.max_text, room // _PROMPT_SHARE)
        pieces: list[Words | Drawn] = []
        used, words, drawn, cut = kept, kept, 0, prompt - kept
        before = "words" if kept else ""
        for kind, number, size in _in_reading_order(texts, codes):
            between = int(before == "picture" or (kind == "picture" and before != ""))
            left = room - used - between
            if kind == "picture":
                if size > left:
                    break
                pieces.append(Drawn(number))
                drawn += size
                taken = size
            else:
                taken = min(size, left)
                if taken <= 0:
                    break
                pieces.append(Words(number, taken))
                words += taken
            used, words, before = used + between + taken, words + between, kind
            if taken < size:
                break
        spans = self._spans(task, np.array([used]), keys)
        answer = sum(one.tokens for one in pieces if isinstance(one, Words))
        cut += sum(size for _, _, size in texts) - answer
        counted = Counted(np.array([kept]), np.array([answer]), spans, words + 1 + 2 * spans, np.array([cut]))
        return pieces, counted, drawn

    def _shown(self, task: Task, codes: Sequence[int], key: int) -> list[int]:
        """Numbers of a row's pictures that an example reads as input; `codes`: how many each has."""
        found: list[int] = []
        for stream in sorted(streams_read(task), reverse=True):  # earlier ones first
            if may_drop(task, stream) and unit(subkey(key, Purpose.KEEP_STREAM, stream)) >= task.keep_optional:
                continue
            found += numbers_read(stream, len(codes), self.settings.history_frames)
        return [number for number in found if codes[number]]

    def _segments(self, task: Task, lengths: RowLengths, choices: Choices) -> list[int]:
        """Text segments that are asked for."""
        if task.target_role is None:
            return []
        if task.denoises_text:
            return [i for i, name in enumerate(lengths.text_roles) if name == task.target_role]
        return [choices.text(task.target_role)]

    def _picture(self, task: Task, lengths: RowLengths, choices: Choices) -> list[Drawn]:
        """The picture that is asked for, if one is."""
        if task.target_picture:
            return [Drawn(choices.picture(task.target_picture), target=True)]
        return [Drawn(len(lengths.image_codes_lengths) - 1)] if task.target == "image" else []

    def _codes_of(self, drawn: Drawn, lengths: RowLengths) -> int:
        return (lengths.target_codes_lengths if drawn.target else lengths.image_codes_lengths)[drawn.number]

    def _moved_room(self, task: Task) -> int:
        return 2 * MOST_MOVED if OBJECTIVES[task.objective].moved_spans else 0

    def _spans(self, task: Task, tokens: Int64s, keys: UInt64s) -> Int64s:
        """Spans to move of sequences of so many ids without EOS."""
        mean = OBJECTIVES[task.objective].moved_spans
        return np.minimum(moved_spans(mean, keys), (tokens + 1) // 2) if mean else np.zeros_like(tokens)


def _in_reading_order(texts: Sequence[tuple[int, int | None, int]], codes: Sequence[int]) -> list[tuple[str, int, int]]:
    """(``words`` or ``picture``, number, size) of everything in a document that is not empty."""
    found = [("words", number, size) for number, image, size in texts if image is None and size]
    for picture, size in enumerate(codes):
        found += [("picture", picture, size)] if size else []
        found += [("words", number, tokens) for number, image, tokens in texts if image == picture and tokens]
    return found
