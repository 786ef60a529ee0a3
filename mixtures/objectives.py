"""The objectives that a task can name: how its target is divided between the encoder's input and the decoder's output.

An entry says what is done; `omnimill.training.objectives` does it. Numbers that nobody published, and those that runs
differ in, are settings of the run (`omnimill.training.objectives.settings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from omnimill.config import Config, allowed
from omnimill.registry import Registry
from omnimill.vocabulary_layout import Paradigm

# Most spans that are moved to the end of one text (CM3).
MOST_MOVED = 16


class Denoiser(Config):
    """One way to divide a text of L tokens.

    paradigm: the prefix token that announces it. rate: share of the tokens that the decoder must produce; two numbers
    are a range, of which each example draws one.
    mean_span: tokens per corrupted span, of which there are many, each with a sentinel. None: the tokens to produce are
    one suffix; rate 1 is then causal language modelling.
    moved_spans: of a suffix, how many spans are cut out on average, each with a sentinel in its place, and moved to the
    end behind theirs: a Poisson number, at least 1 and at most 16. None: it stays as it is.
    weight: how often, relative to the others that it is mixed with.
    """

    paradigm: Paradigm
    rate: Annotated[float, Field(gt=0, le=1)] | tuple[float, float]
    mean_span: float | None = Field(default=None, ge=1)
    moved_spans: float | None = Field(default=None, gt=0, le=MOST_MOVED)
    weight: float = Field(default=1.0, ge=0)

    @property
    def rates(self) -> tuple[float, float]:
        """Lowest and highest rate."""
        return self.rate if isinstance(self.rate, tuple) else (self.rate, self.rate)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        low, high = self.rates
        if not 0 <= low <= high <= 1 or high == 0:
            raise ValueError(f"a range of rates is two shares from 0 to 1, low then high; found {low}, {high}")
        if (self.paradigm == "S") != (self.mean_span is None):
            raise ValueError("paradigm S takes no mean_span, R and X need one")
        if self.mean_span is not None and (low == 0 or high == 1):
            raise ValueError("span corruption must hide some text and leave some: rates above 0 and below 1")
        if self.mean_span is not None and self.moved_spans is not None:
            raise ValueError("moved_spans are of paradigm S: spans of R and X are the decoder's anyway")
        return self


@dataclass(frozen=True)
class Objective:
    """An entry of the registry.

    title: what it does, as `mixture show` says it. target: the modality that the target must be of; None: any.
    denoiser: how a text target is divided, where the objective is nothing more. mask: lowest and highest share of the
    patches of a picture or clip that are hidden, where the run does not set it.
    whole_target: the encoder, or what comes before it, shows nothing of the target.
    everything: what is shown is to be predicted, too, so that only a decoder-only backbone can. moved_spans: of all of
    it, how many spans are moved to the end on average, as of `Denoiser`.
    """

    title: str
    target: Literal["text", "image", "audio"] | None = None
    denoiser: Denoiser | None = None
    mask: tuple[float, float] | None = None
    whole_target: bool = False
    everything: bool = False
    moved_spans: float | None = None


OBJECTIVES: Registry[Objective] = Registry("objective")


def _add(name: str, title: str, target: Literal["text", "image", "audio"] | None = None) -> None:
    OBJECTIVES.register(name)(Objective(title, target))


def _add_denoiser(name: str, title: str, **settings: Any) -> None:
    OBJECTIVES.register(name)(Objective(title, "text", Denoiser(**settings)))


OBJECTIVES.register("generate")(Objective("the target is absent from the input", whole_target=True))
_add("text_denoising", "a mixture of the entries below, set by the run; UL2's seven by default", "text")
_add("image_denoising", "the picture's own patches are input, a random share of them hidden", "image")
# arXiv 2210.10716: nine in ten are hidden, and a second view of the scene is not.
OBJECTIVES.register("croco")(Objective("a picture's own patches but for a tenth are hidden", "image", mask=(0.9, 0.9)))
_add("audio_denoising", "the clip's own patches are input, a random share of them hidden", "audio")
# arXiv 2312.06647.
_add("token_budgets", "some tokens of every modality are input, some of the rest are the target")
# arXiv 2205.05131, Table 1.
_add_denoiser("ul2_r3_15", "many spans of 3, 15 %", paradigm="R", mean_span=3, rate=0.15)
_add_denoiser("ul2_r8_15", "many spans of 8, 15 %", paradigm="R", mean_span=8, rate=0.15)
_add_denoiser("ul2_s25", "the last quarter", paradigm="S", rate=0.25)
_add_denoiser("ul2_x3_50", "many spans of 3, 50 %", paradigm="X", mean_span=3, rate=0.5)
_add_denoiser("ul2_x8_50", "many spans of 8, 50 %", paradigm="X", mean_span=8, rate=0.5)
_add_denoiser("ul2_x64_15", "spans of 64, 15 %", paradigm="X", mean_span=64, rate=0.15)
_add_denoiser("ul2_x64_50", "spans of 64, 50 %", paradigm="X", mean_span=64, rate=0.5)
# arXiv 1910.10683, section 3.2.3.
_add_denoiser("prefix_lm", "what follows a random place", paradigm="S", rate=(0.0, 1.0))
_add_denoiser("causal_lm", "all of the text", paradigm="S", rate=1.0)
# arXiv 2201.07520, section 2.
_add_denoiser("cm3", "all of the text, some spans of it moved to the end", paradigm="S", rate=1.0, moved_spans=1.0)
OBJECTIVES.register("causal")(
    Objective("prompt, pictures and target are one sequence, all of it predicted", whole_target=True, everything=True)
)
OBJECTIVES.register("causal_masked")(
    Objective("the same, some spans of it moved to the end", whole_target=True, everything=True, moved_spans=1.0)
)


def named(name: str) -> Denoiser:
    """The setting of text denoising that an entry stands for.

    Raises:
        ValueError: there is no such entry.
    """
    found = {known: entry.denoiser for known, entry in OBJECTIVES.items() if entry.denoiser is not None}
    if name not in found:
        raise ValueError(f"unknown denoiser; {allowed(name, list(found))}")
    return found[name]


def _known(name: str) -> str:
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective; {allowed(name, list(OBJECTIVES))}")
    return name


def _unpacked(value: Any) -> Any:
    """A denoiser by its name alone, or by its name and a weight: as it is written out."""
    if isinstance(value, str):
        return named(value)
    if isinstance(value, Mapping) and set(value) <= {"name", "weight"} and isinstance(value.get("name"), str):
        return {**named(value["name"]).model_dump(), **{key: value[key] for key in value if key != "name"}}
    return value


# The name of an entry.
ObjectiveName = Annotated[str, AfterValidator(_known)]
# A setting of text denoising: written out, the name of an entry, or {name, weight}.
NamedDenoiser = Annotated[Denoiser, BeforeValidator(_unpacked)]

UL2 = tuple(named(name) for name in OBJECTIVES if name.startswith("ul2_"))
