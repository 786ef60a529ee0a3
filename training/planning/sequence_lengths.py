"""Lengths of many sequences at once: what `omnimill.training.rendering.sequence_recipe` counts, as array operations.

Documents alone are counted one by one: how far one reaches depends on every piece of it.
"""

from __future__ import annotations

import numpy as np

from omnimill.mixtures.config import Task
from omnimill.rng import Int64s, UInt64s, subkey_many, unit_many
from omnimill.training.loading.batch import EncoderModality
from omnimill.training.planning.bulk_choices import BulkChoices
from omnimill.training.planning.bulk_lengths import FIELDS
from omnimill.training.planning.bulk_prompts import prompt_tokens, tokens_of_role
from omnimill.training.planning.draws import Purpose, example_keys
from omnimill.training.planning.row_batch import RowBatch, role_code
from omnimill.training.rendering.frames import may_drop, streams_read
from omnimill.training.rendering.sequence_recipe import SequenceRecipes

_TEXT, _IMAGE, _CUT = (FIELDS.index(name) for name in ("target_text", "target_image", "cut"))


class BulkSequenceLengths:
    """Counts examples of the tasks of some recipes; as `omnimill.training.planning.bulk_lengths.BulkLengths`."""

    def __init__(self, recipes: SequenceRecipes) -> None:
        self._recipes = recipes

    def of(self, task_index: int, batch: RowBatch, epochs: Int64s) -> Int64s:
        """Lengths of n examples of a task: int64 [fields, n], in the order of `FIELDS`.

        Args:
            batch: the rows. epochs: int64 [n]; how often each has been seen before.
        """
        recipes = self._recipes
        task = recipes.mixture.tasks[task_index]
        keys = example_keys(recipes.task_keys[task_index], batch.ids, epochs)
        choices = BulkChoices(task, batch, keys)
        asked = prompt_tokens(recipes, task_index, choices, keys)
        lengths = np.zeros((len(FIELDS), len(batch)), np.int64)
        if task.reads_document:
            self._documents(task, batch, asked, keys, lengths)
            return lengths
        pictures, codes = self._pictures(task, batch, choices, keys)
        counted = recipes.count(task, asked, self._whole(task, batch, choices), pictures, codes, keys)
        lengths[_TEXT], lengths[_IMAGE], lengths[_CUT] = counted.text, codes, counted.cut
        return lengths

    def _whole(self, task: Task, batch: RowBatch, choices: BulkChoices) -> Int64s:
        """Tokens of every example's target text, 0 for other targets."""
        if task.target_role is None:
            return np.zeros(len(batch), np.int64)
        return tokens_of_role(batch, task.target_role) if task.denoises_text else choices.text(task.target_role)

    def _pictures(self, task: Task, batch: RowBatch, choices: BulkChoices, keys: UInt64s) -> tuple[Int64s, Int64s]:
        """How many pictures a sequence has, shown and asked for, and their codes: int64 [n] each."""
        parts = []
        for stream in streams_read(task):
            read = np.ones(len(batch), np.bool_)
            if may_drop(task, stream):
                read = unit_many(subkey_many(keys, Purpose.KEEP_STREAM, stream)) < task.keep_optional
            earlier = stream == EncoderModality.IMAGE_HISTORY
            backs = range(1, self._recipes.settings.history_frames + 1) if earlier else (0,)
            parts += [batch.pictures.last("codes", back) * read for back in backs]
        if task.target_picture:
            parts.append(choices.picture(task.target_picture))
        elif task.target == "image":
            parts.append(batch.pictures.last("codes"))
        codes = np.array(parts, np.int64).reshape(len(parts), len(batch))
        return (codes > 0).sum(axis=0), codes.sum(axis=0)

    def _documents(self, task: Task, batch: RowBatch, asked: Int64s, keys: UInt64s, lengths: Int64s) -> None:
        texts, pictures = batch.texts, batch.pictures
        own = texts.columns["roles"] == role_code(task.target_role or "")
        for row in range(len(batch)):
            segments = range(texts.offsets[row], texts.offsets[row + 1])
            found = [
                (number, image if (image := int(texts.columns["images"][i])) >= 0 else None, int(size))
                for number, i in enumerate(segments)
                if own[i] and (size := texts.columns["lengths"][i])
            ]
            codes = pictures.columns["codes"][pictures.offsets[row] : pictures.offsets[row + 1]].tolist()
            _, counted, drawn = self._recipes.document(task, int(asked[row]), found, codes, keys[row : row + 1])
            lengths[_TEXT, row], lengths[_IMAGE, row] = counted.text[0], drawn
            lengths[_CUT, row] = counted.cut[0]
