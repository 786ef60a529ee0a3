"""Rendering for decoder-only backbones: a row of a token dataset and a task become one stream of ids.

The stream has the shape of the decoder's side of a packed batch; its encoder side stays empty. A slot is of text or of
pictures as its id is, so that losses are told apart, and its position is its place in the example.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from omnimill.errors import IntegrityError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.objectives import OBJECTIVES
from omnimill.mixtures.row_columns import RowContent, RowLengths
from omnimill.rng import generator, subkey
from omnimill.tokenizers.dense import unpack_known
from omnimill.tokenizers.image import covered_patches
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import Vocabulary
from omnimill.tokens import TokenLayout
from omnimill.training.loading.batch import DecoderModality
from omnimill.training.loading.media import Picture
from omnimill.training.objectives.spans import BREAK, Ids, Mask, moved_order
from omnimill.training.planning.draws import Purpose
from omnimill.training.planning.lengths import Budgets, Lengths
from omnimill.training.rendering.pairs import Floats, Rendered, Target, check_lengths, line_positions, shift_right
from omnimill.training.rendering.sequence_recipe import Drawn, SequenceRecipe, SequenceRecipes, Words
from omnimill.training.rendering.settings import RenderSettings


class SequenceRenderer:
    """Plans and renders the examples of a mixture as sequences; as `omnimill.training.rendering.pairs.Renderer`."""

    def __init__(
        self, mixture: Mixture, layout: TokenLayout, text: TextTokenizer, settings: RenderSettings, budgets: Budgets
    ) -> None:
        self.recipes = SequenceRecipes(mixture, layout, text, settings, budgets)
        self.settings = settings
        self.layout = layout
        self.vocabulary = text.vocabulary
        joint = Vocabulary.of(layout)
        drawn = range(layout.image.codes if "image" in layout.vocabulary.joint else 0)
        self.code_ids = np.array([joint.code("image", code) for code in drawn], np.int64)

    def plan(self, task_index: int, lengths: RowLengths, example_id: str, epoch: int) -> Lengths:
        """Exact length of every stream of an example, from the row's lengths alone."""
        return self.recipes.make(task_index, lengths, example_id, epoch).lengths

    def render(self, task_index: int, content: RowContent, epoch: int) -> Rendered:
        """The example itself; its lengths are what :meth:`plan` says. Errors as of `Renderer.render`."""
        recipe = self.recipes.make(task_index, content, content.id, epoch)
        targets = _Stream(self, recipe, content).targets()
        empty = np.empty(0, np.int64)
        rendered = Rendered(task_index, empty, {}, empty, line_positions(0), targets[0], tuple(targets[1:]))
        check_lengths(rendered, recipe.lengths, content.id)
        return rendered

    def opening(self, task_index: int, content: RowContent, epoch: int) -> Ids:
        """What of an example's stream is read before anything is asked for, int64 [n] without BOS; nothing where all
        of it is. Errors as of :meth:`render`."""
        recipe = self.recipes.make(task_index, content, content.id, epoch)
        return _Stream(self, recipe, content).opening()


