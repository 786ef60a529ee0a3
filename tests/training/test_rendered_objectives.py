"""What the entries of the objective registry make of examples of several modalities, from plan to packed batch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.row_columns import RowContent, RowLengths
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import TextVocabulary
from omnimill.tokens import LENGTH_COLUMNS, TokenLayout
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.masks import decoder_self_mask
from omnimill.training.backbone.model import Backbone
from omnimill.training.loading.batch import DecoderModality, EncoderModality
from omnimill.training.loading.collate import collate
from omnimill.training.objectives.settings import ObjectiveSettings, TokenBudgets
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Rendered, Renderer
from omnimill.training.rendering.prompt import whole_renderer
from omnimill.training.rendering.recipe import Recipe
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.showing.words import divided
from omnimill.vocabulary_layout import VocabularyLayout

BUDGETS = Budgets(encoder=220, decoder=160, images=3, image_history=6, audio=6)
FEW = TokenBudgets(input_tokens=(20, 30), target_tokens=(20, 40))
SETTINGS = RenderSettings(
    max_text=96,
    max_target_text=64,
    image_latents=4,
    audio_latents=2,
    objectives=ObjectiveSettings(token_budgets=FEW, image_mask=(0.2, 0.4)),
)
_FILM = {"sources": ("films",), "rate": 1, "optional": ("image", "audio", "image_history")}
MIXTURE = Mixture(
    datasets=("tokens",),
    tasks=(
        Task(name="some", target="text:transcript", objective="token_budgets", prompts=("go on",), **_FILM),
        Task(name="pictures", target="image", objective="token_budgets", **_FILM),
        Task(name="moved", target="text:transcript", objective="cm3", **_FILM),
        Task(name="follow", target="text:transcript", objective="prefix_lm", keep_optional=0.5, **_FILM),
        Task(name="spans", target="text:transcript", objective="ul2_x3_50", keep_optional=0.0, **_FILM),
        Task(name="mend", target="image", objective="image_denoising", rate=1, sources=("films",)),
        Task(name="mute", target="audio", objective="audio_denoising", rate=1, sources=("films",)),
        Task(name="complete", target="image", objective="croco", rate=1, sources=("films",)),
    ),
)
NAMES = [task.name for task in MIXTURE.tasks]


def content_of(row: dict[str, Any]) -> RowContent:
    values = {field.name: row[field.name] for field in fields(RowContent)}
    for name in ("image_codes", "audio_codes", "target_codes"):
        values[name] = [np.array(codes, np.uint16) for codes in values[name]]
    return RowContent(**{**values, "text_ids": [np.array(ids, np.int32) for ids in values["text_ids"]]})


def lengths_of(row: dict[str, Any]) -> RowLengths:
    return RowLengths(*(row[name] for name in LENGTH_COLUMNS))


@pytest.fixture(scope="module")
def renderer(layout: TokenLayout, text: TextTokenizer) -> Renderer:
    return Renderer(MIXTURE, layout, text, SETTINGS, BUDGETS)


@pytest.fixture(scope="module")
def show(renderer: Renderer, token_data: Any) -> Callable[..., Rendered]:
    def render(name: str, number: int = 0, epoch: int = 0) -> Rendered:
        return renderer.render(NAMES.index(name), content_of(token_data.rows["films"][number]), epoch)

    return render


@pytest.fixture(scope="module")
def make(renderer: Renderer, token_data: Any) -> Callable[..., Recipe]:
    def recipe(name: str, number: int = 0, epoch: int = 0) -> Recipe:
        row = token_data.rows["films"][number]
        return renderer.recipes.make(NAMES.index(name), lengths_of(row), row["id"], epoch)

    return recipe


@settings(max_examples=60)
@given(task=st.sampled_from(range(len(NAMES))), number=st.integers(0, 39), epoch=st.integers(0, 99))
def test_plan_says_exactly_what_render_yields(
    task: int, number: int, epoch: int, renderer: Renderer, token_data: Any
) -> None:
    row = token_data.rows["films"][number]
    planned = renderer.plan(task, lengths_of(row), row["id"], epoch)
    rendered = renderer.render(task, content_of(row), epoch)
    assert replace(planned, cut=0) == rendered.lengths
    assert all(cost <= limit for cost, limit in zip(planned.costs, BUDGETS.limits, strict=True))
    assert planned.decoder > 0


def test_budgets_are_kept_and_shared_among_all_modalities(make: Callable[..., Recipe]) -> None:
    seen: Counter[tuple[str, ...]] = Counter()
    for epoch in range(300):
        lengths = make("some", epoch % 40, epoch).lengths
        asked = {name: getattr(lengths, f"target_{name}") for name in ("text", "image", "audio")}
        # Beside what is shown: a prefix for each target, a marker for each earlier picture, the prompt's tokens, EOS.
        shown = lengths.image + lengths.audio + lengths.text - lengths.earlier_images - 1
        assert shown <= 30 + sum(count > 0 for count in asked.values()) + 4
        assert 1 <= lengths.decoder - (lengths.target_text > 0) <= 40
        seen[tuple(name for name, count in asked.items() if count)] += 1
    assert min(seen[("text",)], seen[("image",)], seen[("audio",)]) > 20
    assert sum(count for names, count in seen.items() if len(names) > 1) > 60


def test_codes_that_are_asked_for_are_their_own_and_mostly_not_shown(
    show: Callable[..., Rendered], token_data: Any, layout: TokenLayout
) -> None:
    asked = covered = 0
    for number in range(40):
        example = show("pictures", number, 3)
        row = token_data.rows["films"][number]
        for target in example.targets:
            image = target.modality == DecoderModality.IMAGE
            columns = 8 if image else layout.audio.target_grid[1]
            places = (target.positions[:, 0] * columns + target.positions[:, 1]).astype(int)
            assert (np.diff(places) > 0).all()
            codes = np.array(row["image_codes" if image else "audio_codes"][-1])
            assert target.targets.tolist() == (codes[places] + 2).tolist()
            assert target.ids.tolist() == [0, *target.targets[:-1].tolist()]
            frames = example.frames.get(EncoderModality.IMAGE if image else EncoderModality.AUDIO, ())
            if frames:
                asked += len(places)
                covered += int((~target.hidden).sum())
            else:
                assert not target.hidden.any()
    assert asked > 100
    assert covered < asked / 10


def test_a_prefix_for_every_target_says_whether_some_of_it_is_shown(
    show: Callable[..., Rendered], text: TextTokenizer
) -> None:
    prefixes = Counter()
    for epoch in range(60):
        example = show("some", 1, epoch)
        shown = {
            DecoderModality.IMAGE: EncoderModality.IMAGE in example.frames
            and bool(example.frames[EncoderModality.IMAGE]),
            DecoderModality.AUDIO: EncoderModality.AUDIO in example.frames
            and bool(example.frames[EncoderModality.AUDIO]),
        }
        for place, target in enumerate(example.targets):
            name = target.modality.name.lower()
            own = {text.vocabulary.prefix(name, paradigm): paradigm for paradigm in ("S", "R")}  # type: ignore[arg-type]
            paradigm = own[int(example.text[place])]
            prefixes[name, paradigm] += 1
            if target.modality in shown:
                assert (paradigm == "R") == shown[target.modality]
    assert len(prefixes) == 6


def test_masks_of_pictures_and_sound_follow_their_ranges(make: Callable[..., Recipe]) -> None:
    def shares(name: str, stream: EncoderModality) -> list[float]:
        frames = [make(name, number, epoch).frames[stream][0] for number in range(20) for epoch in range(20)]
        return [frame.hidden / frame.valid for frame in frames]

    for name, stream, low, high in (
        ("mend", EncoderModality.IMAGE, 0.2, 0.4),
        ("mute", EncoderModality.AUDIO, 0.5, 0.9),
        ("complete", EncoderModality.IMAGE, 0.9, 0.9),
    ):
        found = shares(name, stream)
        # Whole patches are hidden, of clips there are few.
        assert np.mean(found) == pytest.approx((low + high) / 2, abs=0.03)
        assert low - 0.07 <= min(found) <= max(found) <= high + 0.07


def test_targets_of_one_example_are_packed_side_by_side_and_predicted_apart(show: Callable[..., Rendered]) -> None:
    examples = [example for epoch in range(60) if len((example := show("some", 1, epoch)).targets) > 1][:2]
    batch = collate([examples], Budgets(encoder=400, decoder=200))
    counts = [len(target.ids) for example in examples for target in example.targets]
    assert batch.decoder_segment[0].tolist()[: sum(counts)] == [
        number for number, example in enumerate(examples, 1) for target in example.targets for _ in target.ids
    ]
    seen = decoder_self_mask(batch.decoder_segment, batch.decoder_modality)[0, 0]
    blocks = torch.block_diag(*(torch.ones(count, count).tril() for count in counts)).bool()
    assert torch.equal(seen[: len(blocks), : len(blocks)], blocks)
    assert set(batch.decoder_task[0].tolist()) == {0, -1}


def test_sparse_masks_go_by_the_place_of_a_code(show: Callable[..., Rendered], layout: TokenLayout) -> None:
    found = (show("pictures", number, number) for number in range(40))
    example = next(one for one in found if one.target.modality == DecoderModality.IMAGE and len(one.target.ids) > 12)
    batch = collate([[example]], Budgets(encoder=len(example.modality), decoder=example.lengths.decoder))
    # The only decoder layer sees 5 rows and columns around a code.
    plain = BackboneConfig.of("tiny", layout)
    latents = {"image_resampler": SETTINGS.image_latents, "audio_resampler": SETTINGS.audio_latents}
    changes = {name: getattr(plain, name).model_copy(update={"latents": count}) for name, count in latents.items()}
    config = plain.model_copy(update={"sparse_decoder": True, "encoder_layers": 1, "decoder_layers": 1, **changes})
    model = Backbone(config, seed=0).eval()
    places = example.target.positions
    changed = 3
    ids = batch.decoder_ids.clone()
    ids[0, changed] += 1
    with torch.no_grad():
        encoded = model.encode(batch)
        before, after = (model.decode(encoded, replace(batch, decoder_ids=one)) for one in (batch.decoder_ids, ids))
    moved = (before != after)[0, : len(places)].any(-1).numpy()
    near = (np.abs(places - places[changed]) <= 5).all(axis=1) & (np.arange(len(places)) >= changed)
    assert moved.tolist() == near.tolist()
    assert not near[changed:].all()


def test_moved_spans_are_the_decoders_alone(show: Callable[..., Rendered], text: TextTokenizer) -> None:
    for number in range(20):
        example = show("moved", number)
        assert int(example.text[0]) == text.vocabulary.prefix("text", "S")
        assert len(example.text) == 2 + example.lengths.earlier_images
        first = text.vocabulary.sentinel(0)
        assert example.target.targets.tolist().count(first) == 2
        assert example.target.targets[-1] == text.vocabulary.EOS


def test_optional_streams_are_dropped_at_the_tasks_rate_each_by_itself(make: Callable[..., Recipe]) -> None:
    streams = (EncoderModality.IMAGE, EncoderModality.AUDIO, EncoderModality.IMAGE_HISTORY)
    seen = Counter(
        tuple(bool(make("follow", 1, epoch).frames.get(stream)) for stream in streams) for epoch in range(800)
    )
    assert len(seen) == 8
    assert all(70 < count < 130 for count in seen.values())
    assert not any(make("spans", number).frames for number in range(5))


def test_evaluated_examples_read_every_stream(layout: TokenLayout, text: TextTokenizer, token_data: Any) -> None:
    whole = whole_renderer(MIXTURE.tasks, layout, text, SETTINGS)
    rows = [token_data.rows["films"][number] for number in range(5)]
    for row in rows:
        frames = whole.recipes.make(NAMES.index("spans"), lengths_of(row), row["id"], 0).frames
        assert all(frames[stream] for stream in (EncoderModality.IMAGE, EncoderModality.AUDIO))


@pytest.mark.parametrize(
    ("vocabulary", "kept", "says"),
    [
        (VocabularyLayout(sentinels=199), ("some",), "token_budgets needs 200 sentinels"),
        (VocabularyLayout(sentinels=199), ("spans",), "ul2_x3_50 needs 200 sentinels"),
        (VocabularyLayout(sentinels=15), ("moved",), "cm3 needs 16 sentinels"),
        (VocabularyLayout(sentinels=0), ("follow",), None),
        (
            VocabularyLayout(prefixes=("text S", "image S", "image R")),
            ("pictures",),
            "needs the prefix token 'audio S'",
        ),
        (
            VocabularyLayout(prefixes=("text R",)),
            ("follow",),
            "task 'follow': prefix_lm needs the prefix token 'text S'",
        ),
    ],
)
def test_tokens_that_an_objective_writes_have_to_be_in_the_vocabulary(
    vocabulary: VocabularyLayout, kept: tuple[str, ...], says: str | None, layout: TokenLayout, text: TextTokenizer
) -> None:
    own = TextTokenizer.of(text.model, "own", TextVocabulary(0, vocabulary))
    mixture = MIXTURE.model_copy(update={"tasks": tuple(task for task in MIXTURE.tasks if task.name in kept)})
    made = layout.model_copy(update={"vocabulary": vocabulary})
    if says is None:
        Renderer(mixture, made, own, SETTINGS, BUDGETS)
        return
    with pytest.raises(ConfigError, match=says):
        Renderer(mixture, made, own, SETTINGS, BUDGETS)


def test_budgets_of_tokens_have_to_fit_a_sequence(layout: TokenLayout, text: TextTokenizer) -> None:
    with pytest.raises(
        ConfigError, match="budget 'decoder' is too small for task 'some': its largest example needs 41"
    ):
        Renderer(MIXTURE, layout, text, SETTINGS, BUDGETS.model_copy(update={"decoder": 40}))


def test_what_an_objective_made_of_an_example_is_said(make: Callable[..., Recipe]) -> None:
    said = {name: divided(make(name)) for name in NAMES}
    assert re.fullmatch(r"all of the text, .*; S; tokens of text: \d+; spans moved to the end: \d+", said["moved"])
    assert re.fullmatch(r"many spans of 3, 50 %; X; tokens of text: \d+; hidden: \d+ in \d+ spans", said["spans"])
    assert re.fullmatch(r"what follows .*; S; tokens of text: \d+; asked for: the last \d+", said["follow"])
    assert re.fullmatch(r"the picture's own .*; patches of the picture hidden: \d+ of \d+", said["mend"])
