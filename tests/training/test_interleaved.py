"""Generation from decoder-only checkpoints: the order of text and pictures, guidance, draws, and what is written."""

from __future__ import annotations

import base64
import json
import random
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from omnimill.cli.main import main
from omnimill.errors import ConfigError
from omnimill.infra.dataset import Dataset
from omnimill.tokenizers import image
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.build import build_sequence_model
from omnimill.training.backbone.decoder_config import DecoderConfig
from omnimill.training.checkpoints.checkpoint import CheckpointRecord
from omnimill.training.generation.decoding import Decoding, Sampling
from omnimill.training.generation.generators import load_generator
from omnimill.training.generation.growing import GrowingSequences
from omnimill.training.generation.interleaved import Drawn, Ended, SequenceGenerator, Words
from omnimill.training.generation.interleaving import Order, Progress
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.prompt import Request
from omnimill.training.runs.config import BackboneSettings
from omnimill.training.runs.inputs import TrainInputs

LENGTH = 60
DRAWN = Decoding(text=Sampling(seed=3), image=Sampling(seed=3, guidance=2.0))


@pytest.fixture(scope="module")
def painter(joint_layout: tuple[Path, TokenLayout], inputs: TrainInputs, store_checkpoint: Callable[..., Path]) -> Path:
    """The root of a checkpoint that nobody trained, of a decoder-only backbone."""
    root, layout = joint_layout
    config = inputs.config.model_copy(
        update={
            "name": "painter",
            "backbone": BackboneSettings(kind="decoder"),
            "packing": PackingSettings(budgets=Budgets(encoder=1, decoder=LENGTH)),
            "render": inputs.render.model_copy(update={"form": "sequence", "uninformative_prompt": "<mask>"}),
        }
    )
    backbone = DecoderConfig.of("tiny", layout).model_copy(update={"width": 32, "heads": 2, "head_width": 16})
    found = {**dict(inputs), "config": config, "layout": layout, "backbone": backbone}
    record = CheckpointRecord(**found, run="painter", step=1, plan={}, ledger="", examples={})
    model = build_sequence_model(backbone, seed=1)
    with torch.no_grad():
        # Flat enough logits that everything that may come does.
        model.table.weight[Order(layout).turn] *= 6
    store_checkpoint(root / "runs" / "painter", record, model.state_dict())
    return root


@pytest.fixture(scope="module")
def generator(painter: Path) -> SequenceGenerator:
    found, _ = load_generator(str(painter), painter / "runs" / "painter")
    assert isinstance(found, SequenceGenerator)
    return found


def png(seed: int) -> bytes:
    return image.encode_png(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))


REQUESTS = [
    Request("interleaved", "the red tree", key="one"),
    Request("interleaved", "a cat sings near the house by the river", key="two"),
    Request("interleaved", key="three"),
    Request("interleaved", "then", [png(1)], key="four"),
]


@pytest.mark.parametrize("wanted", ["text", "image", "interleaved"])
def test_whatever_is_drawn_the_order_holds(wanted: str, joint_layout: tuple[Path, TokenLayout]) -> None:
    order = Order(joint_layout[1])
    ids = {
        kind: order.allowed(frozenset({kind})).nonzero()[:3, 0].tolist() for kind in ("words", "codes", "turn", "end")
    }
    picture = "c" * order.codes
    pattern = {
        "text": r"w*\.?",
        "image": rf"\|?{picture}",
        "interleaved": rf"({picture}|w*)((?<=c)\|w+|\|{picture})*\|?\.?",
    }[wanted]
    for seed in range(200):
        draw = random.Random(seed)
        progress = Progress(order, wanted, 20 + seed % 60, draw.choice(["opening", "writing"]))  # type: ignore[arg-type]
        room, told = progress.room, ""
        while progress.state != "over":
            kind = draw.choice(sorted(progress.kinds()))
            progress.take(draw.choice(ids[kind]))
            told += {"words": "w", "codes": "c", "turn": "|", "end": "."}[kind]
        assert len(told) <= room
        assert re.fullmatch(pattern, told), told


def test_sequences_of_different_lengths_grow_as_they_do_alone(generator: SequenceGenerator) -> None:
    starts = [[0, 5, 6, 7, 8], [0], [0, 9]]
    nexts = [[11, 12, 13], [14, 15, 16], [17, 18, 19]]
    together = GrowingSequences(generator.model, starts)
    found = [together.logits, *(together.step(torch.tensor(ids)) for ids in zip(*nexts, strict=True))]
    for row, (start, more) in enumerate(zip(starts, nexts, strict=True)):
        for number in range(len(more) + 1):
            whole = GrowingSequences(generator.model, [start + more[:number]]).logits
            torch.testing.assert_close(found[number][row : row + 1], whole, rtol=1e-4, atol=1e-4)


def test_a_sequence_that_began_again_is_as_if_it_just_had(generator: SequenceGenerator) -> None:
    sequences = GrowingSequences(generator.model, [[0, 5, 6], [0, 7]])
    sequences.hold_start()
    for ids in ([11, 12], [13, 14]):
        sequences.step(torch.tensor(ids))
    sequences.begin_again(torch.tensor([False, True]))
    found = sequences.step(torch.tensor([15, 16]))
    for row, ids in enumerate(([0, 5, 6, 11, 13, 15], [0, 7, 16])):
        whole = GrowingSequences(generator.model, [ids]).logits
        torch.testing.assert_close(found[row : row + 1], whole, rtol=1e-4, atol=1e-4)


