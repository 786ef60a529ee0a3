"""Generation: requests are rendered as in training, stepwise decoding equals decoding at once, draws obey top-p."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from omnimill.cli.main import main
from omnimill.errors import BadRecord, ConfigError
from omnimill.infra.dataset import Dataset
from omnimill.tokenizers import audio, image
from omnimill.tokenizers.text import TextTokenizer
from omnimill.tokens import TokenLayout
from omnimill.training.backbone.config import BackboneConfig
from omnimill.training.backbone.model import Backbone
from omnimill.training.backbone.stepwise import StepwiseDecoder
from omnimill.training.checkpoints import checkpoint
from omnimill.training.checkpoints.checkpoint import CheckpointRecord
from omnimill.training.engine.loss import modality_sums, total_loss
from omnimill.training.generation.decoding import Sampling, choose, decode
from omnimill.training.generation.generators import load_generator
from omnimill.training.generation.request_rows import read_requests
from omnimill.training.loading.batch import DecoderModality, EncoderModality, PackedBatch
from omnimill.training.loading.collate import collate
from omnimill.training.planning.lengths import Budgets
from omnimill.training.rendering.pairs import Rendered
from omnimill.training.rendering.prompt import Request, render_request
from omnimill.training.rendering.settings import RenderSettings
from omnimill.training.runs.inputs import TrainInputs

SETTINGS = RenderSettings(max_text=32, max_target_text=12, history_frames=2, image_latents=8, audio_latents=4)
BUDGETS = Budgets(encoder=160, decoder=80)


def picture(seed: int, height: int = 80, width: int = 120) -> bytes:
    return image.encode_png(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def sound(seed: int, seconds: float, rate: int = 22050) -> bytes:
    waveform = np.random.default_rng(seed).uniform(-0.5, 0.5, int(seconds * rate)).astype(np.float32)
    return audio.encode_waveform(waveform, rate, "WAV")


def rendered(request: Request, layout: TokenLayout, text: TextTokenizer) -> Rendered:
    return render_request(request, layout, text, SETTINGS)[0].example


# --- requests ---


def test_a_prompt_alone(layout: TokenLayout, text: TextTokenizer) -> None:
    asked, cut = render_request(Request("image", "a red tree"), layout, text, SETTINGS)
    example, vocabulary = asked.example, text.vocabulary
    assert example.text.tolist() == [vocabulary.prefix("image", "S"), *text.encode("a red tree"), vocabulary.EOS]
    assert cut == 0
    assert not any(example.frames.values())
    assert example.target.ids[0] == 0
    side = layout.image.target_grid
    assert example.target.positions.tolist() == [[row, column] for row in range(side) for column in range(side)]


def test_an_empty_prompt(layout: TokenLayout, text: TextTokenizer) -> None:
    example = rendered(Request("audio"), layout, text)
    assert example.text.tolist() == [text.vocabulary.prefix("audio", "S"), text.vocabulary.EOS]
    assert len(example.target.ids) == layout.audio.target_grid[0] * layout.audio.target_grid[1]


def test_a_long_prompt_is_cut_and_says_so(layout: TokenLayout, text: TextTokenizer) -> None:
    prompt = "the red bird sings near the small house " * 20
    asked, cut = render_request(Request("text", prompt), layout, text, SETTINGS)
    example = asked.example
    assert len(example.text) == SETTINGS.max_text
    assert cut == len(text.encode(prompt)) - (SETTINGS.max_text - 2)
    assert example.target.positions.tolist() == [[i, 0] for i in range(SETTINGS.max_target_text)]


def test_the_last_medium_is_current_the_others_are_history(layout: TokenLayout, text: TextTokenizer) -> None:
    request = Request("text", "what is this", [picture(1), picture(2), picture(3)], [sound(4, 0.2), sound(5, 2.0)])
    example = rendered(request, layout, text)
    vocabulary = text.vocabulary
    markers = [vocabulary.image_history(1), vocabulary.image_history(2), vocabulary.audio_history(1)]
    assert example.text[1:4].tolist() == markers
    counts = {stream: len(frames) for stream, frames in example.frames.items()}
    assert counts == {
        EncoderModality.IMAGE: 1,
        EncoderModality.IMAGE_HISTORY: 2,
        EncoderModality.AUDIO: 1,
        EncoderModality.AUDIO_HISTORY: 1,
    }
    # Every valid patch is read: a picture of 80 x 120 covers 4 of the 6 rows of its canvas, a long clip all of its own.
    assert example.frames[EncoderModality.IMAGE][0].index.tolist() == list(range(6, 30))
    rows, columns = layout.audio.input_grid
    assert example.frames[EncoderModality.AUDIO][0].index.tolist() == list(range(rows * columns))
    own = image.fit(image.decode_rgb(request.pictures[-1]), layout.image.input_size)
    values = image.normalise(image.patchify(image.to_canvas(own, layout.image.input_size)[0], layout.image.patch))
    np.testing.assert_allclose(example.frames[EncoderModality.IMAGE][0].values, values[6:30], atol=1e-5)


def test_media_of_the_targets_own_kind_are_history(layout: TokenLayout, text: TextTokenizer) -> None:
    """In training the target's picture is never an input, so the model knows others as earlier ones only."""
    example = rendered(Request("image", "brighter", [picture(1)], [sound(2, 0.3)]), layout, text)
    assert len(example.frames[EncoderModality.IMAGE_HISTORY]) == 1
    assert not example.frames.get(EncoderModality.IMAGE)
    assert len(example.frames[EncoderModality.AUDIO]) == 1


