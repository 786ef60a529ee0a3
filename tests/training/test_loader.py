"""The loader: batches say what was planned, whoever asks; nothing is lost at a resume; failures come to the surface."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.s3 import s3_server

from omnimill.errors import ConfigError, IntegrityError, OmnimillError
from omnimill.infra import storage
from omnimill.infra.ranges import RangeReader
from omnimill.mixtures.config import Mixture, Task
from omnimill.mixtures.course import new_course
from omnimill.mixtures.shard_files import open_shard
from omnimill.training.loading.batch import EncoderModality, Frames, PackedBatch
from omnimill.training.loading.collate import collate
from omnimill.training.loading.loader import Loader, merge_states
from omnimill.training.loading.settings import LoaderSettings
from omnimill.training.packing.settings import PackingSettings
from omnimill.training.planning.lengths import Budgets
from omnimill.training.planning.planner import PackedSequence, VirtualStreams
from omnimill.training.rendering.settings import RenderSettings

RENDER = RenderSettings(max_text=96, max_target_text=64, image_latents=4, audio_latents=2)
BUDGETS = Budgets(encoder=200, decoder=160, images=3, image_history=6, audio=6)
PACKING = PackingSettings(budgets=BUDGETS, pool=6)


def open_loader(data: Any, mixture: Mixture, **how: Any) -> Loader:
    return Loader(new_course(data.root, mixture, 4), data.text, packing=PACKING, render=RENDER, **how)


def equal(one: PackedBatch | Frames | None, other: PackedBatch | Frames | None) -> bool:
    if one is None or other is None:
        return one is other
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else equal(a, b)
        if not same:
            return False
    return True


def take(loader: Loader, steps: int) -> list[tuple[int, PackedBatch, list[PackedSequence]]]:
    with loader:
        return [next(loader) for _ in range(steps)]


def test_one_worker_and_two_see_the_same_sequences_in_the_same_order(token_data: Any, mixture: Mixture) -> None:
    alone = take(open_loader(token_data, mixture), 4)
    halves = [take(open_loader(token_data, mixture, rank=rank, world=2), 4) for rank in range(2)]
    for step in range(4):
        number, batch, sequences = alone[step]
        assert number == step
        assert [sequence.stream for sequence in sequences] == [0, 1, 2, 3]
        for rank in range(2):
            same, part, some = halves[rank][step]
            assert same == step
            assert some == sequences[rank::2]
            for field in ("decoder_ids", "decoder_targets", "decoder_position", "encoder_segment", "decoder_task"):
                assert torch.equal(getattr(part, field), getattr(batch, field)[rank::2])


def test_resuming_equals_going_on_with_any_number_of_workers(token_data: Any, mixture: Mixture) -> None:
    whole = take(open_loader(token_data, mixture), 5)
    states = []
    for rank in range(2):
        with open_loader(token_data, mixture, rank=rank, world=2) as loader:
            for _ in range(3):
                next(loader)
            states.append(json.loads(json.dumps(loader.state_dict())))
    state = merge_states(states)
    assert list(state["streams"]) == ["0", "1", "2", "3"]
    for got, wanted in zip(take(open_loader(token_data, mixture, state=state), 2), whole[3:], strict=True):
        assert (got[0], got[2]) == (wanted[0], wanted[2])
        assert equal(got[1], wanted[1])
    for rank in range(3):
        for got, wanted in zip(
            take(open_loader(token_data, mixture, rank=rank, world=3, state=state), 2), whole[3:], strict=True
        ):
            assert got[2] == wanted[2][rank::3]


def test_a_state_counts_what_was_handed_out_not_what_was_read_ahead(token_data: Any, mixture: Mixture) -> None:
    with open_loader(token_data, mixture, settings=LoaderSettings(ahead=3)) as loader:
        assert {state["step"] for state in loader.state_dict()["streams"].values()} == {0}
        next(loader)
        next(loader)
        assert {state["step"] for state in loader.state_dict()["streams"].values()} == {2}


def test_read_ahead_and_threads_change_nothing(token_data: Any, mixture: Mixture) -> None:
    slow = take(open_loader(token_data, mixture, settings=LoaderSettings(ahead=1, plan_ahead=1, threads=1)), 4)
    fast = take(open_loader(token_data, mixture, settings=LoaderSettings(ahead=4, plan_ahead=9, threads=4)), 4)
    assert all(equal(a[1], b[1]) and a[2] == b[2] for a, b in zip(slow, fast, strict=True))


def test_batches_hold_what_was_planned(token_data: Any, mixture: Mixture) -> None:
    for _, batch, sequences in take(open_loader(token_data, mixture), 5):
        assert batch.encoder_segment.shape == (4, BUDGETS.encoder)
        assert batch.decoder_ids.shape == (4, BUDGETS.decoder)
        for row, sequence in enumerate(sequences):
            lengths = [item.lengths for item in sequence.items]
            for segment, used in (
                (batch.encoder_segment[row], [one.encoder for one in lengths]),
                (batch.decoder_segment[row], [one.decoder for one in lengths]),
            ):
                pad = len(segment) - sum(used)
                wanted = [number for number, count in enumerate(used, 1) for _ in range(count)] + [0] * pad
                assert segment.tolist() == wanted
            task = [item.task for item in sequence.items for _ in range(item.lengths.decoder)]
            assert batch.decoder_task[row].tolist() == task + [-1] * (BUDGETS.decoder - len(task))
        padding = batch.decoder_segment == 0
        assert not batch.decoder_loss[padding].any()
        assert not batch.decoder_hidden[padding].any()
        _check_slots(batch)


def _check_slots(batch: PackedBatch) -> None:
    """Every used encoder slot is filled exactly once, by a token of its own modality."""
    kinds = {
        EncoderModality.IMAGE: batch.image,
        EncoderModality.IMAGE_HISTORY: batch.image_history,
        EncoderModality.AUDIO: batch.audio,
        EncoderModality.AUDIO_HISTORY: batch.audio_history,
    }
    slots, modality = [batch.text_slot], [torch.zeros_like(batch.text_slot)]
    for stream, frames in kinds.items():
        if frames is None:
            continue
        filled = frames.slot[frames.slot >= 0]
        slots.append(filled)
        modality.append(torch.full_like(filled, stream))
        if stream in (EncoderModality.IMAGE, EncoderModality.AUDIO):
            assert torch.equal(frames.slot >= 0, frames.valid)
            assert not frames.frame.any()
        else:
            # Latents of frame f sit at positions (f, 0), (f, 1), …
            positions = batch.encoder_position.reshape(-1, 2)[frames.slot]
            assert torch.equal(positions[:, :, 0], frames.frame[:, None].expand(-1, frames.slot.shape[1]).float())
            assert torch.equal(
                positions[:, :, 1], torch.arange(frames.slot.shape[1]).expand(len(frames.slot), -1).float()
            )
        assert not frames.patches[~frames.valid].any()
    used = torch.cat(slots)
    assert len(used.unique()) == len(used)
    assert torch.equal(used.sort().values, torch.nonzero(batch.encoder_segment.reshape(-1)).reshape(-1))
    assert torch.equal(batch.encoder_modality.reshape(-1)[used], torch.cat(modality))


@pytest.fixture(scope="module")
def streams(token_data: Any, mixture: Mixture) -> VirtualStreams:
    return VirtualStreams(new_course(token_data.root, mixture, 1), token_data.text, packing=PACKING, render=RENDER)


def test_a_sequence_beyond_its_budget_is_not_cut_in_silence(streams: VirtualStreams) -> None:
    item = next(streams.planner([0]))[0].items[0]
    example = streams.renderer.render(item.task, streams.rows[item.task].fetch(item.row), item.epoch)
    with pytest.raises(OmnimillError, match="decoder slots, its budget is 1"):
        collate([[example]], BUDGETS.model_copy(update={"decoder": 1}))


def test_streams_that_an_example_lacks_take_no_slots(streams: VirtualStreams, mixture: Mixture) -> None:
    """A task may name inputs that an example given for generation does not have."""
    watch = [task.name for task in mixture.tasks].index("watch")
    row = streams.rows[watch].fetch(0)
    media = ("image_patches", "history_patches", "image_data", "audio_patches", "audio_data")
    bare = replace(row, **{name: [] for name in media})
    example = streams.renderer.render(watch, bare, 0)
    assert len(example.modality) == len(example.text)
    batch = collate([[example]], BUDGETS)
    assert (batch.image, batch.image_history, batch.audio, batch.audio_history) == (None,) * 4
    _check_slots(batch)


@pytest.mark.parametrize("damage", ["image", "length"])
def test_what_fails_in_the_background_names_the_example_and_shard(
    damage: str,
    tmp_path: Path,
    token_data: Any,
    store_tokens: Callable[..., Any],
) -> None:
    rows = [dict(row) for row in token_data.rows["photos"][:4]]
    if damage == "image":
        rows[2]["image_data"] = [b"\xff\xd8 cut short"]
    else:
        rows[2]["image_patches"] = [rows[2]["image_patches"][0] - 1]
    store_tokens(str(tmp_path), {"photos": rows}, token_data.layout)
    task = Task(name="caption", rate=1, sources=("photos",), inputs=("image",), target="text:caption")
    course = new_course(str(tmp_path), Mixture(datasets=("tokens",), tasks=(task,)), 1)
    loader = Loader(course, token_data.text, packing=PACKING, render=RENDER)
    with loader:
        for _ in range(2):
            with pytest.raises(IntegrityError, match=r"task 'caption', example \w{32} in .*shards.*\.arrow"):
                for _ in range(10):
                    next(loader)


def test_closing_ends_the_background_work_and_the_iteration(token_data: Any, mixture: Mixture) -> None:
    before = threading.active_count()
    with open_loader(token_data, mixture, settings=LoaderSettings(ahead=3)) as loader:
        next(loader)
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert list(loader) == []
    open_loader(token_data, mixture).close()


def test_steps_without_rates_are_waited_for_and_hold_up_no_step_before_them(token_data: Any, mixture: Mixture) -> None:
    wanted = take(open_loader(token_data, mixture), 7)
    for settings in (LoaderSettings(ahead=6, plan_ahead=9), LoaderSettings(ahead=1, plan_ahead=1)):
        with open_loader(token_data, mixture, settings=settings) as loader:
            found = []
            for horizon in (2, 3, 7):
                loader.expect(horizon)
                found += [next(loader) for _ in range(horizon - len(found))]
            assert [one[2] for one in found] == [one[2] for one in wanted]
            # Closing does not wait for what is not decided.


def test_what_cannot_be_served_is_refused(token_data: Any, mixture: Mixture) -> None:
    with pytest.raises(ConfigError, match="4 streams cannot be shared by 5 workers"):
        open_loader(token_data, mixture, world=5)
    with open_loader(token_data, mixture, world=2, rank=1) as loader:
        state = loader.state_dict()
    with pytest.raises(ConfigError, match="lacks stream 0; it holds 1, 3"):
        open_loader(token_data, mixture, state=state)
    with pytest.raises(ConfigError, match="another order of examples"):
        open_loader(token_data, mixture.model_copy(update={"seed": 9}), state=state)
    with open_loader(token_data, mixture, world=2, rank=0) as other:
        next(other)
        with pytest.raises(IntegrityError, match=r"steps \[0, 1\]"):
            merge_states([state, other.state_dict()])


@pytest.fixture(scope="module")
def bucket(token_data: Any) -> Iterator[str]:
    """The token dataset on a local S3 server."""
    root = Path(token_data.root)
    with s3_server():
        for path in (root / "tokens").rglob("*.[aj]*"):
            url = storage.join("s3://bucket/root", path.relative_to(root).as_posix())
            storage.publish_bytes(url, path.read_bytes())
        yield "s3://bucket/root"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes that were read of remote shards, by their names."""
    found: Counter[str] = Counter()
    plain = RangeReader.get

    def counted(reader: RangeReader, start: int, stop: int) -> bytes:
        found[reader._url.rpartition("/")[2]] += stop - start
        return plain(reader, start, stop)

    monkeypatch.setattr(RangeReader, "get", counted)
    return found