def test_answers_are_text_and_whole_pictures_and_the_same_every_time(generator: SequenceGenerator) -> None:
    events: list[object] = []
    answers = generator.generate(REQUESTS, DRAWN, events.append)
    assert any(answer.pictures for answer in answers)
    assert any(piece.text for answer in answers for piece in answer.pieces)
    for piece in (piece for answer in answers for piece in answer.pieces if piece.picture is not None):
        assert len(piece.ids) == 16
        assert piece.picture is not None and piece.picture.shape == (32, 32, 3)
    again = generator.generate(REQUESTS, DRAWN)
    assert [[piece.ids for piece in one.pieces] for one in again] == [[p.ids for p in one.pieces] for one in answers]
    other = generator.generate([replace(one, key=f"{one.key}!") for one in REQUESTS], DRAWN)
    assert [[piece.ids for piece in one.pieces] for one in other] != [[p.ids for p in one.pieces] for one in answers]
    # What comes as it comes is what there is at the end.
    for number, answer in enumerate(answers):
        own = [one for one in events if one.request == number]  # type: ignore[attr-defined]
        assert isinstance(own[-1], Ended) and own[-1].whole == answer.whole
        words = [one.token for one in own if isinstance(one, Words)]
        assert words == [token for piece in answer.pieces if piece.text is not None for token in piece.ids]
        pictures = [one.codes for one in own if isinstance(one, Drawn)]
        assert pictures == [piece.ids for piece in answer.pieces if piece.picture is not None]


def test_guidance_is_of_codes_and_by_what_replaces_captions(generator: SequenceGenerator) -> None:
    """By hand, a whole sequence at every step, with and without the caption."""
    layout, text, order = generator.inputs.layout, generator.tokenizers.text, generator.order
    decoding = Decoding(text=Sampling(temperature=0), image=Sampling(temperature=0, guidance=3.0))
    (found,) = generator.generate([Request("image", "the red tree")], decoding)
    codes: list[int] = []
    caption = [0, *text.encode("the red tree"), order.turn]
    mask = generator.tokenizers.text.vocabulary.special("<mask>")
    for _ in range(layout.image.target_grid**2):
        with_it, without = (
            GrowingSequences(generator.model, [[*start, *(order.code_ids[code] for code in codes)]]).logits[0]
            for start in (caption, [0, mask, order.turn])
        )
        logits = (without + 3.0 * (with_it - without))[order.code_ids]
        codes.append(int(logits.argmax()))
    assert list(found.pieces[0].ids) == codes
    plain = decoding.model_copy(update={"image": Sampling(temperature=0)})
    assert list(generator.generate([Request("image", "the red tree")], plain)[0].pieces[0].ids) != codes


def test_a_caption_is_text_and_a_drawing_one_picture(generator: SequenceGenerator) -> None:
    told, drawn = generator.generate([Request("text", pictures=[png(2)]), Request("image", "a cat")], DRAWN)
    assert not told.pictures and told.pieces
    assert len(drawn.pieces) == 1 and drawn.pictures
    with pytest.raises(ConfigError, match="found 3 pictures, which leave no room"):
        generator.generate([Request("image", "x", [png(n) for n in range(3)])], DRAWN)
    with pytest.raises(ConfigError, match="has no sound"):
        generator.generate([Request("audio", "x")], DRAWN)
    (cut,) = generator.generate([Request("image", "the red tree stands near " * 20)], DRAWN)
    assert cut.cut and cut.pictures


def test_by_the_command(painter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(painter / "runs" / "painter")
    arguments = ["generate", run, "--root", str(painter), "--prompt", "the red tree", "--seed", "3"]
    page = tmp_path / "answer.html"
    assert main([*arguments, "--out", str(page), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--out", str(page)]) == 0
    shown = capsys.readouterr().out
    written = page.read_text()
    urls = re.findall(r'src="data:image/png;base64,([^"]+)"', written)
    pictures = [piece for piece in told["pieces"] if "picture" in piece]
    assert len(urls) == len(pictures) == shown.count("[picture ")
    for url in urls:
        assert image.decode_rgb(base64.b64decode(url)).shape == (32, 32, 3)
    for piece in told["pieces"]:
        assert piece.get("text", "") in shown
    assert main([*arguments, "--out", str(tmp_path / "x.png")]) == 2
    assert "allowed: *.html" in capsys.readouterr().err

    requests = tmp_path / "asked.jsonl"
    (tmp_path / "given.png").write_bytes(png(5))
    lines = [
        {"key": "a", "target": "interleaved", "prompt": "the red tree"},
        {"key": "b", "target": "interleaved", "prompt": "a cat", "negative": "a house"},
        {"key": "c", "target": "text", "images": ["given.png"]},
        {"key": "d", "target": "image", "prompt": "a bird"},
    ]
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    many = ["generate", run, "--root", str(painter), "--requests", str(requests), "--out", str(tmp_path / "answers")]
    assert main([*many, "--guidance", "2", "--page", str(tmp_path / "all.html")]) == 0
    dataset = Dataset(str(tmp_path), "answers")
    rows = {
        row["key"]: row
        for commit in dataset.manifest()[1].commits
        for shard in commit.shards
        for row in dataset.read(shard).to_pylist()
    }
    assert set(rows) == {"a", "b", "c", "d"}
    assert rows["a"]["pieces"] and rows["c"]["pieces"] is None
    assert image.decode_rgb(rows["d"]["media"]).shape == (32, 32, 3)
    assert (tmp_path / "all.html").read_text().count("<article") == 4
