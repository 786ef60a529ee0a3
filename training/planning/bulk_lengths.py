"""Lengths of many examples at once: what `omnimill.training.rendering.recipe` counts, as array operations."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from omnimill.mixtures.config import Task
from omnimill.rng import Int64s, UInt64s, subkey_many, unit_many
from omnimill.training.loading.batch import EncoderModality
from omnimill.training.objectives.budgets import Portions, divide
from omnimill.training.objectives.spans import Mask
from omnimill.training.objectives.text import denoise
from omnimill.training.planning.bulk_choices import BulkChoices
from omnimill.training.planning.bulk_prompts import prompt_tokens, tokens_of_role
from omnimill.training.planning.draws import Purpose, example_keys
from omnimill.training.planning.lengths import Lengths
from omnimill.training.planning.row_batch import Lists, RowBatch
from omnimill.training.rendering.frames import CODED, may_drop, streams_read
from omnimill.training.rendering.recipe import Recipes

FIELDS = tuple(field.name for field in fields(Lengths))
_ENCODER = ("text", "image", "image_history", "audio", "audio_history")
_DECODER = ("target_text", "target_image", "target_audio")
_COSTS = (_ENCODER, _DECODER, ("images",), ("earlier_images",), ("clips", "earlier_clips"))
_LISTS = {
    EncoderModality.IMAGE: "pictures",
    EncoderModality.IMAGE_HISTORY: "pictures",
    EncoderModality.AUDIO: "clips",
    EncoderModality.AUDIO_HISTORY: "clips",
}
_CURRENT = {EncoderModality.IMAGE: "images", EncoderModality.AUDIO: "clips"}
_EARLIER = {EncoderModality.IMAGE_HISTORY: "earlier_images", EncoderModality.AUDIO_HISTORY: "earlier_clips"}


def costs_of(lengths: Int64s) -> Int64s:
    """`Lengths.costs` of many examples: int64 [budgets, …] from int64 [fields, …] in the order of `FIELDS`."""
    return np.stack([lengths[[FIELDS.index(name) for name in names]].sum(axis=0) for names in _COSTS])


class BulkLengths:
    """Counts examples of the tasks of some recipes."""

    def __init__(self, recipes: Recipes) -> None:
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
        whole = self._whole(task, batch, choices)
        kept = self._kept(task, keys)
        portions = self._portions(batch, whole, kept, keys) if task.budgeted else None
        found = self._media(task, batch, kept, portions, keys)
        used = sum((found[name] for name in _ENCODER if name in found), np.zeros(len(batch), np.int64))
        limit = np.minimum(recipes.settings.max_text, recipes.budgets.encoder - used) - 1
        markers = found.get("earlier_images", 0) + found.get("earlier_clips", 0)

        asked = prompt_tokens(recipes, task_index, choices, keys)
        prefixes = 1 if portions is None else sum((count > 0).astype(np.int64) for count in portions.asked.values())
        room = limit - prefixes - markers
        prompt = np.minimum(asked, room // 2 if task.denoises_text or task.budgeted else room)
        head = prefixes + markers + prompt

        shown = unused = np.zeros(len(batch), np.int64)
        if task.target_role:
            shown, unused, found["target_text"] = self._text(task, whole, limit - head, portions, keys)
        found |= self._codes(task, batch, choices, portions)
        found["text"] = head + shown + 1
        found["cut"] = asked - prompt + unused
        lengths = np.zeros((len(FIELDS), len(batch)), np.int64)
        for number, name in enumerate(FIELDS):
            if name in found:
                lengths[number] = found[name]
        return lengths

    def _whole(self, task: Task, batch: RowBatch, choices: BulkChoices) -> Int64s:
        """Tokens of every example's target text, 0 for other targets."""
        if task.target_role is None:
            return np.zeros(len(batch), np.int64)
        return tokens_of_role(batch, task.target_role) if task.denoises_text else choices.text(task.target_role)

    def _kept(self, task: Task, keys: UInt64s) -> dict[EncoderModality, Mask]:
        """Which examples read each of the streams that they have: bool [n]."""
        return {
            stream: unit_many(subkey_many(keys, Purpose.KEEP_STREAM, stream)) < task.keep_optional
            if may_drop(task, stream)
            else np.ones(len(keys), np.bool_)
            for stream in sorted(streams_read(task))
        }

    def _portions(self, batch: RowBatch, whole: Int64s, kept: dict[EncoderModality, Mask], keys: UInt64s) -> Portions:
        media = {}
        for stream in _CURRENT:
            if stream in kept:
                lists: Lists = getattr(batch, _LISTS[stream])
                media[stream] = (lists.last("input") * kept[stream], lists.last("codes") * kept[stream])
        return self._recipes.portions(whole, media, keys)

    def _media(
        self,
        task: Task,
        batch: RowBatch,
        kept: dict[EncoderModality, Mask],
        portions: Portions | None,
        keys: UInt64s,
    ) -> dict[str, Int64s]:
        """The fields of `Lengths` that belong to the encoder's pictures and clips, of the streams that are read."""
        settings, found = self._recipes.settings, dict[str, Int64s]()
        for stream, read in kept.items():
            lists: Lists = getattr(batch, _LISTS[stream])
            name = stream.name.lower()
            if stream in _CURRENT:
                valid = lists.last("input") * read
                hidden = self._hidden(task, stream, valid, keys)
                patches = valid - hidden if portions is None else portions.shown[CODED[stream]]
                found[name] = np.minimum(patches, self._recipes.most_patches[stream])
                found[_CURRENT[stream]] = (found[name] > 0).astype(np.int64)
            else:
                column = "history" if stream == EncoderModality.IMAGE_HISTORY else "input"
                latents = settings.image_latents if stream == EncoderModality.IMAGE_HISTORY else settings.audio_latents
                frames = np.zeros(len(batch), np.int64)
                for back in range(1, settings.history_frames + 1):
                    frames += (lists.last(column, back) > 0) & read
                found[_EARLIER[stream]], found[name] = frames, frames * latents
        return found

    def _hidden(self, task: Task, stream: EncoderModality, valid: Int64s, keys: UInt64s) -> Int64s:
        """Patches that a denoising objective hides."""
        if task.own_stream is None or stream.name.lower() != task.own_stream:
            return np.zeros_like(valid)
        low, high = self._recipes.settings.objectives.mask_of(task)
        share = low + (high - low) * unit_many(subkey_many(keys, Purpose.HIDDEN_SHARE))
        wanted = np.maximum(np.rint(valid * share).astype(np.int64), 1)
        return np.where(valid > 0, np.minimum(wanted, valid - 1), 0)

    def _text(
        self, task: Task, whole: Int64s, room: Int64s, portions: Portions | None, keys: UInt64s
    ) -> tuple[Int64s, Int64s, Int64s]:
        """Tokens of a text target that the encoder sees, that nothing does, and that the decoder writes, with EOS."""
        objectives, target_room = self._recipes.settings.objectives, self._recipes.target_limit - 1
        if portions is not None:
            shown = np.minimum(portions.shown["text"], room)
            splits = divide(objectives.token_budgets, whole, shown, portions.asked["text"], keys)
        elif task.denoises_text:
            rooms = np.full(len(whole), target_room)
            splits = denoise(objectives.denoisers_of(task), whole, room, rooms, keys)
        else:
            kept = np.minimum(whole, target_room)
            return np.zeros_like(whole), whole - kept, kept + 1
        return splits.inputs, whole - splits.length, splits.targets + (splits.targets > 0)

    def _codes(self, task: Task, batch: RowBatch, choices: BulkChoices, portions: Portions | None) -> dict[str, Int64s]:
        """Codes that are asked for."""
        if portions is not None:
            return {f"target_{name}": count for name, count in portions.asked.items() if name != "text"}
        if task.target_role:
            return {}
        if task.target_picture:
            return {"target_image": choices.picture(task.target_picture)}
        codes = batch.pictures if task.target == "image" else batch.clips
        return {f"target_{task.target}": codes.last("codes")}
