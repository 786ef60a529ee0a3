"""The report of a root with a dataset of every kind of content and a training run."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_report import mixture_card, publish_corpus, record_generated, record_run

from omnimill.infra.report.page import write_report


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``report.html``."""
    root = tmp_path_factory.mktemp("report")
    _, digest = publish_corpus(root)
    record_run(root, digest)
    record_generated(root)
    assert write_report(str(root), root / "report.html", mixture_of=mixture_card) == ["corpus", "first"]
    return root


@pytest.fixture(scope="session")
def pages(site: Path) -> Path:
    """The same report as a folder of pages."""
    write_report(str(site), site / "pages", mixture_of=mixture_card)
    return site / "pages"