def test_too_many_and_unreadable_media(layout: TokenLayout, text: TextTokenizer) -> None:
    three = [picture(seed) for seed in range(3)]
    with pytest.raises(ConfigError, match="--image: found 3 files, the model reads at most 2"):
        rendered(Request("image", "x", three), layout, text)
    rendered(Request("text", "x", three), layout, text)
    with pytest.raises(BadRecord, match="--image, file 2"):
        rendered(Request("text", "x", [picture(1), b"not a picture"]), layout, text)
    with pytest.raises(BadRecord, match="--audio, file 1"):
        rendered(Request("text", "x", [], [b"not a sound"]), layout, text)


# --- decoding ---


@pytest.fixture(scope="module")
def model(layout: TokenLayout) -> Backbone:
    return Backbone(BackboneConfig.of("tiny", layout), seed=4).eval().requires_grad_(False)


def batch_with_targets(requests: list[Request], layout: TokenLayout, text: TextTokenizer, rows: int) -> PackedBatch:
    """The requests, one per sequence, with random targets below `rows` in place of the placeholders."""
    random = np.random.default_rng(0)
    sequences = []
    for request in requests:
        example = rendered(request, layout, text)
        targets = random.integers(2, rows, len(example.target.ids))
        ids = np.concatenate([[0], targets[:-1]])
        sequences.append([replace(example, target=replace(example.target, ids=ids, targets=targets))])
    return collate(sequences, BUDGETS)


def test_stepwise_equals_at_once(layout: TokenLayout, text: TextTokenizer, model: Backbone) -> None:
    """The kept keys and values change nothing, whatever the target, with encoder inputs of different lengths."""
    requests = {
        "text": [Request("text", "hm", [picture(1)]), Request("text", "the red bird sings", [], [sound(2, 0.5)])],
        "image": [Request("image", "blue", [picture(3), picture(4)]), Request("image")],
        "audio": [Request("audio", "a river", [], [sound(5, 0.1), sound(6, 0.5)]), Request("audio", "cat")],
    }
    for name, both in requests.items():
        modality = DecoderModality[name.upper()]
        batch = batch_with_targets(both, layout, text, model.table(modality).num_embeddings)
        encoded = model.encode(batch)
        length = int((batch.decoder_segment[0] == 1).sum())
        whole = model.logits(model.decode(encoded, batch)[:, :length], modality)
        decoder = StepwiseDecoder(model, encoded, modality)
        for i in range(length):
            logits = decoder.step(batch.decoder_ids[:, i], batch.decoder_position[:, i])
            torch.testing.assert_close(logits, whole[:, i], atol=1e-5, rtol=1e-5)


