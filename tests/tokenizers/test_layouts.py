"""Other layouts by configuration: what a set stores, what its segments are written in, what training takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from omnimill.cli.main import app
from omnimill.errors import BadRecord, ConfigError
from omnimill.locations import CAMERA, spherical_views
from omnimill.schema import Annotation
from omnimill.tokenizers import places, sparse, store
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.places import Box, Frame
from omnimill.tokenizers.segments import segments
from omnimill.tokenizers.store import StoredSet, Tokenizers, load_text
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokens import AudioLayout, ImageLayout
from omnimill.training.backbone.config import BackboneConfig
from omnimill.vocabulary_layout import NumberLayout, VocabularyLayout

JOINT = VocabularyLayout(
    locations=0, sentinels=0, history=0, inputs=(), prefixes=(), specials=("<break>",), joint=("image",)
)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["tokenizer", "show", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def stored(text: TextTokenizer, vocabulary: VocabularyLayout, numbers: NumberLayout) -> StoredSet:
    return StoredSet(
        text_pieces=text.vocabulary.pieces,
        image=ImageLayout(codes=8192),
        audio=AudioLayout(),
        vocabulary=vocabulary,
        numbers=numbers,
        digests=store.file_digests({"text": text.model}),
    )


def test_a_set_keeps_its_vocabulary(text: TextTokenizer, tmp_path: Path) -> None:
    root, index = str(tmp_path), stored(text, JOINT, NumberLayout(form="decimals", digits=2))
    store.publish(root, "joint", index, {"text": text.model})
    layout = store.stored_set(root, "joint").layout("joint")
    vocabulary = load_text(root, layout).vocabulary
    assert vocabulary.layout == JOINT
    pieces = text.vocabulary.pieces
    assert vocabulary.special("<break>") == pieces
    assert vocabulary.table.locate(pieces + 1) == ("image_code", 0)
    told = json.loads(run("joint", "--root", root, "--json"))["tables"]
    assert [(table["table"], table["size"]) for table in told] == [("text", pieces + 1 + 8192), ("audio", 8194)]
    with pytest.raises(ConfigError, match="for decoder-only models"):
        BackboneConfig.of("tiny", layout)
    assert index.digest != stored(text, VocabularyLayout(), NumberLayout()).digest


@pytest.mark.parametrize("numbers", [NumberLayout(), NumberLayout(form="decimals", digits=4)], ids=lambda n: n.form)
def test_segments_are_written_in_the_layouts_numbers(
    text: TextTokenizer, numbers: NumberLayout, samples: object
) -> None:
    tokenizers = Tokenizers(stored(text, VocabularyLayout(), numbers).layout("set"), text, {})
    views = spherical_views([(1.0, 0.0, 2.0), (1.2, 0.5, 2.5)])
    boxes = [
        Annotation(kind="box", image=0, label="a [red] cup", box=[0.1, 0.2, 0.5, 0.9]),
        Annotation(kind="box", image=0, box=[0.0, 0.0, 1.0, 1.0]),
        Annotation(kind="points", image=0, label="dot", points=[0.5, 0.5, 0.25, 0.75]),
    ]
    images = [samples.picture(1, 30, 50), samples.picture(2, 30, 50)]  # type: ignore[attr-defined]
    example = samples.example("photos", 1, images=images, views=views, annotations=boxes)  # type: ignore[attr-defined]
    found = {segment.role: segment for segment in segments(example, tokenizers)}
    frame = Frame(30, 50, 384)
    back = places.decode_boxes(found["boxes"].ids, frame, tokenizers.numbers)
    boxes_by_label = {label: box for box, label in back}
    assert boxes_by_label.keys() == {"a [red] cup", ""}
    assert boxes_by_label["a [red] cup"] == pytest.approx(
        Box(0.1, 0.2, 0.5, 0.9), abs=max(frame.error(tokenizers.numbers))
    )
    ((points, label),) = places.decode_points(found["points"].ids, frame, tokenizers.numbers)
    assert label == "dot"
    assert points == pytest.approx([0.5, 0.5, 0.25, 0.75], abs=max(frame.error(tokenizers.numbers)))
    camera = sparse.decode_vector(found["camera"].ids, CAMERA, tokenizers.numbers)
    assert camera[0] == pytest.approx(0.2, abs=0.01)
    is_text = [all(tokenizers.text.vocabulary.surface(token) is None for token in s.ids) for s in found.values()]
    assert all(is_text) == (numbers.form == "decimals")
    example.annotations = [Annotation(kind="box", image=0, box=[0.1, 0.2])]
    with pytest.raises(BadRecord, match="found 2 numbers"):
        segments(example, tokenizers)


def settings(**layout: object) -> dict[str, object]:
    return {"name": "x", "dataset": "a", "tokens": "b", "layout": layout}


def test_configurations_say_what_the_ids_are(tmp_path: Path, text: TextTokenizer, parity: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(yaml.safe_dump(settings()))
    told = json.loads(run(str(file), "--json"))["tables"]
    assert [(t["table"], t["size"], t["rows"]) for t in told] == [
        ("text", 33225, 33280),
        ("image", 16386, 16512),
        ("audio", 8194, 8320),
    ]
    shown = run(str(file))
    assert "text: 33,225 ids of 33,280 rows" in shown
    for line in (
        ("location", "32000 to 32999", "1,000", "999 to 0", "<extra_id_1199> to <extra_id_200>"),
        ("image_code", "2 to 16385", "16,384", "0 to 16383", "<image_code_0> to <image_code_16383>"),
    ):
        assert any(all(cell in row for cell in line) for row in shown.splitlines()), line
    (tmp_path / "text.model").write_bytes(text.model)
    model = {**settings(), "text": {"model": str(tmp_path / "text.model")}}
    file.write_text(yaml.safe_dump(model))
    assert json.loads(run(str(file), "--json"))["tables"][0]["size"] == text.vocabulary.size


def test_numbers_need_tokens_to_be_written_with() -> None:
    joint = JOINT.model_dump(mode="json")
    with pytest.raises(ValueError, match=r"numbers\.form must be decimals"):
        TokenizerConfig.model_validate(settings(vocabulary=joint))
    TokenizerConfig.model_validate(settings(vocabulary=joint, numbers={"form": "decimals"}))
