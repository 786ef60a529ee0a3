"""A resolved mixture: plain tasks with their rates, and how an example becomes inputs and a target.

What people write (groups, inheritance, families, schedules) is `omnimill.mixtures.language`; it resolves to this.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from omnimill.config import Config
from omnimill.mixtures.objectives import OBJECTIVES, ObjectiveName

Stream = Literal["image", "image_history", "audio", "audio_history"]
Kind = Literal["prompted", "pretraining", "augmentation", "free_form"]
RateUnit = Literal["examples", "tokens"]
_SLOT = re.compile(r"\{(\w+)\}")
# Roles whose text is location tokens: coordinates, poses, joint angles, boxes with or without labels.
SPARSE_ROLES = frozenset(
    {"action", "boxes", "camera", "cuboids", "keypoints", "object", "points", "region", "state", "subject", "track"}
    # Of task augmentation.
    | {"boxes_in_order", "focus", "measure", "orientation", "person", "place", "point", "within", "written"}
)
# Roles of target pictures that are a map of the input picture, not a picture of the world.
DENSE_ROLES = frozenset({"channels", "depth", "flow", "normals", "segmentation"})


class Task(Config):
    """How the examples of some sources become (inputs, target).

    An example's last image is its current ``image``; up to four before it are its ``image_history``; the same for
    audio. Text is chosen by role: ``{caption}`` in a prompt stands for the example's text of role caption, and
    target ``text:caption`` asks the model for it. Texts and target pictures that belong together (a question and its
    answers, an expression and its mask) share an item; a task reads one item, drawn among those that have all that
    the task needs. When several texts have the role, those that belong to the current image or clip win, and one is
    drawn by the example's id and epoch (roles that a denoising objective reads whole are joined in order).

    group: the groups that it is in, outermost first, joined by ``/``. family: whose defaults it has.
    kind: prompted (annotations of people), pretraining (carried over from there), augmentation (made of other
        annotations) or free_form (text as people write it).
    rate: share of draws (or of tokens, by the mixture's `rate_unit`), relative to the other tasks' rates.
    inputs: streams that an example must have. optional: streams that are read where an example has them.
    keep_optional: share of the examples in which an optional stream that is there is read; drawn for each stream apart.
    target: ``image`` or ``audio`` (the current one's own codes), ``text:<role>``, or ``image:<role>``, a target
        picture of that role; for decoder-only backbones also ``document:<role>``, all texts of the role with all
        pictures, in reading order.
    objective: an entry of `omnimill.mixtures.objectives`. All but ``generate`` and ``token_budgets`` read a target text
        whole, all segments of its role joined; ``token_budgets`` shows some and asks for some of the target and of the
        current streams that are read.
    prompts: templates, one drawn by the example's id and epoch. Empty: nothing but the mode prefix.
    max_epochs: how often its examples are drawn at most; a stream that has gone so often through its share gives the
        task's draws to the others.
    size: examples in one pass, as stated by who wrote the mixture or by the catalog; the data have the last word.
    tokens: of an example, encoder and decoder, on average; as stated.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    group: str = "default"
    family: str | None = None
    kind: Kind = "prompted"
    rate: float = Field(ge=0, allow_inf_nan=False)
    sources: tuple[str, ...] = Field(min_length=1)
    objective: ObjectiveName = "generate"
    inputs: tuple[Stream, ...] = ()
    optional: tuple[Stream, ...] = ()
    keep_optional: float = Field(default=1.0, ge=0, le=1)
    target: str = Field(pattern=r"^(image|audio|(text|image|document):\w+)$")
    prompts: tuple[str, ...] = ()
    max_epochs: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    size: int | None = Field(default=None, ge=1)
    tokens: float | None = Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def target_modality(self) -> Literal["text", "image", "audio"]:
        """Of a document, which has pictures too, it is text."""
        head = self.target.partition(":")[0]
        return "image" if head == "image" else "audio" if head == "audio" else "text"

    @property
    def target_role(self) -> str | None:
        """The role of a text target or document; None for image and audio."""
        return self.target.partition(":")[2] if self.target_modality == "text" else None

    @property
    def target_picture(self) -> str | None:
        """The role of a target picture; None for text, audio and the current picture itself."""
        return self.target.partition(":")[2] or None if self.target_modality == "image" else None

    @property
    def reads_document(self) -> bool:
        """Whether the target is a document: texts and pictures in reading order."""
        return self.target.startswith("document:")

    @property
    def reads_whole(self) -> bool:
        """Whether all texts of the target's role are read, whatever items they belong to."""
        return self.denoises_text or self.reads_document

    @property
    def denoises_text(self) -> bool:
        """Whether the target text is read whole, and divided between encoder and decoder."""
        return OBJECTIVES[self.objective].target == "text"

    @property
    def budgeted(self) -> bool:
        """Whether some tokens of every modality are shown and some asked for."""
        return self.objective == "token_budgets"

    @property
    def own_stream(self) -> Literal["image", "audio"] | None:
        """The target's own stream where the encoder sees some of it; None for other targets and objectives."""
        shown = self.budgeted or OBJECTIVES[self.objective].target in ("image", "audio")
        if not shown or self.target_role or self.target_picture:
            return None
        return "image" if self.target_modality == "image" else "audio"

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Streams that the encoder may read, in their order."""
        return tuple(one for one in get_args(Stream) if one in (*self.inputs, *self.optional, self.own_stream))

    @property
    def prompt_roles(self) -> set[str]:
        """Roles that some prompt asks for."""
        return {role for prompt in self.prompts for role in _SLOT.findall(prompt)}

    @property
    def roles(self) -> set[str]:
        """Roles of text that an example must have: of the prompts and of a text target."""
        return self.prompt_roles | ({self.target_role} if self.target_role else set())

    @property
    def input_modalities(self) -> list[str]:
        """What the encoder reads: ``text``, ``sparse`` (location tokens) and the streams, in this order."""
        text = bool(self.prompts) or self.denoises_text or (self.budgeted and self.target_role is not None)
        sparse = bool(self.prompt_roles & SPARSE_ROLES)
        return [*(["text"] if text else []), *(["sparse"] if sparse else []), *self.streams]

    @property
    def target_modalities(self) -> list[str]:
        """What the decoder writes: ``text``, ``sparse`` (location tokens), ``dense`` (maps), ``image`` or ``audio``."""
        if self.target_picture in DENSE_ROLES:
            return ["dense"]
        main = "sparse" if self.target_role in SPARSE_ROLES else self.target_modality
        more = [one for one in ("image", "audio") if self.budgeted and one in self.streams and one != main]
        return [main, *more]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wanted = OBJECTIVES[self.objective].target
        if wanted and (self.target_modality != wanted or self.target_picture or self.reads_document):
            raise ValueError(f"objective {self.objective} needs a target of modality {wanted}, found {self.target!r}")
        if self.budgeted and (self.target_picture or self.reads_document):
            raise ValueError(f"objective token_budgets takes a text, image or audio as target, found {self.target!r}")
        streams = (*self.inputs, *self.optional)
        if self.reads_document and streams:
            raise ValueError(f"a document has its own pictures: no inputs and no optional streams; found {streams}")
        if OBJECTIVES[self.objective].whole_target and self.target in streams:
            raise ValueError(f"target {self.target!r} is among the inputs, so there is nothing to generate")
        if twice := sorted({stream for stream in streams if streams.count(stream) > 1}):
            raise ValueError(f"a stream is either required or optional; named twice: {', '.join(twice)}")
        if self.target_role in self.prompt_roles:
            raise ValueError(f"the prompt shows the target: {{{self.target_role}}}")
        for prompt in self.prompts:
            if {"{", "}"} & set(_SLOT.sub("", prompt)):
                raise ValueError(f"a slot is a role in braces, such as {{caption}}; found prompt {prompt!r}")
        return self


class Phase(Config):
    """From step `first_step` on, until the next phase, the tasks are drawn at these rates.

    rates: of the tasks, in the mixture's order, relative to one another; 0: not drawn.
    """

    first_step: int = Field(ge=0)
    rates: tuple[float, ...] = Field(min_length=1)


class Mixture(Config):
    """Tasks with rates over some token datasets.

    datasets: names of the token datasets under the root; their sources' names differ and their layouts agree.
    selections: names of selections of these datasets, or of the examples that they were made from; the rows that these
        leave out are not drawn.
    seed: of every random choice in sampling and rendering.
    window: consecutive rows that are read together, shuffled among themselves; larger mixes better, smaller reads
        less at a time.
    rate_unit: what the rates are shares of. Only a mixture in examples can be sampled, see `in_examples`.
    tasks: those that are drawn.
    schedule: phases after the first one, in which the tasks' own rates hold.
    held_out: tasks that are never drawn, for evaluation; their rates mean nothing.
    """

    datasets: tuple[str, ...] = Field(min_length=1)
    selections: tuple[str, ...] = ()
    seed: int = 0
    window: int = Field(default=256, ge=1)
    rate_unit: RateUnit = "examples"
    tasks: tuple[Task, ...] = Field(min_length=1)
    schedule: tuple[Phase, ...] = ()
    held_out: tuple[Task, ...] = ()

    @property
    def rates(self) -> list[float]:
        """Each task's share at the first step, in the tasks' order; sums to 1."""
        return _shares([task.rate for task in self.tasks])

    @property
    def phases(self) -> tuple[Phase, ...]:
        """From which step on which shares hold, the first from step 0; each phase's rates sum to 1."""
        first = Phase(first_step=0, rates=tuple(self.rates))
        later = [Phase(first_step=phase.first_step, rates=tuple(_shares(phase.rates))) for phase in self.schedule]
        return (first, *later)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for what, names in (
            ("task names", [task.name for task in (*self.tasks, *self.held_out)]),
            ("datasets", list(self.datasets)),
        ):
            if doubled := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what} must be unique; doubled: {', '.join(doubled)}")
        steps = [0, *(phase.first_step for phase in self.schedule)]
        if any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(f"phases must start one after the other, after step 0; found steps {steps[1:]}")
        rates = [tuple(task.rate for task in self.tasks), *(phase.rates for phase in self.schedule)]
        for first_step, phase in zip(steps, rates, strict=True):
            if len(phase) != len(self.tasks):
                raise ValueError(f"from step {first_step}: {len(phase)} rates for {len(self.tasks)} tasks")
            if not sum(phase):
                raise ValueError(f"from step {first_step} on no task has a rate above 0")
        for number, task in enumerate(self.tasks):
            if not any(phase[number] for phase in rates):
                raise ValueError(
                    f"task {task.name!r} is never drawn: its rate is 0 at every step; remove or hold it out"
                )
        return self


def in_examples(mixture: Mixture, tokens: Sequence[float]) -> Mixture:
    """The mixture with rates as shares of draws: a task's share of tokens by the tokens of one of its examples.

    Args:
        tokens: of an example of each task on average, encoder and decoder together, in the tasks' order; as measured
            on the data or, before there are any, as stated (`Task.tokens`). Not read when the rates are in examples.
    """
    if mixture.rate_unit == "examples":
        return mixture

    def draws(rates: Sequence[float]) -> tuple[float, ...]:
        return tuple(rate / each for rate, each in zip(rates, tokens, strict=True))

    first = draws([task.rate for task in mixture.tasks])
    return Mixture.model_validate(
        {
            **mixture.model_dump(),
            "rate_unit": "examples",
            "tasks": [{**task.model_dump(), "rate": rate} for task, rate in zip(mixture.tasks, first, strict=True)],
            "schedule": [Phase(first_step=phase.first_step, rates=draws(phase.rates)) for phase in mixture.schedule],
        }
    )


def _shares(rates: Sequence[float]) -> list[float]:
    """Rates divided by their exact sum."""
    whole = sum(map(Fraction, rates))
    return [float(Fraction(rate) / whole) for rate in rates]
