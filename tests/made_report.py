"""A dataset of every kind of content and a training run, for the report to show."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
from blake3 import blake3
from markupsafe import Markup
from mlflow.entities import Run
from PIL import Image as Pillow

from omnimill.infra.dataset import DROPS_SCHEMA, QUARANTINE_SCHEMA, Commit, Counts, Dataset, InputRef
from omnimill.infra.lineage import command_run
from omnimill.infra.report import charts
from omnimill.infra.report.mixtures import MixtureCard, MixtureSource, MixtureTask
from omnimill.infra.selections import Selection, publish_left_out, publish_selection
from omnimill.schema import (
    Annotation,
    Audio,
    Example,
    Image,
    Meta,
    Provenance,
    Text,
    Trajectory,
    Video,
    example_id,
    to_table,
)

# A word that no line of a phone can hold, and markup that must stay text.
LONG = "Donaudampfschifffahrtselektrizitaetenhauptbetriebswerkbauunterbeamtengesellschaft" * 3
HOSTILE = "</div><script>document.title = 'taken over'</script><img src=x onerror=alert(1)>"


def picture(shade: int, width: int = 90, height: int = 60) -> Image:
    stream = io.BytesIO()
    ramp = np.linspace(shade, 255 - shade, width).astype(np.uint8)
    Pillow.fromarray(np.broadcast_to(ramp[None, :, None], (height, width, 3)).copy()).save(stream, "PNG")
    data = stream.getvalue()
    return Image(data=data, format="png", width=width, height=height, digest=blake3(data).hexdigest())


def clip(seconds: float, start: float | None = None) -> Audio:
    rate = 16_000
    waveform = 0.2 * np.sin(2 * math.pi * 440 * np.arange(int(rate * seconds)) / rate)
    stream = io.BytesIO()
    soundfile.write(stream, waveform.astype(np.float32), rate, format="FLAC")
    data = stream.getvalue()
    digest = blake3(data).hexdigest()
    return Audio(
        data=data, format="flac", sample_rate=rate, channels=1, samples=len(waveform), digest=digest, start=start
    )


def example(source: str, key: str, *texts: Text, **content: object) -> Example:
    digest = blake3(key.encode()).hexdigest()
    return Example(
        id=example_id(source, key, digest),
        source=source,
        unit="u",
        key=key,
        provenance=Provenance(uri=f"/data/{source}.tar", digest=digest),
        text=list(texts),
        **content,  # type: ignore[arg-type]
    )


def corpus() -> dict[str, list[Example]]:
    photos = [
        example(
            "photos",
            f"photo-{i}",
            Text(role="caption", text=f"ramp number {i}", image=0),
            images=[picture(10 * i)],
            annotations=[Annotation(kind="box", image=0, label="a ramp", box=[0.1, 0.2, 0.8, 0.9])],
            meta=Meta(licence="CC-BY-4.0", language="en", scores={"aesthetic": i / 6}, tags={"split": "train"}),
        )
        for i in range(6)
    ]
    pages = [
        example(
            "pages", f"{LONG}-{i}", Text(role="body", text=f"{HOSTILE} {LONG} مرحبا بالعالم"), meta=Meta(language="de")
        )
        for i in range(3)
    ]
    sounds = [example("sounds", f"sound-{i}", audio=[clip(0.6)]) for i in range(2)]
    films = [
        example(
            "films",
            f"film-{i}",
            *(
                Text(role="transcript", text=f"line {k} & more", image=k, audio=k, start=50 + 5.0 * k, end=54 + 5.0 * k)
                for k in range(3)
            ),
            images=[_timed(picture(40 * k), 52 + 5.0 * k) for k in range(3)],
            audio=[clip(5.0, start=50 + 5.0 * k) for k in range(3)],
            video=Video(
                uri="/data/film.mp4",
                digest="0" * 64,
                width=90,
                height=60,
                seconds=60.0,
                frame_rate=25.0,
                segment_seconds=5.0,
                first_segment=10,
                segments=3,
            ),
        )
        for i in range(2)
    ]
    robot = [
        example(
            "robot",
            "episode-0",
            Text(role="instruction", text="put the block away"),
            images=[picture(20 * k, 64, 64) for k in range(5)],
            trajectory=Trajectory(
                episode="0",
                first_step=0,
                steps_per_second=5.0,
                state_names=["x"],
                action_names=["dx"],
                states=[[0.0]] * 5,
                actions=[[0.1]] * 5,
                step_images=list(range(5)),
            ),
        )
    ]
    return {"photos": photos, "pages": pages, "sounds": sounds, "films": films, "robot": robot}


def _timed(image: Image, time: float) -> Image:
    image.time = time
    return image


def publish_corpus(root: Path) -> tuple[Dataset, str]:
    """The corpus, one unit a source; of the photos one was dropped, one quarantined, and a selection leaves two out."""
    dataset = Dataset(str(root), "corpus")
    commits = []
    for source, rows in corpus().items():
        lost = source == "photos"
        where = {"source": source, "unit": source, "uri": f"/data/{source}.tar"}
        drops = pa.Table.from_pylist(
            [{**where, "key": "icon", "level": "record", "operator": "min_side", "reason": "image_too_small"}],
            DROPS_SCHEMA,
        )
        bad = {"key": "cut-off", "operator": "decode", "reason": "image_truncated", "message": "ends early", "tries": 1}
        quarantine = pa.Table.from_pylist([{**where, **bad}], QUARANTINE_SCHEMA)
        commits.append(
            Commit(
                unit=source,
                source=source,
                recipe="r",
                inputs=(InputRef(uri=f"/data/{source}.tar", digest=blake3(source.encode()).hexdigest(), bytes=10_000),),
                shards=(dataset.publish_shard(to_table(rows)),),
                drops=dataset.publish_rejected(drops, "drops") if lost else None,
                quarantine=dataset.publish_rejected(quarantine, "quarantine") if lost else None,
                counts=Counts(
                    records_in=len(rows) + 2 * lost,
                    kept=len(rows),
                    records_dropped={"image_too_small": 1} if lost else {},
                    quarantined={"image_truncated": 1} if lost else {},
                    examples_written=len(rows),
                ),
            )
        )
    with command_run(str(root), "ingest", {}) as run:
        digest, _ = dataset.publish_manifest("examples", commits)
        run.output("corpus", digest, dataset.url)
    photos = corpus()["photos"]
    left_out = [
        {"row": i, "id": photos[i].id, "step": "near", "reason": "near_duplicate", "twin": photos[0].id, "score": 0.9}
        for i in (1, 2)
    ]
    part = publish_left_out(dataset, commits[0].shards[0].digest, left_out)
    kept = sum(map(len, corpus().values())) - 2
    publish_selection(
        dataset, Selection(name="clean", dataset="corpus", manifest=digest, config={}, kept=kept, shards=(part,))
    )
    return dataset, digest


def record_run(root: Path, digest: str) -> None:
    """A training run of two tasks, with everything that is logged of one."""
    mixture = {"tasks": [{"name": "caption", "group": "pictures/captions"}, {"name": "denoise", "group": "text"}]}
    with command_run(str(root), "train", {}, "first") as run:
        run.input("corpus", digest, f"{root}/corpus")
        run.json(mixture, "mixture.json")
        run.metrics({"planned_rate/caption": 0.75, "planned_rate/denoise": 0.25})
        for step in range(5):
            values = {
                "loss": 5 - step / 2,
                "loss/text": 5 - step / 2,
                "loss/image": 6 - step / 3,
                "loss/task/caption": 4 - step / 2,
                "loss/task/denoise": 6 - step / 2,
                "realised_rate/caption": 0.75 + 0.01 / (step + 1),
                "realised_rate/denoise": 0.25 - 0.01 / (step + 1),
                "grad_norm": 1.0,
                "learning_rate": 0.001 * step,
                "padding_share/encoder": 0.02,
                "padding_share/decoder": 0.03,
                "attention_logit/encoder": 10.0 + step,
                "tokens_per_second": 1000.0 + step,
                "data_wait_share": 0.01,
                "flops_per_second": 1e9,
            }
            if step == 4:
                values |= {
                    "evaluation/loss": 3.2,
                    "evaluation/loss/task/held-out": 3.3,
                    "evaluation/held-out/accuracy": 0.5,
                }
            run.metrics(values, step)
        run.output("first/step-00000005", "a" * 64, f"{root}/runs/first/checkpoints/step-00000005")


def record_generated(root: Path) -> None:
    """A text and a picture that were generated, and the answers to a file of requests."""
    (root / "text.txt").write_text(f"{HOSTILE} written")
    (root / "image.png").write_bytes(picture(30).data)
    answers, _ = Dataset(str(root), "answers").publish_manifest("answers", [])
    with command_run(str(root), "generate", {}) as run:
        run.tags({"omnimill.prompt": "a ramp"})
        run.output("text", "c" * 64, str(root / "text.txt"))
        run.output("image", "d" * 64, str(root / "image.png"))
        run.output("gone", "e" * 64, str(root / "gone.png"))
        run.output("answers", answers, str(root / "answers"))


def mixture_card(run: Run) -> MixtureCard:
    tasks = [
        MixtureTask("caption", "pictures", "image", "text", 0.75, 0.751, 0.752, 6, 2.5, 4.0, 80.0, 0.8),
        MixtureTask("denoise", "text", "text", "text", 0.25, 0.249, 0.248, 3, 1.5, None, 60.0, 0.2),
    ]
    return MixtureCard(
        name=run.info.run_name or "",
        digest="b" * 64,
        facts=[("datasets", "corpus")],
        basis="Of all 5 steps.",
        tasks=tasks,
        sources=[MixtureSource("photos", 6, 15, 2.5)],
        charts=[charts.stacked_bars("Tokens by modality", {"reads": {"text": 5.0, "image": 9.0}}, "tokens")],
        rendered=Markup("<p>rendered</p>"),
    )
