"""Rendering: plan and render agree, draws depend on their keys alone, and every part is where it belongs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import BadRecord, ConfigError, IntegrityError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.objectives import Denoiser
from omnimill.mixtures.rows import RowContent, RowLengths
from omnimill.tokenizers import image
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import CODE_OFFSET, TextVocabulary
from omnimill.tokens import LENGTH_COLUMNS, TOKEN_SCHEMA, TokenLayout
from omnimill.training.loading.batch import DecoderModality, EncoderModality
from omnimill.training.objectives.settings import ObjectiveSettings
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Rendered, Renderer
from omnimill.training.rendering.settings import RenderSettings
from omnimill.vocabulary_layout import VocabularyLayout

SETTINGS = RenderSettings(max_text=96, max_target_text=64, image_latents=4, audio_latents=2)
BUDGETS = Budgets(encoder=160, decoder=128, images=3, image_history=6, audio=6)


def content_of(row: dict[str, Any]) -> RowContent:
    values = {field.name: row[field.name] for field in fields(RowContent)}
    for name in ("image_codes", "audio_codes", "target_codes"):
        values[name] = [np.array(codes, np.uint16) for codes in values[name]]
    return RowContent(**{**values, "text_ids": [np.array(ids, np.int32) for ids in values["text_ids"]]})


def lengths_of(row: dict[str, Any]) -> RowLengths:
    return RowLengths(*(row[name] for name in LENGTH_COLUMNS))


def row_for(mixture: Mixture, name: str, data: Any, number: int = 0) -> tuple[int, dict[str, Any]]:
    index = [task.name for task in mixture.tasks].index(name)
    return index, data.rows[mixture.tasks[index].sources[0]][number]


@pytest.fixture(scope="session")
def renderer(mixture: Mixture, layout: TokenLayout, text: TextTokenizer) -> Renderer:
    return Renderer(mixture, layout, text, SETTINGS, BUDGETS)


@pytest.fixture(scope="session")
def show(renderer: Renderer, mixture: Mixture, token_data: Any) -> Callable[..., Rendered]:
    def render(name: str, number: int = 0, epoch: int = 0) -> Rendered:
        index, row = row_for(mixture, name, token_data, number)
        return renderer.render(index, content_of(row), epoch)

    return render


@settings(max_examples=60)
@given(data=st.data())
def test_plan_says_exactly_what_render_yields(
    data: st.DataObject, mixture: Mixture, layout: TokenLayout, text: TextTokenizer, token_data: Any
) -> None:
    keep = st.floats(0.05, 1.0)
    chosen = RenderSettings(
        max_text=data.draw(st.integers(40, 200)),
        max_target_text=data.draw(st.integers(8, 100)),
        image_keep=data.draw(keep),
        history_keep=data.draw(keep),
        audio_keep=data.draw(keep),
        history_frames=data.draw(st.integers(0, 4)),
        image_latents=data.draw(st.integers(1, 8)),
        audio_latents=data.draw(st.integers(1, 8)),
        prompt_drop=data.draw(st.sampled_from([0.0, 0.5])),
    )
    budgets = Budgets(encoder=data.draw(st.integers(150, 300)), decoder=data.draw(st.integers(64, 128)))
    renderer = Renderer(mixture, layout, text, chosen, budgets)
    index = data.draw(st.integers(0, len(mixture.tasks) - 1))
    _, row = row_for(mixture, mixture.tasks[index].name, token_data, data.draw(st.integers(0, 39)))
    epoch = data.draw(st.integers(0, 5))
    planned = renderer.plan(index, lengths_of(row), row["id"], epoch)
    rendered = renderer.render(index, content_of(row), epoch)
    assert replace(planned, cut=0) == rendered.lengths
    assert planned.encoder == len(rendered.modality) == len(rendered.positions)
    assert all(cost <= limit for cost, limit in zip(planned.costs, budgets.limits, strict=True))
    assert planned.text <= chosen.max_text
    assert planned.target_text <= chosen.max_target_text


def test_text_is_prefix_markers_prompt_and_eos(
    show: Callable[..., Rendered], text: TextTokenizer, token_data: Any
) -> None:
    vocabulary = text.vocabulary
    seen = {tuple(show("caption", epoch=epoch).text.tolist()) for epoch in range(10)}
    prompts = ("what is this?", "describe the picture")
    assert seen == {(vocabulary.prefix("text", "S"), *text.encode(p), vocabulary.EOS) for p in prompts}

    acted, row = show("act"), token_data.rows["robot"][0]
    earlier = min(len(row["image_data"]) - 1, 4)
    ids = dict(zip(zip(row["text_roles"], row["text_images"], strict=True), row["text_ids"], strict=True))
    last = len(row["image_data"]) - 1
    assert acted.text.tolist() == [
        vocabulary.prefix("text", "S"),
        *(vocabulary.image_history(k) for k in range(1, earlier + 1)),
        *ids["instruction", None],
        *text.encode("at"),
        *ids["state", last],
        vocabulary.EOS,
    ]
    assert acted.target.targets.tolist() == [*ids["action", last], vocabulary.EOS]
    assert acted.target.ids.tolist() == [0, *ids["action", last]]
    assert acted.target.loss.tolist() == [1.0] * 8
    assert acted.target.positions[:, 0].tolist() == list(range(8))


def test_prefixes_announce_modality_and_paradigm(show: Callable[..., Rendered], text: TextTokenizer) -> None:
    prefix = text.vocabulary.prefix
    assert show("paint").text[0] == prefix("image", "S")
    assert show("restore").text.tolist() == [prefix("image", "R"), text.vocabulary.EOS]
    assert show("listen").text[0] == prefix("audio", "S")
    assert show("hear").text[0] == prefix("audio", "R")
    assert {int(show("read", epoch=epoch).text[0]) for epoch in range(40)} == {prefix("text", p) for p in "SRX"}


def test_codes_are_shifted_and_padding_of_the_canvas_does_not_count(
    show: Callable[..., Rendered], token_data: Any, layout: TokenLayout
) -> None:
    row, target = token_data.rows["photos"][0], show("paint").target
    assert target.modality == DecoderModality.IMAGE
    assert target.targets.tolist() == [code + 2 for code in row["image_codes"][0]]
    assert target.ids.tolist() == [0, *target.targets[:-1].tolist()]
    height, width = image.decode_rgb(row["image_data"][0]).shape[:2]
    valid = image.valid_patches(height, width, 64, 8)
    assert 0 < valid.sum() < 64
    assert target.loss.tolist() == valid.astype(float).tolist()
    assert not target.hidden.any()
    assert target.positions[9].tolist() == [1, 1]
    assert target.positions.max(axis=0).tolist() == [7, 7]

    sound = show("listen").target
    assert sound.modality == DecoderModality.AUDIO
    assert sound.positions.max(axis=0).tolist() == [7, 3]
    assert 0 < sound.loss.sum() <= 32


@pytest.mark.parametrize(("task", "stream"), [("restore", EncoderModality.IMAGE), ("hear", EncoderModality.AUDIO)])
def test_what_denoising_hides_is_marked_and_not_shown(
    show: Callable[..., Rendered], layout: TokenLayout, task: str, stream: EncoderModality
) -> None:
    shapes = {
        EncoderModality.IMAGE: ((6, 6), (8, 8)),
        EncoderModality.AUDIO: (layout.audio.input_grid, layout.audio.target_grid),
    }
    grid, onto = shapes[stream]
    for number in range(20):
        example = show(task, number)
        (frame,) = example.frames[stream]
        shown = np.zeros(grid, bool)
        shown.reshape(-1)[frame.index] = True
        for code, hidden in enumerate(example.target.hidden):
            row, column = divmod(code, onto[1])
            patch = (int((row + 0.5) * grid[0] / onto[0]), int((column + 0.5) * grid[1] / onto[1]))
            assert not (hidden and shown[patch])
        assert example.target.hidden.any()
        assert len(frame.index) >= 1


def test_patches_are_the_pictures_own_and_know_their_place(
    mixture: Mixture, layout: TokenLayout, text: TextTokenizer, token_data: Any
) -> None:
    everything = RenderSettings(image_keep=1, history_keep=1, audio_keep=1, image_latents=4, audio_latents=2)
    renderer = Renderer(mixture, layout, text, everything, Budgets(encoder=400))
    index, row = row_for(mixture, "watch", token_data, 3)
    example = renderer.render(index, content_of(row), 0)
    (current,) = example.frames[EncoderModality.IMAGE]
    canvas, _ = image.to_canvas(image.decode_rgb(row["image_data"][-1]), 96)
    whole = image.normalise(image.patchify(canvas, 16))
    assert np.array_equal(current.values, whole[current.index])
    assert len(current.index) == row["image_patches"][-1]
    earlier = example.frames[EncoderModality.IMAGE_HISTORY]
    assert [len(frame.index) for frame in earlier] == row["history_patches"][:-1][-4:]

    positions = example.positions[example.modality == EncoderModality.IMAGE]
    scale = np.float32(8 / 6)
    assert np.allclose(positions, np.stack([current.index // 6, current.index % 6], axis=1) * scale)
    latents = example.positions[example.modality == EncoderModality.IMAGE_HISTORY]
    assert latents.tolist() == [[frame, latent] for frame in range(len(earlier)) for latent in range(4)]
    (clip,) = example.frames[EncoderModality.AUDIO]
    heard = example.positions[example.modality == EncoderModality.AUDIO]
    assert np.allclose(heard, np.stack([clip.index // 2, clip.index % 2], axis=1) * scale)


def test_sub_sampling_keeps_the_share_and_changes_with_the_epoch(
    show: Callable[..., Rendered], token_data: Any
) -> None:
    half = 6 * 6 // 2
    number = next(i for i, row in enumerate(token_data.rows["photos"]) if row["image_patches"][0] > half)
    kept = [show("caption", number, epoch).frames[EncoderModality.IMAGE][0].index for epoch in range(8)]
    assert {len(index) for index in kept} == {half}
    assert len({tuple(index) for index in kept}) == 8
    again = show("caption", number, 3).frames[EncoderModality.IMAGE][0].index
    assert np.array_equal(again, kept[3])


def test_texts_of_the_current_moment_win_and_one_of_several_is_drawn(
    show: Callable[..., Rendered], token_data: Any
) -> None:
    row = token_data.rows["films"][5]
    last = len(row["image_data"]) - 1
    wanted = row["text_ids"][row["text_images"].index(last)]
    assert {tuple(show("watch", 5, epoch).target.targets[:-1].tolist()) for epoch in range(5)} == {tuple(wanted)}
    several = next(i for i, row in enumerate(token_data.rows["photos"]) if len(row["text_roles"]) == 3)
    captions = {tuple(ids) for ids in token_data.rows["photos"][several]["text_ids"]}
    drawn = {tuple(show("caption", several, epoch).target.targets[:-1].tolist()) for epoch in range(40)}
    assert drawn == captions


def test_denoising_reads_all_texts_of_the_role_in_order(
    mixture: Mixture, layout: TokenLayout, text: TextTokenizer, token_data: Any
) -> None:
    causal = ObjectiveSettings(denoisers=(Denoiser(paradigm="S", rate=1.0),))
    renderer = Renderer(mixture, layout, text, SETTINGS.model_copy(update={"objectives": causal}), BUDGETS)
    index, row = row_for(mixture, "subtitle", token_data, 2)
    whole = [token for ids in row["text_ids"] for token in ids]
    assert len(whole) < 64
    example = renderer.render(index, content_of(row), 0)
    assert example.target.targets.tolist() == [*whole, 1]
    assert example.text.tolist() == [
        text.vocabulary.prefix("text", "S"),
        *(text.vocabulary.image_history(k + 1) for k in range(len(example.frames[EncoderModality.IMAGE_HISTORY]))),
        1,
    ]


def test_a_target_picture_is_that_of_the_prompts_item_and_what_is_not_known_does_not_count(
    mixture: Mixture, layout: TokenLayout, text: TextTokenizer, token_data: Any
) -> None:
    task = Task(name="mask", rate=1, sources=("photos",), inputs=("image",), target="image:depth", prompts=("{label}",))
    renderer = Renderer(Mixture(datasets=("tokens",), tasks=(task,)), layout, text, SETTINGS, BUDGETS)
    _, row = row_for(mixture, "caption", token_data)
    labels = [text.encode(word) for word in ("near", "far")]
    known = np.ones(64, bool)
    known[[20, 21]] = False
    row = row | {
        "text_roles": ["label", "label"],
        "text_images": [0, 0],
        "text_audio": [None, None],
        "text_items": [4, 7],
        "text_lengths": [len(ids) for ids in labels],
        "text_ids": labels,
        "target_roles": ["depth", "depth"],
        "target_images": [0, 0],
        "target_items": [7, 4],
        "target_heights": [64, 32],
        "target_widths": [64, 64],
        "target_known": [np.packbits(known).tobytes(), None],
        "target_codes_lengths": [64, 64],
        "target_codes": [[1] * 64, [2] * 64],
    }
    seen = set()
    for epoch in range(20):
        example = renderer.render(0, content_of(row), epoch)
        number = int(example.target.targets[0]) - CODE_OFFSET - 1
        ids = labels[1 - number]
        assert example.text[1 : 1 + len(ids)].tolist() == ids
        counted = example.target.loss.reshape(8, 8)
        # The first is known but for two codes, the second covers the middle half of the canvas.
        assert counted.sum() == (62 if number == 0 else 32)
        assert not (counted.ravel()[[20, 21]].any() if number == 0 else counted[[0, 1, 6, 7]].any())
        seen.add(number)
    assert seen == {0, 1}


def test_long_text_is_cut_and_counted(mixture: Mixture, layout: TokenLayout, text: TextTokenizer) -> None:
    task = Task(name="long", rate=1, sources=("s",), target="text:answer", prompts=("{question}",))
    renderer = Renderer(Mixture(datasets=("tokens",), tasks=(task,)), layout, text, SETTINGS, BUDGETS)
    row: dict[str, Any] = {name: [] for name in TOKEN_SCHEMA.names}
    question, answer = list(range(10, 210)), list(range(10, 110))
    row |= {
        "text_roles": ["question", "answer"],
        "text_images": [None, None],
        "text_audio": [None, None],
        "text_items": [None, None],
        "text_lengths": [200, 100],
        "text_ids": [question, answer],
        "id": "0" * 32,
        "source": "s",
        "key": "k",
    }
    planned = renderer.plan(0, lengths_of(row), row["id"], 0)
    assert (planned.text, planned.target_text, planned.cut) == (96, 64, 200 - 94 + 100 - 63)
    example = renderer.render(0, content_of(row), 0)
    assert example.text.tolist() == [text.vocabulary.prefix("text", "S"), *question[:94], 1]
    assert example.target.targets.tolist() == [*answer[:63], 1]


def test_dropped_prompts_leave_the_uninformative_one(
    mixture: Mixture, layout: TokenLayout, text: TextTokenizer, token_data: Any
) -> None:
    renderer = Renderer(mixture, layout, text, SETTINGS.model_copy(update={"prompt_drop": 0.5}), BUDGETS)
    index, row = row_for(mixture, "paint", token_data)
    plain = [text.vocabulary.prefix("image", "S"), *text.encode(SETTINGS.uninformative_prompt), 1]
    dropped = [renderer.render(index, content_of(row), epoch).text.tolist() == plain for epoch in range(100)]
    assert 30 < sum(dropped) < 70
    caption, captioned = row_for(mixture, "caption", token_data)
    assert all(renderer.render(caption, content_of(captioned), epoch).text.tolist() != plain for epoch in range(20))


@pytest.mark.parametrize(
    ("settings", "budgets", "says"),
    [
        ({}, {"decoder": 63}, "budget 'decoder' is too small for task 'paint': its largest example needs 64, found 63"),
        ({}, {"encoder": 40}, "budget 'encoder' is too small"),
        ({}, {"image_history": 3}, "budget 'image_history' is too small for task 'watch'"),
        ({}, {"audio": 4}, "needs 5, found 4"),
        ({}, {"images": 0}, "budget 'images' is too small for task 'caption'"),
    ],
)
def test_budgets_that_some_example_could_not_meet_are_refused(
    mixture: Mixture,
    layout: TokenLayout,
    text: TextTokenizer,
    settings: dict[str, Any],
    budgets: dict[str, int],
    says: str,
) -> None:
    with pytest.raises(ConfigError, match=says):
        Renderer(mixture, layout, text, SETTINGS.model_copy(update=settings), BUDGETS.model_copy(update=budgets))


def test_another_tokenizer_is_refused(mixture: Mixture, layout: TokenLayout, text: TextTokenizer) -> None:
    with pytest.raises(ConfigError, match="use tokenizers 'mini'"):
        Renderer(mixture, layout.model_copy(update={"text_pieces": 32000}), text, SETTINGS, BUDGETS)
    with pytest.raises(ConfigError, match="other added tokens than tokenizers 'mini'"):
        other = layout.model_copy(update={"vocabulary": VocabularyLayout(history=4)})
        Renderer(mixture, other, text, SETTINGS, BUDGETS)


@pytest.mark.parametrize(
    ("vocabulary", "says"),
    [(VocabularyLayout(history=1), "1 history markers"), (VocabularyLayout(sentinels=100), "needs 200 sentinels")],
)
def test_a_vocabulary_without_what_tasks_need_is_refused(
    mixture: Mixture, layout: TokenLayout, text: TextTokenizer, vocabulary: VocabularyLayout, says: str
) -> None:
    smaller = TextTokenizer.of(text.model, "smaller", TextVocabulary(0, vocabulary))
    with pytest.raises(ConfigError, match=says):
        Renderer(mixture, layout.model_copy(update={"vocabulary": vocabulary}), smaller, SETTINGS, BUDGETS)


def test_a_shard_that_contradicts_itself_is_noticed(renderer: Renderer, mixture: Mixture, token_data: Any) -> None:
    index, row = row_for(mixture, "caption", token_data)
    with pytest.raises(IntegrityError, match="valid patches, its length column says"):
        renderer.render(index, content_of({**row, "image_patches": [row["image_patches"][0] - 1]}), 0)
    with pytest.raises(IntegrityError, match="planned from its length columns"):
        renderer.render(index, content_of({**row, "text_lengths": [n + 1 for n in row["text_lengths"]]}), 0)
    with pytest.raises(BadRecord, match="that are no JPEG or PNG or WEBP"):
        renderer.render(index, content_of({**row, "image_data": [b"no picture"]}), 0)