def test_greedy_and_nucleus_choices() -> None:
    shares = torch.tensor([0.05, 0.5, 0.15, 0.3])
    points = torch.arange(4000, dtype=torch.float64) / 4000

    def drawn(**settings: float) -> list[float]:
        chosen = choose(shares.log().expand(4000, 4), Sampling(**settings), points)
        return (torch.bincount(chosen, minlength=4) / 4000).tolist()

    assert drawn(temperature=0.0) == [0, 1, 0, 0]
    # The likeliest two are the smallest set that reaches 0.7.
    assert drawn(top_p=0.7) == pytest.approx([0, 0.5 / 0.8, 0, 0.3 / 0.8], abs=1e-3)
    assert drawn(top_p=1.0) == pytest.approx(shares.tolist(), abs=1e-3)
    # Temperature 0.5 squares the probabilities.
    squares = shares**2 / (shares**2).sum()
    assert drawn(temperature=0.5, top_p=1.0) == pytest.approx(squares.tolist(), abs=1e-3)


def test_decoding_is_a_function_of_the_seed(layout: TokenLayout, text: TextTokenizer, model: Backbone) -> None:
    batch = batch_with_targets([Request("image", "a tree", [picture(1)])], layout, text, 10)

    def codes(seed: int) -> list[int]:
        decoder = StepwiseDecoder(model, model.encode(batch), DecoderModality.IMAGE)
        (ids,) = decode(decoder, batch.decoder_position[0, :64], range(2, 66), Sampling(seed=seed), ["key"])
        return ids

    once = codes(0)
    assert once == codes(0)
    assert once != codes(1)
    assert len(once) == 64
    assert set(once) <= set(range(2, 66))


# --- from a checkpoint ---

ANSWERS: dict[str, str | list[int]] = {
    "text": "the red bird sings",
    "image": [(7 * i) % 64 for i in range(64)],
    "audio": [i % 32 for i in range(32)],
}
REQUESTS = {
    "text": Request("text", "what sings", [picture(1)]),
    "image": Request("image", "paint a tree"),
    "audio": Request("audio", "a river", [picture(2)], [sound(3, 0.4)]),
}


@pytest.fixture(scope="module")
def learnt(
    stored_layout: tuple[Path, TokenLayout], inputs: TrainInputs, text: TextTokenizer, store_checkpoint: Any
) -> Path:
    """The run folder of a model that knows the answers to `REQUESTS` by heart."""
    root, layout = stored_layout
    config = BackboneConfig.of("tiny", layout)
    model = Backbone(config, seed=5)
    sequences = []
    for name, request in REQUESTS.items():
        example = rendered(request, layout, text)
        answer = ANSWERS[name]
        ids = [*text.encode(answer), text.vocabulary.EOS] if isinstance(answer, str) else [code + 2 for code in answer]
        target = replace(
            example.target,
            ids=np.array([0, *ids[:-1]]),
            targets=np.array(ids),
            loss=np.ones(len(ids), np.float32),
            hidden=np.zeros(len(ids), np.bool_),
            positions=example.target.positions[: len(ids)],
        )
        sequences.append([replace(example, target=target)])
    batch = collate(sequences, BUDGETS)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(40):
        optimizer.zero_grad()
        sums = modality_sums(model(batch), batch)
        total_loss(sums, sums.weight).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    changed = {"layout": layout, "backbone": config, "config": inputs.config.model_copy(update={"render": SETTINGS})}
    facts = {**dict(inputs), **changed, "run": "r", "step": 50, "plan": {}, "ledger": "0", "examples": {}}
    run = checkpoint.run_folder(str(root), "r")
    store_checkpoint(run, CheckpointRecord(**facts), model.state_dict())
    return run


def test_a_checkpoint_says_what_it_learnt(learnt: Path, stored_layout: tuple[Path, TokenLayout]) -> None:
    generator, record = load_generator(str(stored_layout[0]), learnt)
    found = {name: generator.generate(request, Sampling(temperature=0.0)) for name, request in REQUESTS.items()}
    assert found["text"].text == ANSWERS["text"]
    assert found["image"].ids == ANSWERS["image"]
    assert found["audio"].ids == ANSWERS["audio"]
    assert found["image"].picture is not None
    assert found["audio"].waveform is not None
    assert found["image"].picture.shape == (64, 64, 3)
    assert found["audio"].waveform.shape == (record.layout.audio.segment_samples,)


