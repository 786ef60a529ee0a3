"""The ledger: appended to, never rewritten; killed anywhere, it says what held."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omnimill.errors import IntegrityError
from omnimill.mixtures.config import Mixture
from omnimill.mixtures.ledger import Change, Entry, Ledger, Update, task_names
from omnimill.mixtures.versions import DatasetVersion, Versions


def change(step: int, rate: float = 1.0, manifest: str = "m", streams: tuple[dict[str, Any], ...] = ()) -> Change:
    tasks = [{"name": f"t{i}", "rate": r, "sources": ["s"], "target": "image"} for i, r in enumerate((1.0, rate))]
    mixture = Mixture.model_validate({"datasets": ["tokens"], "tasks": tasks})
    versions = Versions(datasets=(DatasetVersion(name="tokens", manifest=manifest),))
    return Change(step=step, mixture=mixture, versions=versions, streams=streams)


def update(decided: int) -> Update:
    return Update(decided=decided, step=decided + 8, losses={"t0": 1 / 3 + decided}, weights={"t0": 0.1, "t1": 1.9})


def entries(ledger: Ledger) -> list[Entry]:
    return [held.entry for held in ledger.held()]


def test_a_run_that_goes_on_unchanged_writes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    (first,) = ledger.go_on(change(0), None)
    body = ledger.path.read_bytes()
    assert ledger.go_on(change(0), None) == [first]
    assert ledger.go_on(change(40), first.digest) == [first]
    assert ledger.path.read_bytes() == body
    assert task_names(entries(ledger)) == ["t0", "t1"]


def test_going_on_from_a_checkpoint_takes_back_what_came_after_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    head = ledger.go_on(change(0), None)[-1].digest
    at_four = ledger.append(update(4))
    ledger.append(update(8))
    # Killed after a checkpoint at 6: what was decided at 8 will be decided again.
    assert [one.entry for one in ledger.go_on(change(6), at_four)] == [change(0), update(4)]
    ledger.append(update(8))
    changed = change(10, rate=3.0, streams=({"draws": 5, "taken": [2, 3]},))
    last = ledger.go_on(changed, ledger.held()[-1].digest)[-1]
    assert entries(ledger) == [change(0), update(4), update(8), changed]
    # The same launch again says nothing new; another change from the same checkpoint replaces it.
    assert ledger.go_on(changed, ledger.held()[-2].digest)[-1] == last
    other = change(10, rate=7.0)
    assert [one.entry for one in ledger.go_on(other, ledger.held()[-2].digest)] == [
        change(0),
        update(4),
        update(8),
        other,
    ]
    # What a checkpoint stands on is found, whatever was taken back since.
    assert [one.entry for one in ledger.held(last.digest)] == [change(0), update(4), update(8), changed]
    assert [one.entry for one in ledger.go_on(change(0, rate=9.0), None)] == [change(0, rate=9.0)]
    with pytest.raises(IntegrityError, match="stands on an entry that was taken back"):
        ledger.go_on(change(4), at_four)
    assert ledger.held(head)[-1].entry == change(0)


@given(cut=st.integers(0, 4000), data=st.data())
@settings(max_examples=40)
def test_a_kill_in_mid_line_loses_that_line_only(
    tmp_path_factory: pytest.TempPathFactory, cut: int, data: st.DataObject
) -> None:
    ledger = Ledger(tmp_path_factory.mktemp("run"))
    written = [change(0), update(3), change(5, rate=2.0), update(9)]
    for entry in written:
        ledger.append(entry)
    whole = ledger.path.read_bytes()
    cut = cut % (len(whole) + 1)
    ledger.path.write_bytes(whole[:cut])
    left, ledger = whole[:cut].count(b"\n"), Ledger(ledger.path.parent)
    assert entries(ledger) == written[:left]
    for entry in written[left:]:
        ledger.append(entry)
    assert ledger.path.read_bytes() == whole


def test_a_ledger_that_was_tampered_with_is_noticed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for entry in (change(0), update(3), update(6)):
        ledger.append(entry)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    ledger.path.write_bytes(lines[0] + lines[2])
    with pytest.raises(IntegrityError, match=r"ledger.jsonl:2: does not follow"):
        Ledger(tmp_path).held()
    body = json.loads(lines[1])
    body["weights"]["t0"] = 5.0
    ledger.path.write_bytes(lines[0] + json.dumps(body).encode() + b"\n" + lines[2])
    with pytest.raises(IntegrityError, match=r"ledger.jsonl:3: does not follow"):
        Ledger(tmp_path).held()
    ledger.path.write_bytes(b"[1]\n")
    with pytest.raises(IntegrityError, match=r"ledger.jsonl:1: not an entry"):
        Ledger(tmp_path).held()
    with pytest.raises(IntegrityError, match="there is no entry aaaa"):
        Ledger(tmp_path / "elsewhere").held("aaaa")
