"""``omnimill generate``: text, pictures or clips from a checkpoint, one or many."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from omnimill.cli.output import DEFAULT_ROOT, Cpus, Json, Root, print_json
from omnimill.errors import ConfigError
from omnimill.progress import console

if TYPE_CHECKING:
    from omnimill.training.decoding import Sampling
    from omnimill.training.prompt import Request


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("generate")(generate)


def generate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder, or a run's: its newest checkpoint.")],
    target: Annotated[Literal["text", "image", "audio"] | None, typer.Option(help="What to generate.")] = None,
    prompt: Annotated[str, typer.Option(help="What is asked for.")] = "",
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Input picture. Several: the last is the current one, the others its history."),
    ] = None,
    audio: Annotated[
        list[Path] | None, typer.Option(help="Input sound (WAV, FLAC, OGG, MP3); as for pictures.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write: PNG or WAV (default: generated.png, generated.wav), or text; of many, a folder."
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token each time.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest tokens that reach this probability.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the draws: the same seed gives the same output.")] = 0,
    guidance: Annotated[
        float, typer.Option(help="Of pictures and sound: how far to move away from the negative prompt; 1: not at all.")
    ] = 1.0,
    negative: Annotated[
        str | None, typer.Option(help="The negative prompt; the one that the model was trained with when not given.")
    ] = None,
    beams: Annotated[int, typer.Option(help="Of text: follow so many texts and take the likeliest; 1: draw.")] = 1,
    length_penalty: Annotated[float, typer.Option(help="Of beams: above 0 favours longer texts.")] = 0.6,
    numbers: Annotated[
        int, typer.Option(min=0, help="Of text: location tokens come in groups of so many, 4 for boxes; 0: freely.")
    ] = 0,
    requests: Annotated[
        str | None, typer.Option("--requests", help="JSON lines with key, target, prompt, images, audio: answer all.")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Requests that are answered at once.")] = 16,
    actors: Annotated[
        int, typer.Option("--actors", min=0, help="Actors on Ray that answer requests; 0: this process does.")
    ] = 0,
    gpus: Annotated[
        float, typer.Option("--gpus", min=0, help="GPUs of every actor, or of this process; several may share one.")
    ] = 0.0,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Of PyTorch, in every process that answers.")] = 1,
    root: Root = DEFAULT_ROOT,
    cpus: Cpus = None,
    json: Json = False,
) -> None:
    """Generate text, a picture or a clip of sound from a checkpoint, or answer a file of requests.

    What comes out shows what the model has learnt: a tiny model trained for minutes on a handful of files gives broken
    text, blurs and noise. The answers to a file of requests become a dataset of Arrow files in the folder --out;
    stopped, the same command goes on where it was.

    Example: omnimill generate runs/demo/runs/demo --root runs/demo --target image --prompt "a cup" --out cup.png
    """
    from pydantic import ValidationError

    from omnimill.training.decoding import Sampling
    from omnimill.training.prompt import Request

    chosen = {"temperature": temperature, "top_p": top_p, "seed": seed, "guidance": guidance}
    try:
        sampling = Sampling(**chosen, beams=beams, length_penalty=length_penalty)
    except ValidationError as error:
        fault = error.errors()[0]
        option = str(fault["loc"][0]).replace("_", "-")
        raise ConfigError(f"--{option}: {fault['msg']}; found {fault['input']}") from None
    if requests is not None:
        if target is not None or prompt or image or audio:
            raise ConfigError("--requests: says what is asked for, so --target, --prompt, --image and --audio cannot")
        if out is None:
            raise ConfigError("--requests: needs --out, the folder for the answers")
        many = _many(root, checkpoint, requests, str(out), sampling, batch, actors, gpus, threads, cpus)
        if json:
            print_json(many)
        else:
            print(f"{many['count']} answers in {many['answers']}")
        return
    if target is None:
        raise ConfigError("--target: not given; allowed: text, image, audio, or --requests with a file")
    pictures, clips = [_read(path) for path in image or ()], [_read(path) for path in audio or ()]
    _one(root, checkpoint, Request(target, prompt, pictures, clips, numbers, negative), sampling, out, json)


def _many(
    root: str,
    checkpoint: Path,
    requests: str,
    out: str,
    sampling: Sampling,
    batch: int,
    actors: int,
    gpus: float,
    threads: int,
    cpus: int | None,
) -> dict[str, Any]:
    from omnimill.training.answering import Actors
    from omnimill.training.generate_many import generate_many
    from omnimill.training.scoring import Decoding

    result = generate_many(
        root,
        checkpoint,
        requests,
        out,
        Decoding(text=sampling, image=sampling, audio=sampling),
        batch=batch,
        actors=Actors(count=actors, num_gpus=gpus, num_cpus=float(threads)),
        threads=threads,
        cpus=cpus,
    )
    return asdict(result)


def _one(root: str, checkpoint: Path, request: Request, sampling: Sampling, out: Path | None, json: bool) -> None:
    from omnimill.infra import lineage, storage
    from omnimill.tokenizers.audio import encode_waveform
    from omnimill.tokenizers.image import encode_png
    from omnimill.training.checkpoint import folder_name
    from omnimill.training.generate import load_generator

    generator, record = load_generator(root, checkpoint)
    facts = {
        "run": record.run,
        "step": record.step,
        "target": request.target,
        "prompt": request.text,
        **sampling.model_dump(),
    }
    with lineage.command_run(root, "generate", facts) as run:
        run.tags({"omnimill.prompt": request.text})
        run.input(f"{record.run}/{folder_name(record.step)}", record.digest, str(checkpoint))
        result = generator.generate(request, sampling)
        if result.cut:
            console.print(f"the last {result.cut} tokens of the prompt did not fit and were left out")
        if result.picture is not None:
            out = _write(out or Path("generated.png"), encode_png(result.picture))
        elif result.waveform is not None:
            rate = record.layout.audio.sample_rate
            out = _write(out or Path("generated.wav"), encode_waveform(result.waveform, rate, "WAV"))
        elif out is not None:
            out = _write(out, f"{result.text}\n".encode())
        if out is not None:
            run.output(out.name, storage.digest_file(str(out)), str(out))

    if json:
        print_json({**facts, "tokens": len(result.ids), "text": result.text, "file": str(out) if out else None})
    elif result.text is not None:
        print(result.text)
    else:
        print(out)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _write(path: Path, data: bytes) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written: {error.strerror}") from None
    return path
