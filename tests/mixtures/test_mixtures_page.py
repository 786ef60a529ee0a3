"""docs/mixtures.md shows YAML that is what it says it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from omnimill.config import Config, load_config
from omnimill.mixtures.catalog_entries import Entry
from omnimill.mixtures.language import MixtureFile
from omnimill.mixtures.loading import load_mixture
from omnimill.mixtures.online_config import OnlineConfig
from omnimill.mixtures.task_families import Family
from omnimill.pipelines.dag import Dag
from omnimill.training.runs.config import TrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "mixtures.md"
KINDS: tuple[type[Config], ...] = (MixtureFile, Family, Entry, TrainConfig, Dag, OnlineConfig)


@pytest.fixture
def files(tmp_path: Path) -> dict[Path, str]:
    """The page's blocks as files, called what their first line says."""
    found = {}
    for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)):
        named = re.match(r"# (\S+\.yaml)\n", text)
        path = tmp_path / (named[1] if named else f"block-{number}.yaml")
        assert path not in found
        found[path] = text
        path.write_text(text)
    return found


def test_every_block_of_yaml_loads(files: dict[Path, str]) -> None:
    for path, text in files.items():
        kind = next(kind for kind in KINDS if set(yaml.safe_load(text)) <= set(kind.model_fields))
        if kind is MixtureFile:
            load_mixture(path)
        else:
            load_config(path, kind, expand=kind is not Entry)


def test_what_the_page_says_of_its_examples(files: dict[Path, str], tmp_path: Path) -> None:
    assert files

    def shares(name: str) -> dict[str, float]:
        mixture = load_mixture(tmp_path / name)
        return {task.name: round(rate, 6) for task, rate in zip(mixture.tasks, mixture.rates, strict=True)}

    assert shares("first.yaml") == {"caption": 0.75, "draw": 0.25}
    assert shares("grouped.yaml") == {"books": 0.15, "pages": 0.3, "noise": 0.15, "caption": 0.3, "draw": 0.1}
    variant = shares("variant.yaml")
    assert variant == {"pages": 0.227273, "noise": 0.227273, "caption": 0.272727, "draw": 0.090909, "mend": 0.181818}
    assert [task.name for task in load_mixture(tmp_path / "variant.yaml").held_out] == ["look"]
    phases = load_mixture(tmp_path / "scheduled.yaml").phases
    assert [phases[-1].rates, len(phases)] == [(2 / 3, 1 / 3, 0), 65 + 1 + 65]
