"""Benchmarks run, report every figure, and count what they say they count."""

import json
from pathlib import Path

import numpy as np
import pytest

import omnimill
from omnimill.bench import mix
from omnimill.bench.page import update
from omnimill.cli.main import main


@pytest.mark.parametrize("name", ["sampler"])
def test_each_benchmark_reports(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", name, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["metrics"]
    assert metrics
    for one in metrics:
        assert set(one) == {"metric", "unit", "ours", "peers", "ratio_to_best_peer", "ceiling", "ceiling_share"}
        assert one["ours"] > 0
        assert one["ceiling_share"] is None or one["ceiling_share"] <= 1


def test_a_page_keeps_what_was_not_measured_again() -> None:
    before = "# Figures\n\nRead with care.\n\n## ingest\n\nold\n\n## Why\n\nBecause.\n"
    after = update(before, {"ingest": "## ingest\n\nnew\n", "scale": "## scale\n\nfirst\n"})
    assert after == ("# Figures\n\nRead with care.\n\n## ingest\n\nnew\n\n## Why\n\nBecause.\n\n## scale\n\nfirst\n")


def test_results_can_be_kept_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "sampler", "--page", str(tmp_path / "page.md")]) == 0
    page = (tmp_path / "page.md").read_text()
    assert "## sampler" in page
    assert f"omnimill {omnimill.__version__}" in page
    assert page.count("|\n") >= 3


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "ingest", "--section", "nothing"]) == 1
    assert "no section nothing" in capsys.readouterr().err


def test_fidelity_of_our_own_mixer() -> None:
    rates = [0.7, 0.2, 0.1]
    counts = mix.part_counts(rates)
    numbers, sums = mix.ours(rates, counts)
    batches, tokens, several = mix.compare("made", rates, counts, {"omnimill": (numbers, sums)})
    assert batches.ours < 1
    assert tokens.ours < 0.1
    assert several.ours == 1


def test_a_window_that_is_off_is_found() -> None:
    sums = np.tile(np.array([[70, 30]]), (1500, 1))
    wanted = np.array([0.7, 0.3])
    assert mix.token_error(sums, wanted) < 1e-12
    sums[1400:, 0] = 80
    assert mix.token_error(sums, wanted) == pytest.approx(71 / 101 - 0.7)
