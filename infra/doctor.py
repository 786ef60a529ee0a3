"""Is this machine fit for the work? Every check says what it found and, where something is wrong, what to do."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

import imageio_ffmpeg
import psutil
import ray
import requests
import torch
from packaging.requirements import Requirement

from omnimill.errors import ConfigError, OmnimillError
from omnimill.infra import lineage, storage
from omnimill.infra.runs_folder import RUNS, runs_folder

Verdict = Literal["good", "doubtful", "bad"]

_OPEN_FILES = 8192  # Ray's own advice is 65536; below this its workers were seen to fail
_DISK_BYTES = 50 << 30
_CLOCK_SECONDS = 30.0  # signed requests to S3 are refused from 15 minutes on; logs cannot be compared long before
_TIMEOUT = 10.0


@dataclass(frozen=True)
class Finding:
    """One check's answer. advice: what to do; empty when all is well."""

    check: str
    verdict: Verdict
    found: str
    advice: str = ""


def examine(root: str) -> Iterator[Finding]:
    """All checks, one after the other; none of them raises.

    Args:
        root: where the work is to be done; a small file is written there, read and deleted.
    """
    checks: list[Callable[[], Finding]] = [
        _python,
        _packages,
        _cores_and_memory,
        _gpus,
        _ffmpeg,
        _open_files,
        lambda: _disk("disk for scratch and spilled objects", os.environ.get("RAY_TMPDIR", "/tmp")),  # noqa: S108
        _object_store,
        lambda: _root(root),
        lambda: _runs(root),
        lambda: _clock(root),
        lambda: _mlflow(root),
        _ray,
    ]
    if storage.is_local(root):
        checks.insert(7, lambda: _disk("disk of the root", root))
    for check in checks:
        yield check()


def _python() -> Finding:
    return Finding("Python", "good", f"{platform.python_version()} on {platform.platform()}")


def _packages() -> Finding:
    wrong = []
    for line in metadata.requires("omnimill") or ():
        needed = Requirement(line)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(needed.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} is {version}, needed is {needed.specifier}")
    if wrong:
        return Finding("packages", "bad", "; ".join(wrong), "install them: pip install -c constraints.txt -e .")
    names = ("omnimill", "ray", "torch", "pyarrow", "mlflow")
    return Finding("packages", "good", ", ".join(f"{name} {metadata.version(name)}" for name in names))


def _cores_and_memory() -> Finding:
    memory = psutil.virtual_memory()
    found = f"{os.cpu_count()} cores, {memory.total / 2**30:.0f} GiB, of which {memory.available / 2**30:.0f} are free"
    if memory.available < memory.total / 4:
        return Finding("cores and memory", "doubtful", found, "end other programs, or give Ray fewer cores (--cpus)")
    return Finding("cores and memory", "good", found)


def _gpus() -> Finding:
    driver = shutil.which("nvidia-smi")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        found = f"{len(names)}: {', '.join(sorted(set(names)))}; PyTorch is made for CUDA {torch.version.cuda}"
        if not torch.cuda.is_bf16_supported():
            return Finding("GPUs", "doubtful", found, "no bfloat16: train with `precision: float32`")
        return Finding("GPUs", "good", found)
    if driver is None:
        return Finding(
            "GPUs", "good", "none, and none is needed: everything runs on the CPU, slowly where networks are"
        )
    return Finding(
        "GPUs",
        "bad",
        f"{driver} is here, but PyTorch {torch.__version__} sees none",
        "install a PyTorch with CUDA that this driver can run; in a container, start it with --gpus all",
    )


def _ffmpeg() -> Finding:
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        said = subprocess.run(
            [program, "-hide_banner", "-decoders"], capture_output=True, text=True, timeout=_TIMEOUT, check=True
        )
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", "bad", str(error), "install imageio-ffmpeg's wheel, or set IMAGEIO_FFMPEG_EXE")
    missing = [name for name in ("h264", "hevc", "vp9", "av1", "aac", "opus") if f" {name} " not in said.stdout]
    if missing:
        advice = "films of these kinds will be quarantined; set IMAGEIO_FFMPEG_EXE to a fuller build"
        return Finding("ffmpeg", "doubtful", f"{program} cannot decode {', '.join(missing)}", advice)
    return Finding("ffmpeg", "good", program)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _OPEN_FILES:
        return Finding("open files", "doubtful", f"at most {soft:,}", f"ulimit -n {min(hard, 65536)} before Ray starts")
    return Finding("open files", "good", f"at most {soft:,}")


def _disk(name: str, folder: str) -> Finding:
    path = Path(storage.filesystem(folder)[1])
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    found = f"{path}: {usage.free / 2**30:.0f} of {usage.total / 2**30:.0f} GiB free"
    if usage.free < _DISK_BYTES:
        advice = "free some, or use another disk (--root; RAY_TMPDIR for scratch)"
        return Finding(name, "bad" if usage.free < _DISK_BYTES / 10 else "doubtful", found, advice)
    return Finding(name, "good", found)


