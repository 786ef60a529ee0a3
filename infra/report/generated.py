"""What ``omnimill generate`` wrote, as far as the files are still there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from mlflow.entities import Run

from omnimill.infra import lineage, storage
from omnimill.infra.dataset import Dataset
from omnimill.infra.lineage import COMMAND_TAG
from omnimill.infra.report.media import data_url, thumbnail
from omnimill.infra.report.samples import TEXT_CHARACTERS, Picture, Sample, shorten

# The newest ones.
_MOST = 40


def generated(runs: Sequence[Run]) -> list[Sample]:
    """Single files as what they are; of a file of requests, how many answers there are and where."""
    written = [
        (run, reference)
        for run in runs
        if run.data.tags.get(COMMAND_TAG) == "generate"
        for reference in lineage.references(run, "output")
    ]
    found = []
    for run, reference in written[-_MOST:]:
        if storage.exists(storage.join(reference.url, "manifest.json")):
            found.append(_answers(run, reference))
        elif storage.exists(reference.url):
            found.append(_file(run, reference.url))
    return found


def _answers(run: Run, reference: lineage.Reference) -> Sample:
    _, manifest = Dataset(*reference.url.rstrip("/").rsplit("/", 1)).manifest()
    told = f"{manifest.rows:,} answers to requests of a file"
    return Sample(id=run.info.run_id, key=reference.url, text=[("answers", told)])


def _file(run: Run, url: str) -> Sample:
    suffix = PurePosixPath(url).suffix
    prompt = run.data.tags.get("omnimill.prompt", "")
    text, data = [("prompt", prompt)], storage.read_bytes(url)
    if suffix == ".png":
        picture = Picture(thumbnail(data), f"drawn by the model for: {shorten(prompt, 120)}", "drawn")
        return Sample(id=run.info.run_id, key=url, text=text, images=[picture])
    if suffix == ".wav":
        return Sample(id=run.info.run_id, key=url, text=text, audio=[(data_url(data, "audio/wav"), "sounded")])
    written = data[: 4 * TEXT_CHARACTERS].decode(errors="replace")
    return Sample(id=run.info.run_id, key=url, text=[*text, ("written", shorten(written))])
