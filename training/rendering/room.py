"""Checks, before anything is planned, that every example of every task can be rendered and fits a packed sequence."""

from __future__ import annotations

from collections.abc import Mapping

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.objectives import MOST_MOVED, OBJECTIVES
from omnimill.tokenizers.sampling import patch_count
from omnimill.tokenizers.vocabulary import SENTINELS
from omnimill.tokens import TokenLayout
from omnimill.training.loading.batch import EncoderModality
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.prompt_text import PromptText
from omnimill.training.rendering.settings import RenderSettings

# Tokens of text and of a text target that every task must have room for, however large its media.
_LEAST_TEXT, _LEAST_TARGET = 16, 8


def check_text_tokenizer(mixture: Mixture, layout: TokenLayout, text: PromptText) -> None:
    """The text tokenizer has to be the one of the token datasets.

    Raises:
        ConfigError: it is not.
    """
    tokenizers = layout.tokenizers
    if text.vocabulary.pieces != layout.text_pieces:
        raise ConfigError(
            f"the text tokenizer has {text.vocabulary.pieces} pieces, but {', '.join(mixture.datasets)} was tokenized "
            f"with {layout.text_pieces}: use tokenizers {tokenizers!r}"
        )
    if text.vocabulary.layout != layout.vocabulary:
        raise ConfigError(f"the text tokenizer has other added tokens than tokenizers {tokenizers!r}: use those")


def check_vocabulary(mixture: Mixture, layout: TokenLayout, text: PromptText, settings: RenderSettings) -> None:
    """What rendering writes has to be in the vocabulary.

    Raises:
        ConfigError: it is not, or is not what an encoder and a decoder can divide.
    """
    check_text_tokenizer(mixture, layout, text)
    vocabulary, tokenizers = layout.vocabulary, layout.tokenizers
    if settings.history_frames > vocabulary.history:
        raise ConfigError(
            f"history_frames: found {settings.history_frames}, tokenizers {tokenizers!r} have "
            f"{vocabulary.history} history markers (layout.vocabulary.history)"
        )
    for task in mixture.tasks:
        if OBJECTIVES[task.objective].everything or task.reads_document:
            raise ConfigError(
                f"task {task.name!r}: objective {task.objective}, target {task.target}: one sequence of everything is "
                "for a decoder-only backbone (backbone.kind: decoder)"
            )
        needed = sentinels_needed(task, settings)
        if vocabulary.sentinels < needed:
            raise ConfigError(
                f"task {task.name!r}: {task.objective} needs {needed} sentinels, tokenizers {tokenizers!r} have "
                f"{vocabulary.sentinels} (layout.vocabulary.sentinels)"
            )

        for prefix in _prefixes(task, settings):
            if prefix not in vocabulary.prefixes:
                raise ConfigError(
                    f"task {task.name!r}: {task.objective} needs the prefix token {prefix!r}, tokenizers "
                    f"{tokenizers!r} have {', '.join(vocabulary.prefixes) or 'none'} (layout.vocabulary.prefixes)"
                )


def _prefixes(task: Task, settings: RenderSettings) -> list[str]:
    """Tokens of modality and paradigm that some example of the task begins with."""
    if task.budgeted:
        coded = [one for one in ("image", "audio") if one in task.streams]
        names = ["text", *coded] if task.target_role else coded
        return [f"{one} {paradigm}" for one in names for paradigm in ("S", "R")]
    if task.denoises_text:
        drawn = {one.paradigm for one in settings.objectives.denoisers_of(task) if one.weight}
        return [f"text {paradigm}" for paradigm in sorted(drawn)]
    return [f"{task.target_modality} {'R' if task.own_stream else 'S'}"]


def sentinels_needed(task: Task, settings: RenderSettings) -> int:
    """Sentinels that a text of the task can need."""
    if task.denoises_text:
        denoisers = settings.objectives.denoisers_of(task)
        if any(one.mean_span is not None for one in denoisers):
            return SENTINELS
        return MOST_MOVED if any(one.moved_spans is not None for one in denoisers) else 0
    return SENTINELS if task.budgeted and task.target_role else 0


def most_patches(layout: TokenLayout, settings: RenderSettings) -> dict[EncoderModality, int]:
    """Patches that are kept at most of one picture or clip, by stream."""
    image, audio = layout.image, layout.audio
    clip = patch_count(audio.input_grid[0] * audio.input_grid[1], settings.audio_keep)
    return {
        EncoderModality.IMAGE: patch_count(image.input_grid**2, settings.image_keep),
        EncoderModality.IMAGE_HISTORY: patch_count(image.history_grid**2, settings.history_keep),
        EncoderModality.AUDIO: clip,
        EncoderModality.AUDIO_HISTORY: clip,
    }


def check_room(
    task: Task,
    streams: set[EncoderModality],
    patches: Mapping[EncoderModality, int],
    layout: TokenLayout,
    settings: RenderSettings,
    budgets: Budgets,
) -> None:
    """The task's largest possible example, its text cut to the least, has to fit an empty sequence.

    Args:
        streams: that the task reads.
        patches: of :func:`most_patches`.

    Raises:
        ConfigError: it does not.
    """
    frames = settings.history_frames
    image, audio = EncoderModality.IMAGE in streams, EncoderModality.AUDIO in streams
    earlier_images = frames if EncoderModality.IMAGE_HISTORY in streams else 0
    earlier_clips = frames if EncoderModality.AUDIO_HISTORY in streams else 0
    current = image * patches[EncoderModality.IMAGE] + audio * patches[EncoderModality.AUDIO]
    shared = settings.objectives.token_budgets
    encoder = (
        # Prefixes, markers, text and EOS.
        (1 + image + audio if task.budgeted else 1)
        + earlier_images
        + earlier_clips
        + _LEAST_TEXT
        + 1
        + (min(current, shared.input_tokens[1]) if task.budgeted else current)
        + earlier_images * settings.image_latents
        + earlier_clips * settings.audio_latents
    )
    rows, columns = layout.audio.target_grid
    most = {"text": _LEAST_TARGET, "image": layout.image.target_grid**2, "audio": rows * columns}
    # EOS comes on top of a budget.
    decoder = shared.target_tokens[1] + 1 if task.budgeted else most[task.target_modality]
    needed = (encoder, decoder, int(image), earlier_images, audio + earlier_clips)
    for name, need, room in zip(Budgets.model_fields, needed, budgets.limits, strict=True):
        if need > room:
            raise ConfigError(
                f"budget {name!r} is too small for task {task.name!r}: its largest example needs {need}, "
                f"found {room}; raise the budget, keep fewer patches or earlier frames, or drop the task"
            )
