"""The doctor says what is wrong with a machine before the work does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from omnimill.cli.main import main
from omnimill.infra import doctor
from omnimill.infra.doctor import Finding, examine
from omnimill.infra.runs_folder import RUNS


def findings(root: str) -> dict[str, Finding]:
    return {one.check: one for one in examine(root)}


def test_a_fit_machine_has_nothing_bad_and_nothing_is_left_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert main(["doctor", "--root", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["verdict"] for one in found} <= {"good", "doubtful"}
    assert all(one["advice"] for one in found if one["verdict"] != "good")
    assert not list(tmp_path.glob(".doctor-*"))


def test_what_will_not_work_is_bad_and_has_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    found = findings(str(tmp_path / "file" / "root"))
    for check in ("root", "runs", "MLflow"):
        assert found[check].verdict == "bad"
        assert found[check].advice
    monkeypatch.setattr("omnimill.infra.doctor.metadata.requires", lambda _: ["numpy<1", "no-such-package>=2"])
    assert findings(str(tmp_path))["packages"].found.startswith("numpy is ")
    assert "no-such-package is missing" in findings(str(tmp_path))["packages"].found


def test_runs_of_a_bucket_need_a_folder_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUNS, raising=False)
    assert doctor._runs("memory://bucket/corpus").verdict == "doubtful"
    monkeypatch.setenv(RUNS, str(tmp_path / "runs"))
    assert doctor._runs("memory://bucket/corpus").verdict == "good"
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_wrong_clock_shows_by_a_server_s_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Late(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            self.send_header("Date", "Sat, 01 Jan 2000 00:00:00 GMT")
            self.end_headers()

    server = HTTPServer(("127.0.0.1", 0), Late)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    clock = findings(str(tmp_path))["clock"]
    server.shutdown()
    assert clock.verdict == "bad"
    assert "ahead of" in clock.found
