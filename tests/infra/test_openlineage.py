"""Events as a receiver gets them, over HTTP; and what becomes of them when it does not."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from omnimill.infra import lineage, outbox
from omnimill.infra.lineage import About
from omnimill.infra.openlineage import configured


class Events:
    """A receiver of events. answer: the status that it gives."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.answer = 200


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Events]:
    found = Events()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if found.answer == 200:
                found.events.append(json.loads(body))
            self.send_response(found.answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    transport = {"type": "http", "url": f"http://127.0.0.1:{server.server_port}", "retry": {"total": 0}}
    configuration = tmp_path / "transport.json"
    configuration.write_text(json.dumps({"transport": transport}))
    monkeypatch.setenv("OPENLINEAGE_CONFIG", str(configuration))
    monkeypatch.setattr(outbox, "PATIENCE", 0.0)
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def root(tmp_path: Path, empty_tracking_store: Path) -> str:
    (tmp_path / "mlflow.db").write_bytes(empty_tracking_store.read_bytes())
    return str(tmp_path)


def test_a_command_and_its_part_tell_what_they_read_and_wrote(receiver: Events, root: str) -> None:
    files = About(bytes=7, files=2, licences={"photos": "CC-BY-4.0"})
    made = About(3, 100, 1, [("id", "string"), ("text_ids", "list")], {"photos": None}, {"id": [(f"{root}/a", "id")]})
    with lineage.command_run(root, "ingest", {}, "ingest pictures") as run:
        with lineage.command_run(root, "ingest source", {}, "photos of pictures") as part:
            part.input("photos", "f" * 64, "s3://bucket/in/photos", files)
        run.output("pictures", "d" * 64, f"{root}/pictures", made)
    outer, inner, inner_end, outer_end = receiver.events
    assert [one["eventType"] for one in receiver.events] == ["START", "START", "COMPLETE", "COMPLETE"]
    assert outer["job"]["name"] == "ingest pictures"
    assert inner["run"]["facets"]["parent"]["run"]["runId"] == outer["run"]["runId"] == outer_end["run"]["runId"]
    assert outer["run"]["facets"]["tags"]["tags"][0]["value"] == run.id
    (read,), (wrote,) = inner_end["inputs"], outer_end["outputs"]
    assert (read["namespace"], read["name"]) == ("s3://bucket", "in/photos")
    assert read["facets"]["version"]["datasetVersion"] == "f" * 64
    assert [(tag["key"], tag["value"]) for tag in read["facets"]["tags"]["tags"]] == [("licence.photos", "CC-BY-4.0")]
    assert (wrote["namespace"], wrote["name"]) == ("file", f"{root}/pictures")
    assert [one["name"] for one in wrote["facets"]["schema"]["fields"]] == ["id", "text_ids"]
    (field,) = wrote["facets"]["columnLineage"]["fields"]["id"]["inputFields"]
    assert (field["namespace"], field["name"], field["field"]) == ("file", f"{root}/a", "id")
    counted = wrote["outputFacets"]["outputStatistics"]
    assert (counted["rowCount"], counted["size"], counted["fileCount"]) == (3, 100, 1)
    assert wrote["facets"]["ownership"]["owners"]


def test_a_failure_is_told_with_its_message(receiver: Events, root: str) -> None:
    with pytest.raises(ZeroDivisionError), lineage.command_run(root, "report", {}):
        _ = 1 / 0
    assert receiver.events[-1]["eventType"] == "FAIL"
    assert "ZeroDivisionError" in receiver.events[-1]["run"]["facets"]["errorMessage"]["message"]
    with pytest.raises(KeyboardInterrupt), lineage.command_run(root, "report", {}):
        raise KeyboardInterrupt
    assert receiver.events[-1]["eventType"] == "ABORT"


def test_a_receiver_that_refuses_or_is_away_stops_nothing(
    receiver: Events, root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answer = 422
    with lineage.command_run(root, "report", {}):
        pass
    assert "refused an event" in capsys.readouterr().err
    receiver.answer = 500
    with lineage.command_run(root, "report", {}, "first"):
        pass
    assert [run.info.status for run in lineage.runs(root)] == ["FINISHED"] * 2
    receiver.answer = 200
    with lineage.command_run(root, "report", {}, "second"):
        pass
    told = [(one["eventType"], one["job"]["name"]) for one in receiver.events]
    assert told == [(kind, f"report {name}") for name in ("first", "second") for kind in ("START", "COMPLETE")]


def test_nothing_is_sent_unless_it_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not configured()
    (tmp_path / "openlineage.yml").write_text("transport: {type: console}\n")
    assert configured()
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert not configured()
