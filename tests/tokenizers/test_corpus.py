"""What tokenizers learn from: samples that ignore how a dataset is cut, ranges of vectors, what is held out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from omnimill.config import load_config
from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra.dataset import Dataset
from omnimill.schema import Text
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.parts import image_part, text_part
from omnimill.tokenizers.train import make_set

PROJECT = Path(__file__).parents[2]


def test_samples_do_not_depend_on_shards(tmp_path: Path, samples: SimpleNamespace) -> None:
    samples.store(str(tmp_path), "whole", samples.corpus(), shard_rows=100)
    samples.store(str(tmp_path), "cut", samples.corpus()[::-1], shard_rows=3)
    whole, cut = Corpus(str(tmp_path), "whole"), Corpus(str(tmp_path), "cut")
    for column in ("images", "audio"):
        assert whole.media(column, 7, 0) == cut.media(column, 7, 0)  # type: ignore[arg-type]
        assert whole.media(column, 7, 0) != whole.media(column, 7, 1)  # type: ignore[arg-type]
    assert len(whole.media("images", 1000, 0)) == 25 + 12 + 6 + 3
    assert sorted(whole.texts()) == sorted(cut.texts())
    assert len(dict(whole.texts())) == 24 + 1 + 6 + 3


def test_ranges_hold_every_vector(root: str, samples: SimpleNamespace) -> None:
    found = Corpus(root, "corpus").ranges()
    assert set(found) == {"robot"}
    states = [state for i in range(3) for state in samples.trajectory(i).states]
    assert [(r.low, r.high) for r in found["robot"].state] == [(min(c), max(c)) for c in zip(*states, strict=True)]
    assert len(found["robot"].action) == 2


def test_ranges_skip_what_is_not_finite_and_refuse_mixed_robots(tmp_path: Path, samples: SimpleNamespace) -> None:
    path = samples.trajectory(0)
    path.states[1][0] = float("nan")
    samples.store(str(tmp_path), "nan", [samples.example("robot", 0, trajectory=path)])
    first = Corpus(str(tmp_path), "nan").ranges()["robot"].state[0]
    assert (first.low, first.high) == (
        min(path.states[0][0], path.states[2][0]),
        max(path.states[0][0], path.states[2][0]),
    )
    other = samples.trajectory(1)
    other.states = [[1.0, 2.0]] * 3
    both = [samples.example("robot", 0, trajectory=path), samples.example("robot", 1, trajectory=other)]
    samples.store(str(tmp_path), "mixed", both)
    with pytest.raises(OmnimillError, match=r"'robot'.*\[2, 3\] numbers"):
        Corpus(str(tmp_path), "mixed").ranges()


def test_quality_is_measured_on_what_was_not_learned(root: str, config: TokenizerConfig) -> None:
    corpus = Corpus(root, "corpus")
    part = image_part(config, corpus, {})
    assert part is not None
    assert 5 < part.quality["image_psnr_db"] < 60
    assert 1 <= part.quality["image_perplexity"] <= part.quality["image_codes_used"] <= 32
    text = text_part(config, corpus)
    assert text.quality["text_pieces"] == 400
    assert text.quality["text_characters_per_token"] > 1


def test_parts_without_examples_are_left_out(
    tmp_path: Path, config: TokenizerConfig, samples: SimpleNamespace, capfd: pytest.CaptureFixture[str]
) -> None:
    page = samples.example("pages", 0, text=[Text(role="body", text="the quick brown fox " * 40)])
    samples.store(str(tmp_path), "corpus", [page])
    stored, files = make_set(config, Corpus(str(tmp_path), "corpus"))
    assert set(files) == {"text"}
    assert stored.image_network is None
    assert "no image tokenizer" in capfd.readouterr().err


def test_an_existing_text_model_is_used_as_it_is(root: str, config: TokenizerConfig, tmp_path: Path) -> None:
    corpus = Corpus(root, "corpus")
    model = text_part(config, corpus).file
    (tmp_path / "own.model").write_bytes(model)
    settings = config.text.model_copy(update={"model": str(tmp_path / "own.model"), "pieces": 7})
    part = text_part(config.model_copy(update={"text": settings}), corpus)
    assert part.file == model


def test_only_examples_are_learned_from(tmp_path: Path) -> None:
    Dataset(str(tmp_path), "tokens").publish_manifest("tokens", [])
    with pytest.raises(OmnimillError, match="holds tokens, not examples"):
        Corpus(str(tmp_path), "tokens")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("layout: {image: {input_size: 100}}", "image.input_size must be a multiple of 16, found 100"),
        (
            "image: {network: {type: vqgan, multipliers: [1, 2]}}",
            "image.network makes a code of 2 pixels a side, layout.image.code_stride says 8",
        ),
        ("audio: {network: {type: patches, heads: 5}}", "width 64 must be a multiple of heads 5"),
        ("audio: {network: {width: 64}}", "audio.network.type: required key is missing"),
        ("layout: {audio: {codes: 100000}}", "audio.codes must lie between 2 and 65536"),
        ("tokens: a", "needs a name of its own"),
        ("actors: {cpus: 1}", "unknown key"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path: Path, settings: str, message: str) -> None:
    file = tmp_path / "config.yaml"
    lines = {"name": "name: a", "dataset": "dataset: a", "tokens": "tokens: b"}
    lines[settings.partition(":")[0]] = settings
    file.write_text("\n".join(lines.values()))
    with pytest.raises(ConfigError, match=message):
        load_config(file, TokenizerConfig)


def test_the_reference_and_the_demo_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("name: a\ndataset: a\ntokens: b\n")
    assert load_config(file, TokenizerConfig).layout.image.codes == 16384
    demo = load_config(PROJECT / "tokenizers" / "configs" / "demo.yaml", TokenizerConfig)
    assert (demo.layout.image.target_grid, demo.layout.audio.target_grid) == (8, (16, 8))
