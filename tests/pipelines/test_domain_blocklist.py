"""Block-lists of domains, hosts and words in URLs."""

from __future__ import annotations

import pickle
from pathlib import Path

import fsspec
import pytest

from omnimill.config import load_config
from omnimill.errors import ConfigError, IntegrityError
from omnimill.pipelines.dag import Dag
from omnimill.pipelines.operators.urls import DomainBlocklist
from omnimill.pipelines.recipe import recipe_digest
from omnimill.schema import Example, Meta, Provenance


def verdicts(operator: DomainBlocklist, *urls: str | None) -> list[str | None]:
    where = Provenance(uri="", digest="")
    return operator(
        [Example(id="i", source="s", unit="u", key="k", provenance=where, meta=Meta(url=url)) for url in urls]
    )


def test_domains_hosts_and_words() -> None:
    operator = DomainBlocklist(
        op="domain_blocklist", domains=("bad.example", "bücher.example"), hosts=("www.half.example",), words=("casino",)
    )
    cases = {
        "https://bad.example/page": "blocked_domain",
        "http://user@A.B.Bad.Example:8080/": "blocked_domain",
        "https://bad.example./": "blocked_domain",
        "https://notbad.example/": None,
        "https://bad.example.org/": None,
        "https://xn--bcher-kva.example/": "blocked_domain",
        "https://bücher.example/": "blocked_domain",
        "https://www.half.example/": "blocked_domain",
        "https://half.example/": None,
        "https://a.example/best-CASINO-tips": "blocked_url_word",
        "https://a.example/casinos": None,
        "https://[broken": None,
        "no url: casino": None,
        None: None,
    }
    assert verdicts(operator, *cases) == list(cases.values())


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    path = tmp_path / "list.txt"
    path.write_text("# adverts\n0.0.0.0 ads.example  # hosts file\nTracker.Example\n\n")
    return path


def test_lists_are_read_from_files_and_urls(blocked: Path) -> None:
    with fsspec.open("memory://lists/more.txt", "w") as stream:
        stream.write("more.example\n")
    operator = DomainBlocklist(op="domain_blocklist", lists=(str(blocked), "memory://lists/more.txt"))
    sent = pickle.loads(pickle.dumps(operator))
    urls = ("https://x.ads.example", "https://tracker.example/", "https://more.example", "https://fine.example")
    assert verdicts(sent, *urls) == ["blocked_domain"] * 3 + [None]


DAG = """
dataset: web
sources:
  - name: pages
    type: jsonl
    path: pages
    operators:
      - op: domain_blocklist
        lists: [LIST]
"""


def test_a_changed_list_does_units_again(blocked: Path, tmp_path: Path) -> None:
    path = tmp_path / "dag.yaml"
    path.write_text(DAG.replace("LIST", str(blocked)))
    before = load_config(path, Dag).sources[0]
    digest = recipe_digest(before.source, before.operators)
    assert recipe_digest(before.source, load_config(path, Dag).sources[0].operators) == digest
    blocked.write_text("other.example\n")
    after = load_config(path, Dag).sources[0]
    assert recipe_digest(after.source, after.operators) != digest
    # A run that was started with the old list does not go on with the new one.
    assert isinstance(before.operators[0], DomainBlocklist)
    with pytest.raises(IntegrityError, match="is not the one"):
        verdicts(before.operators[0], "https://a.example")


def test_lists_that_cannot_be_used(tmp_path: Path, blocked: Path) -> None:
    path = tmp_path / "dag.yaml"
    path.write_text(DAG.replace("LIST", str(tmp_path / "absent.txt")))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(path, Dag)
    path.write_text(DAG.replace("[LIST]", "[]"))
    with pytest.raises(ConfigError, match="needs domains, hosts, words or lists"):
        load_config(path, Dag)