def test_from_a_bucket_come_the_same_batches_and_no_shard_comes_twice(
    bucket: str, token_data: Any, mixture: Mixture, tmp_path: Path, read: Counter[str]
) -> None:
    wanted = take(open_loader(token_data, mixture), 4)
    course, copies = new_course(bucket, mixture, 4), tmp_path / "copies"

    def same(rank: int, world: int, **settings: Any) -> bool:
        """Whether a worker's batches are its part of those of a local root."""
        chosen = LoaderSettings(cache_folder=copies, **settings)
        with Loader(
            course, token_data.text, packing=PACKING, render=RENDER, rank=rank, world=world, settings=chosen
        ) as loader:
            steps = [next(loader) for _ in wanted]
        same_order = all(got[2] == one[2][rank::world] for got, one in zip(steps, wanted, strict=True))
        return same_order and (world > 1 or all(equal(got[1], one[1]) for got, one in zip(steps, wanted, strict=True)))

    read.clear()
    assert same(0, 1)
    sizes = {path.name: path.stat().st_size for path in copies.glob("*.arrow")}
    assert sizes
    # Once whole, and in small pieces what says how long its rows are.
    assert all(size <= read[name] <= size + 3 * 65_536 for name, size in sizes.items())
    # Other workers of the machine find the copies, and the lengths are still known.
    read.clear()
    assert same(0, 2)
    assert same(1, 2)
    assert not read.keys() & sizes.keys()
    # Where there is no room, and where no copies are kept, rows are read from the store.
    assert same(0, 1, cache_gib=1e-9)
    assert same(0, 1, cache_gib=0)
    assert read.keys() & sizes.keys()


def test_planning_from_a_bucket_reads_lengths_alone(
    bucket: str, token_data: Any, mixture: Mixture, read: Counter[str]
) -> None:
    open_shard.cache_clear()
    course = new_course(bucket, mixture, 2)
    streams = VirtualStreams(course, token_data.text, packing=PACKING, render=RENDER)
    next(streams.planner([0, 1]))
    size = sum(ref.bytes for commit in token_data.manifest.commits for ref in commit.shards)
    assert 0 < sum(read.values()) < size / 4


def test_the_room_loads_without_ray_and_mlflow() -> None:
    program = (
        "import sys, omnimill.training.loading.loader, omnimill.training.loading.collate\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'ray', 'mlflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
