"""Rows as sequences for a decoder-only backbone: what stands in them, and what of it is to be predicted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omnimill.errors import ConfigError
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.row_columns import RowContent
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokenizers.vocabulary import Vocabulary
from omnimill.tokens import TOKEN_SCHEMA, TokenLayout
from omnimill.training.loading.batch import DecoderModality
from omnimill.training.loading.collate import collate
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Rendered, Renderer
from omnimill.training.rendering.sequences import SequenceRenderer
from omnimill.training.rendering.settings import RenderSettings
from omnimill.vocabulary_layout import VocabularyLayout

JOINT = VocabularyLayout(joint=("image",), specials=("<break>", "<mask>"))
BUDGETS = Budgets(encoder=1, decoder=400)


class Words:
    """A joint tokenizer with what tests ask of it."""

    def __init__(self, layout: TokenLayout, text: TextTokenizer) -> None:
        self.layout = layout.model_copy(update={"vocabulary": JOINT})
        vocabulary = Vocabulary.of(self.layout)
        self.text = TextTokenizer.of(text.model, "joint", vocabulary.text)
        self.pause, self.mask, self.end = (vocabulary.text.special(name) for name in ("<break>", "<mask>", "<break>"))
        self.end = vocabulary.text.EOS
        self.first_code = vocabulary.code("image", 0)

    def __call__(self, text: str) -> list[int]:
        return self.text.encode(text)

    def codes(self, row: dict[str, Any], picture: int) -> list[int]:
        return [self.first_code + code for code in row["image_codes"][picture]]

    def renderer(self, *tasks: Task, budgets: Budgets = BUDGETS, **settings: Any) -> SequenceRenderer:
        render = RenderSettings(form="sequence", max_text=32, max_target_text=48, **settings)
        return SequenceRenderer(Mixture(datasets=("tokens",), tasks=tasks), self.layout, self.text, render, budgets)

    def row(self, texts: list[tuple[str, str, int | None]], pictures: int) -> dict[str, Any]:
        """A row of texts (role, text, picture that it follows) and wide pictures."""
        from omnimill.schema import example_id
        from omnimill.tokenizers import image

        row: dict[str, Any] = {name: [] for name in TOKEN_SCHEMA.names}
        row |= {"id": example_id("s", "row", ""), "source": "s", "key": "row"}
        for role, text, picture in texts:
            ids = self(text)
            for name, value in (("roles", role), ("images", picture), ("audio", None), ("items", None)):
                row[f"text_{name}"].append(value)
            row["text_lengths"].append(len(ids))
            row["text_ids"].append(ids)
        for number in range(pictures):
            # Half as high as wide: the upper and lower quarter of the canvas are padding.
            row["image_data"].append(image.encode_png(np.zeros((48, 96, 3), np.uint8)))
            row["image_patches"].append(18)
            row["history_patches"].append(8)
            row["image_codes"].append([(number + code) % 64 for code in range(64)])
            row["image_codes_lengths"].append(64)
        return row


@pytest.fixture(scope="module")
def words(layout: TokenLayout, text: TextTokenizer) -> Words:
    return Words(layout, text)


def task(target: str, objective: str = "causal", **settings: Any) -> Task:
    return Task(name="task", rate=1, sources=("s",), target=target, objective=objective, **settings)


def rendered(renderer: SequenceRenderer, row: dict[str, Any], epoch: int = 0) -> Rendered:
    columns = {**row, "text_ids": [np.array(ids, np.int32) for ids in row["text_ids"]]}
    columns |= {name: [np.array(codes, np.uint16) for codes in row[name]] for name in ("image_codes", "target_codes")}
    columns["audio_codes"] = []
    return renderer.render(0, RowContent(**columns), epoch)


def flat(one: Rendered, part: str) -> list[Any]:
    return np.concatenate([getattr(target, part) for target in one.targets]).tolist()


def test_a_caption_follows_its_picture_and_all_of_it_is_predicted(words: Words) -> None:
    row = words.row([("caption", "the red house", 0)], 1)
    one = rendered(words.renderer(task("text:caption", inputs=("image",), prompts=("a tree",))), row)
    said = [*words("a tree"), *words("the red house")]
    expected = [*words.codes(row, 0), words.pause, *said, words.end]
    assert flat(one, "targets") == expected
    assert flat(one, "ids") == [0, *expected[:-1]]
    assert np.concatenate([target.positions for target in one.targets])[:, 0].tolist() == list(range(len(expected)))
    seen = ([0.0] * 8) * 2 + ([1.0] * 8) * 4 + ([0.0] * 8) * 2
    assert flat(one, "loss") == [*seen, *[1.0] * (len(said) + 2)]
    assert [target.modality for target in one.targets] == [DecoderModality.IMAGE, DecoderModality.TEXT]


def test_of_an_instruction_the_answer_alone_is_predicted(words: Words) -> None:
    row = words.row([("question", "which bird", None), ("answer", "the small cat", None)], 1)
    ask = task("text:answer", "generate", inputs=("image",), prompts=("{question}",))
    one = rendered(words.renderer(ask), row)
    question, answer = words("which bird"), words("the small cat")
    assert flat(one, "targets") == [*words.codes(row, 0), words.pause, *question, *answer, words.end]
    assert flat(one, "loss") == [0.0] * (65 + len(question)) + [1.0] * (len(answer) + 1)
    # A picture that is asked for is announced by a break, which the model has to say.
    draw = rendered(words.renderer(task("image", "generate", prompts=("{question}",))), row)
    assert flat(draw, "targets") == [*question, words.pause, *words.codes(row, 0), words.end]
    assert flat(draw, "loss")[: len(question) + 1] == [0.0] * len(question) + [1.0]


def test_a_dropped_caption_is_a_mask_that_nobody_has_to_say(words: Words) -> None:
    row = words.row([("caption", "the red house", 0)], 1)
    renderer = words.renderer(task("image", prompts=("{caption}",)), prompt_drop=0.5, uninformative_prompt="<mask>")
    caption, dropped = words("the red house"), 0
    for epoch in range(60):
        one = rendered(renderer, row, epoch)
        said, loss = flat(one, "targets"), flat(one, "loss")
        if said[0] == words.mask:
            dropped += 1
            assert said == [words.mask, words.pause, *words.codes(row, 0), words.end]
            assert (loss[0], loss[1], loss[-1]) == (0.0, 1.0, 1.0)
        else:
            assert said[: len(caption)] == caption
            assert loss[: len(caption)] == [1.0] * len(caption)
    assert 15 < dropped < 45


def test_moved_spans_can_be_put_back_and_hold_no_break(words: Words) -> None:
    row = words.row([("caption", "the red house stands near the river", 0)], 1)
    plain = rendered(words.renderer(task("image", prompts=("{caption}",))), row)
    whole, weight = flat(plain, "targets")[:-1], flat(plain, "loss")[:-1]
    renderer = words.renderer(task("image", "causal_masked", prompts=("{caption}",)))
    sentinels = words.text.vocabulary.sentinels.tolist()
    moved_codes = moved_words = 0
    for epoch in range(40):
        one = rendered(renderer, row, epoch)
        said, loss = flat(one, "targets"), flat(one, "loss")
        *body, last = said
        assert last == words.end
        places = [i for i, token in enumerate(body) if token in sentinels]
        count = len(places) // 2
        assert [body[i] for i in places] == sentinels[:count] * 2
        assert all(loss[i] == 0 for i in places)
        edges = [*places[count:], len(body)]
        back: list[tuple[int, float]] = []
        for i, token in enumerate(body[: edges[0]]):
            if token in sentinels:
                start, stop = edges[sentinels.index(token)] + 1, edges[sentinels.index(token) + 1]
                span = body[start:stop]
                assert words.pause not in span
                kinds = {token >= words.first_code for token in span}
                assert len(kinds) <= 1
                moved_codes, moved_words = moved_codes + (kinds == {True}), moved_words + (kinds == {False})
                back += list(zip(span, loss[start:stop], strict=True))
            else:
                back.append((token, loss[i]))
        assert back == list(zip(whole, weight, strict=True))
    assert moved_codes
    assert moved_words


def test_a_document_is_read_in_order_as_far_as_it_fits(words: Words) -> None:
    row = words.row(
        [
            ("title", "tree", None),
            ("body", "first", None),
            ("body", "then", 1),
            ("body", "the cat", 0),
            ("body", "x", 1),
        ],
        2,
    )
    tell = task("document:body", "generate", prompts=("{title}",))
    one = rendered(words.renderer(tell), row)
    title, pause = words("tree"), [words.pause]
    parts = [words("first"), pause, words.codes(row, 0), pause, words("the cat"), pause, words.codes(row, 1), pause]
    expected = [*title, *(token for part in parts for token in part), *words("then"), *words("x"), words.end]
    assert flat(one, "targets") == expected
    assert not any(flat(one, "loss")[: len(title)])
    short = rendered(words.renderer(tell, budgets=Budgets(encoder=1, decoder=100)), row)
    kept = [*title, *(token for part in parts[:5] for token in part)]
    assert flat(short, "targets") == [*kept, words.end]


def test_a_whole_text_is_one_sequence(words: Words) -> None:
    row = words.row([("body", "the cat sings", None), ("body", "then the bird", None)], 0)
    one = rendered(words.renderer(task("text:body", "causal_lm")), row)
    assert flat(one, "targets") == [*words("the cat sings"), *words("then the bird"), words.end]
    assert flat(one, "loss") == [1.0] * len(flat(one, "loss"))


def test_sequences_are_packed_without_an_encoder(words: Words) -> None:
    row = words.row([("caption", "the red house", 0)], 1)
    one = rendered(words.renderer(task("text:caption", inputs=("image",))), row)
    batch = collate([[one, one], [one]], BUDGETS)
    length = len(flat(one, "targets"))
    assert batch.decoder_segment[0, : 2 * length].tolist() == [1] * length + [2] * length
    assert not batch.encoder_segment.any()
    assert batch.decoder_position[0, length, 0] == 0


@pytest.mark.parametrize(
    ("asked", "changes", "budget", "message"),
    [
        (task("audio", "generate"), {}, 400, "no sound"),
        (task("image", "image_denoising"), {}, 400, "image_denoising shows an encoder patches"),
        (task("image"), {"joint": ()}, 400, r"hold pictures as ids of the text table.*layout.vocabulary.joint"),
        (task("image"), {"specials": ()}, 400, r"need <break>.*layout.vocabulary.specials"),
        (task("image", "causal_masked"), {"sentinels": 3}, 400, "needs 16 sentinels, tokenizers 'mini' have 3"),
        (task("image", inputs=("image_history",)), {}, 300, r"budget 'decoder'.*needs 349, found 300"),
    ],
)
def test_what_no_sequence_can_hold_is_refused(
    asked: Task, changes: dict[str, Any], budget: int, message: str, layout: TokenLayout, text: TextTokenizer
) -> None:
    vocabulary = JOINT.model_copy(update=changes)
    made = layout.model_copy(update={"vocabulary": vocabulary})
    own = TextTokenizer.of(text.model, "own", Vocabulary.of(made).text)
    with pytest.raises(ConfigError, match=message):
        SequenceRenderer(
            Mixture(datasets=("tokens",), tasks=(asked,)),
            made,
            own,
            RenderSettings(form="sequence"),
            Budgets(encoder=1, decoder=budget),
        )


def test_an_encoder_decoder_cannot_predict_what_it_is_shown(layout: TokenLayout, text: TextTokenizer) -> None:
    for asked in (task("image"), task("document:body", "generate")):
        with pytest.raises(ConfigError, match=r"one sequence of everything.*backbone.kind: decoder"):
            Renderer(Mixture(datasets=("tokens",), tasks=(asked,)), layout, text, RenderSettings(), Budgets())
