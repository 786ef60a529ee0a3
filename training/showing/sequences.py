"""What a decoder-only backbone would read and write for an example: its stream, with pictures as their codes show them.

The stream is that of `omnimill.training.rendering.sequences`, cut where the first id is asked for: of an objective that
asks for everything nothing is only read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from omnimill.mixtures.objectives import OBJECTIVES
from omnimill.mixtures.row_columns import RowContent
from omnimill.tokenizers import image
from omnimill.tokenizers.store import Tokenizers
from omnimill.training.rendering.sequence_recipe import Drawn
from omnimill.training.rendering.sequences import SequenceRenderer
from omnimill.training.showing.example import ShownExample, ShownPicture, described
from omnimill.training.showing.runs import Run, text_runs


class SequenceViewer:
    """Makes examples of a mixture visible; as `omnimill.training.showing.show.Viewer`."""

    def __init__(self, renderer: SequenceRenderer, tokenizers: Tokenizers) -> None:
        self.renderer = renderer
        self.tokenizers = tokenizers
        self._codes = frozenset(renderer.code_ids.tolist())

    def show(self, task_index: int, content: RowContent, epoch: int) -> ShownExample:
        """One example. Errors as of :meth:`SequenceRenderer.render`."""
        recipe = self.renderer.recipes.make(task_index, content, content.id, epoch)
        rendered = self.renderer.render(task_index, content, epoch)
        stream = np.concatenate([one.targets for one in rendered.targets]).tolist()
        read = len(self.renderer.opening(task_index, content, epoch))
        shown = self._pictures(recipe.shown, content)
        asked = self._pictures([one for one in recipe.answer if isinstance(one, Drawn)], content)
        everything = OBJECTIVES[recipe.task.objective].everything
        return ShownExample(
            **described(self.renderer.recipes, task_index, recipe, content, epoch),
            reads=tuple(self._runs(stream[:read])),
            pictures=() if everything else shown,
            clips=(),
            writes=tuple(self._runs(stream[read:])),
            target_pictures=(*shown, *asked) if everything else asked,
            target_clips=(),
        )

    def _runs(self, ids: Sequence[int]) -> Iterator[Run]:
        for coded, group in groupby(ids, self._codes.__contains__):
            run = list(group)
            if coded:
                yield Run("special", f"[{len(run)} codes of a picture]")
            else:
                yield from text_runs(run, self.tokenizers.text)

    def _pictures(self, drawn: Sequence[Drawn], content: RowContent) -> tuple[ShownPicture, ...]:
        if self.tokenizers.image_codes is None or not drawn:
            return ()
        codes = [(content.target_codes if one.target else content.image_codes)[one.number].tolist() for one in drawn]
        decoded = self.tokenizers.image_codes.decode(codes)
        return tuple(
            ShownPicture(f"picture {number} as its codes decode", image.to_bytes(one))
            for number, one in enumerate(decoded, 1)
        )
