"""The mixture language: tasks, their rates, and how an example becomes inputs and a target."""

from __future__ import annotations

import re
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from omnimill.config import Config

Stream = Literal["image", "image_history", "audio", "audio_history"]
_SLOT = re.compile(r"\{(\w+)\}")
# Roles whose text is location tokens: coordinates, poses, joint angles.
SPARSE_ROLES = frozenset({"action", "boxes", "camera", "points", "region", "state"})


class Task(Config):
    """How the examples of some sources become (inputs, target).

    An example's last image is its current ``image``; up to four before it are its ``image_history``; the same for
    audio. Text is chosen by role: ``{caption}`` in a prompt stands for the example's text of role caption, and
    target ``text:caption`` asks the model for it. When several texts have the role, those that belong to the
    current image or clip win, and one is drawn by the example's id and epoch (roles that a denoising objective
    reads whole are joined in order).

    rate: share of drawn examples, relative to the other tasks' rates.
    objective: a name of the objective registry in ``omnimill.training``:
        generate: the target is absent from the input. Text, image codes or audio codes.
        text_denoising: span corruption, prefix and causal denoising of the target text, mixed as configured.
        image_denoising, audio_denoising: the target's own patches are input, a random share of them masked.
    prompts: templates, one drawn by the example's id and epoch. Empty: nothing but the mode prefix.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    group: str = "default"
    rate: float = Field(gt=0, allow_inf_nan=False)
    sources: tuple[str, ...] = Field(min_length=1)
    objective: Literal["generate", "text_denoising", "image_denoising", "audio_denoising"] = "generate"
    inputs: tuple[Stream, ...] = ()
    target: str = Field(pattern=r"^(image|audio|text:\w+)$")
    prompts: tuple[str, ...] = ()

    @property
    def target_modality(self) -> Literal["text", "image", "audio"]:
        head = self.target.partition(":")[0]
        return "image" if head == "image" else "audio" if head == "audio" else "text"

    @property
    def target_role(self) -> str | None:
        """The role of a text target; None for image and audio."""
        return self.target.partition(":")[2] or None

    @property
    def prompt_roles(self) -> set[str]:
        """Roles that some prompt asks for."""
        return {role for prompt in self.prompts for role in _SLOT.findall(prompt)}

    @property
    def roles(self) -> set[str]:
        """Roles that an example must have: of the prompts and of a text target."""
        return self.prompt_roles | ({self.target_role} if self.target_role else set())

    @property
    def input_modalities(self) -> list[str]:
        """What the encoder reads: ``text``, ``sparse`` (location tokens) and the streams, in this order."""
        text = bool(self.prompts) or self.objective == "text_denoising"
        sparse = bool(self.prompt_roles & SPARSE_ROLES)
        denoised = {"image_denoising": ["image"], "audio_denoising": ["audio"]}.get(self.objective, [])
        streams = [stream for stream in get_args(Stream) if stream in (*self.inputs, *denoised)]
        return [*(["text"] if text else []), *(["sparse"] if sparse else []), *streams]

    @property
    def target_modalities(self) -> list[str]:
        """What the decoder writes: ``text``, ``sparse`` (location tokens), ``image`` or ``audio``."""
        return ["sparse" if self.target_role in SPARSE_ROLES else self.target_modality]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wanted = {"text_denoising": "text", "image_denoising": "image", "audio_denoising": "audio"}.get(self.objective)
        if wanted and self.target_modality != wanted:
            raise ValueError(f"objective {self.objective} needs a target of modality {wanted}, found {self.target!r}")
        if self.objective == "generate" and self.target in self.inputs:
            raise ValueError(f"target {self.target!r} is among the inputs, so there is nothing to generate")
        if self.target_role in self.prompt_roles:
            raise ValueError(f"the prompt shows the target: {{{self.target_role}}}")
        for prompt in self.prompts:
            if {"{", "}"} & set(_SLOT.sub("", prompt)):
                raise ValueError(f"a slot is a role in braces, such as {{caption}}; found prompt {prompt!r}")
        return self


class Mixture(Config):
    """Tasks with rates over one token dataset.

    dataset: name of the token dataset under the root. seed: of every random choice in sampling and rendering.
    window: consecutive rows that are read together, shuffled among themselves; larger mixes better, smaller reads
        less at a time.
    """

    dataset: str
    seed: int = 0
    window: int = Field(default=256, ge=1)
    tasks: tuple[Task, ...] = Field(min_length=1)

    @property
    def rates(self) -> list[float]:
        """Each task's share of drawn examples, in the tasks' order; sums to 1."""
        whole = sum(task.rate for task in self.tasks)
        return [task.rate / whole for task in self.tasks]

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [task.name for task in self.tasks]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"task names must be unique; doubled: {', '.join(doubled)}")
        return self