def _object_store() -> Finding:
    """Ray keeps objects in shared memory, 30 % of the machine's unless told otherwise."""
    shared = Path("/dev/shm")  # noqa: S108
    if not shared.exists():
        return Finding("object store", "good", "no /dev/shm here: Ray decides by itself")
    size, wanted = shutil.disk_usage(shared).total, psutil.virtual_memory().total * 0.3
    found = f"{shared} has {size / 2**30:.1f} GiB, Ray asks for {wanted / 2**30:.1f}"
    if size < wanted:
        advice = "objects would go to disk and slow everything: in a container, start it with --shm-size=30%"
        return Finding("object store", "doubtful", found, advice)
    return Finding("object store", "good", found)


def _root(root: str) -> Finding:
    name = storage.join(root, f".doctor-{uuid.uuid4().hex}")
    data = os.urandom(1 << 20)
    try:
        # Without the patience that work itself has with stores.
        filesystem, path = storage.filesystem(name)
        if storage.is_local(root):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        filesystem.pipe_file(path, data)
        written = time.monotonic()
        back = filesystem.cat_file(path)
        read = time.monotonic()
        filesystem.rm_file(path)
    except Exception as error:  # noqa: BLE001 - stores raise anything
        advice = "check the address, the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE), AWS_ENDPOINT_URL, and the rights"
        return Finding("root", "bad", f"{root}: {type(error).__name__}: {error}", advice)
    if back != data:
        return Finding("root", "bad", f"{root}: what was read is not what was written", "do not use this store")
    found = f"{root}: 1 MiB written in {1e3 * (written - began):.0f} ms, read in {1e3 * (read - written):.0f} ms"
    return Finding("root", "good", found)


def _runs(root: str) -> Finding:
    """Whether training can keep its runs: files appear, and only one process holds a lock."""
    try:
        folder = runs_folder(root)
    except ConfigError as error:
        advice = f"to train, set {RUNS} to a folder on a disk that all machines share; other commands do not need it"
        return Finding("runs", "doubtful", str(error), advice)
    path = folder / f".doctor-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as first, path.open("a+") as second:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return Finding("runs", "bad", f"{folder}: two hold one lock", "mount the disk with locks (NFS 4.1)")
            except BlockingIOError:
                return Finding("runs", "good", f"{folder}: can be written, and locks hold")
    except OSError as error:
        advice = f"let this user write there, or name another folder in {RUNS}"
        return Finding("runs", "bad", f"{folder}: {type(error).__name__}: {error}", advice)
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _clock(root: str) -> Finding:
    """Against the servers that are used anyway, by the date of their answers."""
    servers = [os.environ.get("AWS_ENDPOINT_URL"), os.environ.get("MLFLOW_TRACKING_URI")]
    if root.startswith("s3://") and not servers[0]:
        servers[0] = "https://s3.amazonaws.com"
    servers = [one for one in servers if one and re.match("https?://", one)]
    for server in servers:
        try:
            date = requests.head(str(server), timeout=_TIMEOUT, allow_redirects=False).headers.get("Date")
        except requests.RequestException:
            continue
        if date:
            ahead = time.time() - parsedate_to_datetime(date).timestamp()
            found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {server}"
            if abs(ahead) > _CLOCK_SECONDS:
                return Finding("clock", "bad", found, "set it by a time server (chrony, systemd-timesyncd)")
            return Finding("clock", "good", found)
    return Finding("clock", "good", "not compared: no server is in use that tells the time")


def _mlflow(root: str) -> Finding:
    try:
        uri = lineage.tracking_uri(root)
        if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).exists():
            return Finding("MLflow", "good", f"{uri}, which the first command makes")
        if re.match("https?://", uri):
            # MLflow itself asks again for minutes.
            requests.get(f"{uri.rstrip('/')}/health", timeout=_TIMEOUT).raise_for_status()
        lineage.client(root).search_experiments(max_results=1)
    except Exception as error:  # noqa: BLE001 - stores raise anything
        said = str(error).splitlines()[0] if str(error) else ""
        advice = "start the server, or unset MLFLOW_TRACKING_URI to record into a file under a local root"
        return Finding("MLflow", "bad", f"{type(error).__name__}: {said}", advice)
    return Finding("MLflow", "good", re.sub("://[^/@]*@", "://…@", uri))


def _ray() -> Finding:
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        return Finding("Ray", "good", "no RAY_ADDRESS: every command starts its own on this machine")
    probe = (
        "import ray, sys, json; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False); "
        "print(json.dumps([ray.cluster_resources(), len([n for n in ray.nodes() if n['Alive']])]))"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", probe, address], capture_output=True, text=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode:
        said = "no answer for a minute" if done is None else done.stderr.strip().splitlines()[-1:]
        advice = f"is the cluster up, and does it run Ray {ray.__version__} and Python {platform.python_version()}?"
        return Finding("Ray", "bad", f"{address}: {said}", advice)
    resources, nodes = json.loads(done.stdout.strip().splitlines()[-1])
    cores, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    return Finding("Ray", "good", f"{address}: {nodes} nodes, {cores:.0f} cores, {gpus:.0f} GPUs")


def refuse_if_bad(findings: list[Finding]) -> None:
    """Raise OmnimillError when something will not work."""
    if wrong := [one.check for one in findings if one.verdict == "bad"]:
        raise OmnimillError(f"not fit for work: {', '.join(wrong)}")
