"""Lengths of many examples at once: what `omnimill.training.recipe` counts, as array operations."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from omnimill.mixtures.config import Task
from omnimill.rng import Int64s, UInt64s, choose_many, subkey_many, unit_many
from omnimill.tokenizers.vocabulary import SENTINELS
from omnimill.training.batch import EncoderModality
from omnimill.training.bulk_choices import BulkChoices
from omnimill.training.draws import Purpose, example_keys
from omnimill.training.lengths import Lengths
from omnimill.training.objectives import ObjectiveSettings, noise_counts
from omnimill.training.recipe import Recipes, may_drop_prompt, streams_read
from omnimill.training.row_batch import RowBatch, role_code

FIELDS = tuple(field.name for field in fields(Lengths))
_ENCODER = ("text", "image", "image_history", "audio", "audio_history")
_DECODER = ("target_text", "target_image", "target_audio")
_COSTS = (_ENCODER, _DECODER, ("images",), ("earlier_images",), ("clips", "earlier_clips"))
_HIDDEN = {"image_denoising": "image_mask", "audio_denoising": "audio_mask"}


def costs_of(lengths: Int64s) -> Int64s:
    """`Lengths.costs` of many examples: int64 [budgets, …] from int64 [fields, …] in the order of `FIELDS`."""
    return np.stack([lengths[[FIELDS.index(name) for name in names]].sum(axis=0) for names in _COSTS])


class BulkLengths:
    """Counts examples of the tasks of some recipes."""

    def __init__(self, recipes: Recipes) -> None:
        self._recipes = recipes
        settings = recipes.settings
        self._windows = _Windows(settings.objectives, settings.max_text, recipes.target_limit - 1)

    def of(self, task_index: int, batch: RowBatch, epochs: Int64s) -> Int64s:
        """Lengths of n examples of a task: int64 [fields, n], in the order of `FIELDS`.

        Args:
            batch: the rows. epochs: int64 [n]; how often each has been seen before.
        """
        recipes = self._recipes
        task = recipes.mixture.tasks[task_index]
        keys = example_keys(recipes.task_keys[task_index], batch.ids, epochs)
        choices = BulkChoices(task, batch, keys)
        found = self._media(task, batch, keys)
        used = sum((found[name] for name in _ENCODER if name in found), np.zeros(len(batch), np.int64))
        limit = np.minimum(recipes.settings.max_text, recipes.budgets.encoder - used) - 1
        markers = found.get("earlier_images", 0) + found.get("earlier_clips", 0)

        asked = self._asked(task_index, choices, keys)
        room = limit - 1 - markers
        prompt = np.minimum(asked, room // 2 if task.objective == "text_denoising" else room)
        head = 1 + markers + prompt

        shown = unused = np.zeros(len(batch), np.int64)
        if task.objective == "text_denoising":
            whole = _tokens_of_role(batch, task.target_role or "")
            window, shown, found["target_text"] = self._windows.split(whole, limit - head, keys)
            unused = whole - window
        elif task.target_role:
            whole = choices.text(task.target_role)
            kept = np.minimum(whole, recipes.target_limit - 1)
            found["target_text"], unused = kept + 1, whole - kept
        elif task.target_picture:
            found["target_image"] = choices.picture(task.target_picture)
        else:
            codes = batch.pictures if task.target == "image" else batch.clips
            found[f"target_{task.target}"] = codes.last("codes")
        found["text"] = head + shown + 1
        found["cut"] = asked - prompt + unused
        lengths = np.zeros((len(FIELDS), len(batch)), np.int64)
        for number, name in enumerate(FIELDS):
            if name in found:
                lengths[number] = found[name]
        return lengths

    def _media(self, task: Task, batch: RowBatch, keys: UInt64s) -> dict[str, Int64s]:
        """The fields of `Lengths` that belong to the encoder's pictures and clips, of the streams that are read."""
        settings, streams = self._recipes.settings, streams_read(task)
        found: dict[str, Int64s] = {}
        for stream, lists, frames in (
            (EncoderModality.IMAGE, batch.pictures, "images"),
            (EncoderModality.AUDIO, batch.clips, "clips"),
        ):
            if stream in streams:
                valid = lists.last("input")
                hidden = self._hidden(task, stream, valid, keys)
                found[stream.name.lower()] = np.minimum(valid - hidden, self._recipes.most_patches[stream])
                found[frames] = (valid > 0).astype(np.int64)
        for stream, lists, column, latents, frames in (
            (EncoderModality.IMAGE_HISTORY, batch.pictures, "history", settings.image_latents, "earlier_images"),
            (EncoderModality.AUDIO_HISTORY, batch.clips, "input", settings.audio_latents, "earlier_clips"),
        ):
            if stream in streams:
                found[frames] = np.zeros(len(batch), np.int64)
                for back in range(1, settings.history_frames + 1):
                    found[frames] += lists.last(column, back) > 0
                found[stream.name.lower()] = found[frames] * latents
        return found

    def _hidden(self, task: Task, stream: EncoderModality, valid: Int64s, keys: UInt64s) -> Int64s:
        """Patches that a denoising objective hides."""
        if task.objective not in _HIDDEN or stream.name.lower() != task.target:
            return np.zeros_like(valid)
        low, high = getattr(self._recipes.settings.objectives, _HIDDEN[task.objective])
        share = low + (high - low) * unit_many(subkey_many(keys, Purpose.HIDDEN_SHARE))
        wanted = np.maximum(np.rint(valid * share).astype(np.int64), 1)
        return np.where(valid > 0, np.minimum(wanted, valid - 1), 0)

    def _asked(self, task_index: int, choices: BulkChoices, keys: UInt64s) -> Int64s:
        """Tokens of every example's prompt."""
        task, templates = self._recipes.mixture.tasks[task_index], self._recipes.templates[task_index]
        asked = np.zeros(len(keys), np.int64)
        if templates:
            drawn = choose_many(subkey_many(keys, Purpose.PROMPT), np.full(len(keys), len(templates)))
            literals = [sum(len(part) for part in parts if not isinstance(part, str)) for parts in templates]
            asked = np.array(literals)[drawn]
            for role in sorted(task.prompt_roles):
                uses = [sum(part == role for part in parts if isinstance(part, str)) for parts in templates]
                asked += np.array(uses)[drawn] * choices.text(role)
        drop = self._recipes.settings.prompt_drop
        if drop and may_drop_prompt(task):
            dropped = unit_many(subkey_many(keys, Purpose.PROMPT_DROP)) < drop
            asked = np.where(dropped, len(self._recipes.uninformative), asked)
        return asked


