"""``tokenizer eval``: measured on what training held out, told, and shown on a page that stands by itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from omnimill.cli.main import main
from omnimill.errors import OmnimillError
from omnimill.infra import lineage
from omnimill.tokenizers.config import TokenizerConfig
from omnimill.tokenizers.corpus import Corpus
from omnimill.tokenizers.evaluate import evaluate
from omnimill.tokenizers.parts import image_part
from omnimill.tokenizers.store import StoredSet, stored_set


@pytest.fixture
def file(tmp_path: Path, config: TokenizerConfig) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return str(path)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_command_measures_and_writes_a_page(
    root: str, tmp_path: Path, file: str, config: TokenizerConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "eval.html"
    found = answer(capsys, "tokenizer", "eval", file, "--root", root, "--page", str(page))
    stored: StoredSet = stored_set(root, "mini")
    assert (found["digest"], found["held_out"], found["page"]) == (stored.digest, True, str(page))
    assert found["quality"] == {k: v for k, v in stored.made.quality.items() if not k.startswith("text")}
    quality = found["quality"]
    assert 5 < quality["image_psnr_db"] < 60
    assert 0 < quality["image_ssim"] < 1
    assert 0 < quality["audio_mel_error"] < 10
    assert quality["audio_spectral_convergence"] > 0
    for part, codes in (("image", 32), ("audio", 16)):
        assert 1 <= quality[f"{part}_perplexity"] <= quality[f"{part}_codes_used"] <= codes
        usage = quality[f"{part}_codes_used"] / codes
        assert quality[f"{part}_codebook_usage"] == pytest.approx(usage, abs=1e-4)
        counts = [source["count"] for source in found["by_source"][part].values()]
        assert sum(counts) == found["measured"][part] >= 1

    text = page.read_text()
    shown = found["measured"]["image"], found["measured"]["audio"]
    assert len(re.findall(r"<img[^>]*data:image/png;base64,", text)) == 2 * min(shown[0], 24) + min(shown[1], 6)
    assert len(re.findall(r'<audio[^>]*src="data:audio/', text)) == 2 * min(shown[1], 6)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text), "nothing is fetched"
    assert "{{" not in text

    run = lineage.runs(root, "tokenizer eval")[0]
    assert run.data.metrics["image_psnr_db"] == pytest.approx(quality["image_psnr_db"])
    assert {ref.name for ref in lineage.references(run, "input")} == {"corpus", "tokenizers-mini"}

    # Without --json it prints tables.
    assert main(["tokenizer", "eval", file, "--root", root]) == 0
    assert "held-out examples of corpus" in capsys.readouterr().out


def test_other_examples_and_fewer_of_them(
    root: str, file: str, samples: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    others = [samples.example("others", i, images=[samples.picture(900 + i)]) for i in range(6)]
    samples.store(root, "others", others)
    found = answer(capsys, "tokenizer", "eval", file, "--root", root, "--dataset", "others", "--count", "4")
    assert (found["dataset"], found["held_out"], found["measured"]) == ("others", False, {"image": 4})
    assert list(found["by_source"]["image"]) == ["others"]


def test_nothing_to_measure_with_is_an_error(root: str, config: TokenizerConfig, samples: SimpleNamespace) -> None:
    samples.store(root, "words", [samples.example("pages", 0)])
    with pytest.raises(OmnimillError, match="nothing to measure set 'mini' with: dataset 'words'"):
        evaluate(config, root, dataset="words")
    with pytest.raises(OmnimillError, match="omnimill tokenizer train"):
        evaluate(config.model_copy(update={"name": "none"}), root)


def test_what_is_measured_is_what_training_left_out(root: str, config: TokenizerConfig) -> None:
    corpus = Corpus(root, "corpus")
    split = corpus.split("images", config.image.training.held_out, config.seed)
    assert split is not None
    assert image_part(config, corpus, {}) is not None
    result = evaluate(config, root)
    shown = {pair.example for pair in result.measured["image"].shown}
    assert shown
    assert all(split.measures(example) and not split.learns(example) for example in shown)