class _Stream:
    """One recipe being filled in: ids with, for each, whether it is a code and what its loss weighs."""

    def __init__(self, renderer: SequenceRenderer, recipe: SequenceRecipe, content: RowContent) -> None:
        self.renderer, self.recipe, self.content = renderer, recipe, content
        self.vocabulary = renderer.vocabulary
        self._all = OBJECTIVES[recipe.task.objective].everything
        self._ids: list[Ids] = []
        self._codes: list[Mask] = []
        self._weights: list[Floats] = []

    def targets(self) -> list[Target]:
        """The finished stream, a target for every run of text or of codes."""
        self._ask(self._open())
        return self._cut(*self._moved())

    def opening(self) -> Ids:
        """See :meth:`SequenceRenderer.opening`."""
        self._open()
        return np.concatenate([np.empty(0, np.int64), *([] if self._all else self._ids)])

    def _open(self) -> list[Ids]:
        """Fill in what comes before what is asked for; returns what that has of text, piece by piece."""
        recipe = self.recipe
        for drawn in recipe.shown:
            self._picture(drawn, asked=False)
        if recipe.prompt_tokens:
            # What replaces a prompt is not to be said.
            self._add(self._prompt(), self._all and not recipe.dropped)
        texts = [self._text(one.segment)[: one.tokens] for one in recipe.answer if isinstance(one, Words)]
        if recipe.split is None:
            return texts
        shown, wanted = recipe.split.apply(np.concatenate(texts), self.vocabulary)
        self._add(shown, asked=self._all)
        return [wanted]

    def _ask(self, texts: list[Ids]) -> None:
        """Fill in what is asked for; of a text that is divided, in one piece."""
        if self.recipe.split is not None:
            self._add(texts[0], asked=True)
            return
        words = iter(texts)
        for one in self.recipe.answer:
            if isinstance(one, Drawn):
                self._picture(one, asked=True)
            else:
                self._add(next(words), asked=True)

    def _prompt(self) -> Ids:
        pieces = [self._text(piece) if isinstance(piece, int) else np.array(piece) for piece in self.recipe.head]
        return np.concatenate(pieces)[: self.recipe.prompt_tokens].astype(np.int64)

    def _text(self, segment: int) -> Ids:
        return self.content.text_ids[segment].astype(np.int64)

    def _add(self, ids: Ids, asked: bool) -> None:
        """Text; behind a picture after a break, which is asked for as what follows it is."""
        if not len(ids):
            return
        if self._codes and self._codes[-1][-1]:
            ids = np.concatenate([[self.vocabulary.special(BREAK)], ids])
        self._ids.append(ids)
        self._codes.append(np.zeros(len(ids), np.bool_))
        self._weights.append(np.full(len(ids), float(asked), np.float32))

    def _picture(self, drawn: Drawn, asked: bool) -> None:
        content, layout = self.content, self.renderer.layout.image
        if drawn.target:
            codes = content.target_codes[drawn.number]
            size = content.target_heights[drawn.number], content.target_widths[drawn.number]
            valid = covered_patches(*size, layout.target_size, layout.code_stride)
            valid &= unpack_known(content.target_known[drawn.number], len(valid))
        else:
            codes = content.image_codes[drawn.number]
            asked = asked or self._all
            grid = layout.target_grid**2
            valid = (
                Picture(content.image_data[drawn.number], layout).target_valid() if asked else np.zeros(grid, np.bool_)
            )
        if len(codes) != len(valid):
            raise IntegrityError(
                f"example {content.id}: {len(codes)} image codes, the layout says {layout.target_grid} squared"
            )
        if self._ids:
            self._ids.append(np.array([self.vocabulary.special(BREAK)]))
            self._codes.append(np.zeros(1, np.bool_))
            self._weights.append(np.full(1, float(asked), np.float32))
        self._ids.append(self.renderer.code_ids[codes.astype(np.int64)])
        self._codes.append(np.ones(len(codes), np.bool_))
        self._weights.append(valid.astype(np.float32) * asked)

    def _moved(self) -> tuple[Ids, Mask, Floats]:
        """The stream with its moved spans at the end, and EOS."""
        ids, codes, weights = np.concatenate(self._ids), np.concatenate(self._codes), np.concatenate(self._weights)
        if self.recipe.spans:
            rng = generator(subkey(self.recipe.key, Purpose.NOISE))
            order = moved_order(ids, self.recipe.spans, rng, self.vocabulary)
            kept = order >= 0
            ids = np.where(kept, ids[order], self.vocabulary.sentinels[np.where(kept, 0, -1 - order)])
            # Where a span was taken out is not for the model to say.
            codes, weights = codes[order] & kept, np.where(kept, weights[order], 0).astype(np.float32)
        return (
            np.append(ids, self.vocabulary.EOS),
            np.append(codes, False),
            np.append(weights, np.float32(1)),
        )

    def _cut(self, targets: Ids, codes: Mask, weights: Floats) -> list[Target]:
        """Runs of one modality each, which follow one another in a sequence."""
        ids, places = shift_right(targets, self.vocabulary.BOS), line_positions(len(targets))
        hidden = np.zeros(len(targets), np.bool_)
        edges = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(targets)]
        return [
            Target(
                modality=DecoderModality.IMAGE if codes[a] else DecoderModality.TEXT,
                ids=ids[a:b],
                targets=targets[a:b],
                loss=weights[a:b],
                hidden=hidden[a:b],
                positions=places[a:b],
            )
            for a, b in pairwise(edges)
        ]