class _Windows:
    """Text denoising by table: how long a window of text each denoiser can take, and how it divides it.

    Args:
        room, target_room: most tokens that encoder and decoder ever have for it.
    """

    def __init__(self, settings: ObjectiveSettings, room: int, target_room: int) -> None:
        # A window is never longer than what its two sides show of it.
        longest = max(room + target_room, 2)
        windows = np.arange(longest + 1)
        self._edges = np.cumsum([denoiser.weight for denoiser in settings.denoisers])
        self._noise = np.zeros((len(settings.denoisers), longest + 1), np.int64)
        self._spans = np.zeros_like(self._noise)
        self._best = np.zeros((len(settings.denoisers), room + 1), np.int64)
        for d, denoiser in enumerate(settings.denoisers):
            for window in range(2, longest + 1):
                if denoiser.mean_span is None:
                    self._noise[d, window] = min(max(round(window * denoiser.rate), 1), window)
                else:
                    counts = noise_counts(window, denoiser.rate, denoiser.mean_span)
                    self._noise[d, window], self._spans[d, window] = counts
            shown = windows - self._noise[d] + self._spans[d]
            wanted = self._noise[d] + self._spans[d]
            fits = (wanted <= target_room) & (self._spans[d] <= SENTINELS)
            # All three grow with the window.
            most = int(np.flatnonzero(fits)[-1])
            self._best[d] = np.clip(np.searchsorted(shown[2:], np.arange(room + 1), side="right") + 1, 2, max(most, 2))

    def split(self, whole: Int64s, room: Int64s, keys: UInt64s) -> tuple[Int64s, Int64s, Int64s]:
        """Tokens of the window, of the encoder's part, and of the decoder's with EOS; of texts of `whole` tokens."""
        point = unit_many(subkey_many(keys, Purpose.DENOISER))
        denoiser = np.searchsorted(self._edges, point * self._edges[-1], side="right")
        window = np.maximum(np.minimum(whole, self._best[denoiser, room]), 2)
        noise, spans = self._noise[denoiser, window], self._spans[denoiser, window]
        return window, window - noise + spans, noise + spans + 1


def _tokens_of_role(batch: RowBatch, role: str) -> Int64s:
    """Tokens of all of a row's texts of a role."""
    texts = batch.texts
    own = texts.columns["roles"] == role_code(role)
    return np.bincount(texts.rows[own], weights=texts.columns["lengths"][own], minlength=len(batch)).astype(np.int64)