def test_command(learnt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Text on stdout, a picture as PNG, sound as WAV; one JSON document; files as input."""
    root = str(learnt.parent.parent)
    (tmp_path / "in.png").write_bytes(REQUESTS["text"].pictures[0])
    asked = ["generate", str(learnt), "--root", root, "--temperature", "0"]
    assert main([*asked, "--target", "text", "--prompt", "what sings", "--image", str(tmp_path / "in.png")]) == 0
    assert capsys.readouterr().out == "the red bird sings\n"

    folder = next((learnt / "checkpoints").iterdir())
    asked[1] = str(folder)
    out = tmp_path / "deep" / "tree.png"
    assert main([*asked, "--target", "image", "--prompt", "paint a tree", "--out", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer == {
        "run": "r",
        "step": 50,
        "target": "image",
        "prompt": "paint a tree",
        "temperature": 0.0,
        "top_p": 0.95,
        "seed": 0,
        "guidance": 1.0,
        "beams": 1,
        "length_penalty": 0.6,
        "tokens": 64,
        "text": None,
        "file": str(out),
    }
    assert image.decode_rgb(out.read_bytes()).shape == (64, 64, 3)

    assert main([*asked, "--target", "audio", "--out", str(tmp_path / "river.wav")]) == 0
    facts = soundfile.info(str(tmp_path / "river.wav"))
    assert (facts.samplerate, facts.channels, facts.frames) == (16000, 1, 8000)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--target", "text", "--top-p", "1.5"], 2, "--top-p"),
        (["--target", "text", "--image", "missing.png"], 2, "missing.png: cannot be read"),
        (["--target", "video"], 2, "text"),
        ([], 2, "--target: not given"),
        (["--requests", "asks.jsonl"], 2, "needs --out"),
        (["--requests", "asks.jsonl", "--prompt", "x", "--out", "y"], 2, "says what is asked for"),
    ],
)
def test_bad_use(
    learnt: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str
) -> None:
    assert main(["generate", str(learnt), "--root", str(learnt.parent.parent), *arguments]) == code
    assert message in capsys.readouterr().err


# --- many at once ---


def test_requests_are_answered_once(
    learnt: Path, stored_layout: tuple[Path, TokenLayout], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of requests becomes a dataset; what is there is not answered again."""
    folder = tmp_path / "asks"
    folder.mkdir()
    (folder / "in.png").write_bytes(REQUESTS["text"].pictures[0])
    lines: list[dict[str, Any]] = [
        {"key": "tree", "target": "image", "prompt": "paint a tree"},
        {"key": "bird", "target": "text", "prompt": "what sings", "images": ["in.png"]},
        {"key": "again", "target": "text", "prompt": "what sings", "images": ["in.png"], "numbers": 4},
    ]
    (folder / "asks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    command = ["generate", str(learnt), "--root", str(stored_layout[0]), "--temperature", "0", "--json"]
    command += ["--requests", str(folder / "asks.jsonl"), "--out", str(tmp_path / "answers")]

    def answered() -> dict[str, Any]:
        assert main(command) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    first = answered()
    assert (first["count"], first["answers"]) == (3, str(tmp_path / "answers"))
    dataset = Dataset(str(tmp_path), "answers")
    manifest = dataset.manifest()[1]
    rows = {
        row["key"]: row
        for commit in manifest.commits
        for shard in commit.shards
        for row in dataset.read(shard).to_pylist()
    }
    assert rows["bird"]["text"] == ANSWERS["text"]
    assert rows["tree"]["ids"] == ANSWERS["image"]
    assert image.decode_rgb(rows["tree"]["media"]).shape == (64, 64, 3)
    assert rows["bird"]["media"] is rows["tree"]["text"] is None

    commits = sorted((tmp_path / "answers" / "commits").glob("*.json"))
    times = {path: path.stat().st_mtime_ns for path in commits}
    commits[0].unlink()
    assert answered()["manifest"] == first["manifest"]
    assert {path: path.stat().st_mtime_ns for path in commits[1:]} == {path: times[path] for path in commits[1:]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"key": "a", "target": "text"}', "", '{"key": "a", "target": "text"}'], ":3: key: found 'a' again"),
        (['{"key": "a", "target": "film"}'], ":1: target: "),
        (['{"key": "a", "target": "text", "image": []}'], ":1: image: "),
        (["{"], ":1: not a JSON object"),
        (['{"key": "a", "target": "text", "images": ["none.png"]}'], "none.png cannot be read"),
        ([""], "holds no requests"),
    ],
)
def test_lines_that_are_no_requests(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "asks.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_requests(str(path))


def test_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(tmp_path), "--target", "text", "--prompt", "x"]) == 1
    assert "neither a checkpoint's folder nor that of a run" in capsys.readouterr().err.replace("\n", " ")
