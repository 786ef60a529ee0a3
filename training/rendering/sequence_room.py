"""Checks, before anything is planned, that every sequence of every task can be made and fits a packed sequence."""

from __future__ import annotations

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.objectives import MOST_MOVED, OBJECTIVES
from omnimill.tokens import TokenLayout
from omnimill.training.objectives.spans import BREAK
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.prompt_text import PromptText
from omnimill.training.rendering.room import check_text_tokenizer, sentinels_needed
from omnimill.training.rendering.settings import RenderSettings

# Tokens of text that every sequence must have room for, however many pictures it has.
_LEAST_TEXT = 24


def check_sequences(
    mixture: Mixture, layout: TokenLayout, text: PromptText, settings: RenderSettings, budgets: Budgets
) -> None:
    """What sequences are made of has to be in the vocabulary and has to fit.

    Raises:
        ConfigError: it is not, or does not.
    """
    check_text_tokenizer(mixture, layout, text)
    for task in mixture.tasks:
        check_sequence(task, layout, settings, budgets)


def check_sequence(task: Task, layout: TokenLayout, settings: RenderSettings, budgets: Budgets) -> None:
    """As :func:`check_sequences`, of one task."""
    vocabulary, tokenizers = layout.vocabulary, layout.tokenizers
    if task.target == "audio" or any(stream.startswith("audio") for stream in task.streams):
        raise ConfigError(f"task {task.name!r}: a decoder-only backbone has no sound; leave the task out")
    if OBJECTIVES[task.objective].target == "image" or task.budgeted:
        raise ConfigError(
            f"task {task.name!r}: {task.objective} shows an encoder patches, which a decoder-only backbone lacks; "
            "allowed: generate, causal, causal_masked, and what divides texts"
        )
    pictures = task.target_modality == "image" or bool(task.streams) or task.reads_document
    if pictures and "image" not in vocabulary.joint:
        raise ConfigError(
            f"task {task.name!r}: sequences hold pictures as ids of the text table; tokenizers {tokenizers!r} keep "
            "them apart (layout.vocabulary.joint)"
        )
    if pictures and BREAK not in vocabulary.specials:
        raise ConfigError(
            f"task {task.name!r}: sequences need {BREAK} between text and pictures, which tokenizers {tokenizers!r} "
            "lack (layout.vocabulary.specials)"
        )
    needed = MOST_MOVED if OBJECTIVES[task.objective].moved_spans else sentinels_needed(task, settings)
    if vocabulary.sentinels < needed:
        raise ConfigError(
            f"task {task.name!r}: {task.objective} needs {needed} sentinels, tokenizers {tokenizers!r} have "
            f"{vocabulary.sentinels} (layout.vocabulary.sentinels)"
        )
    # A document ends before the picture that does not fit.
    shown = ("image" in task.streams) + ("image_history" in task.streams) * settings.history_frames
    most = 0 if task.reads_document else shown + (task.target_modality == "image")
    moved = 2 * MOST_MOVED if OBJECTIVES[task.objective].moved_spans else 0
    room = most * (layout.image.target_grid**2 + 1) + _LEAST_TEXT + moved
    if room > budgets.decoder:
        raise ConfigError(
            f"budget 'decoder' is too small for task {task.name!r}: its largest example needs {room}, found "
            f"{budgets.decoder}; raise the budget, keep fewer earlier pictures (history_frames), or drop the task"
        )
