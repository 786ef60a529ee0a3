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
    from omnimill.training.generation.decoding import Sampling
    from omnimill.training.rendering.prompt import Request


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("generate")(generate)


def generate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder, or a run's: its newest checkpoint.")],
    target: Annotated[
        Literal["text", "image", "audio", "interleaved"] | None,
        typer.Option(help="What to generate; of a decoder-only checkpoint text and pictures in turn, if not given."),
    ] = None,
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
            help="File to write: PNG, WAV or HTML (default: generated.png, .wav, .html), or text; of many, a folder."
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
    page: Annotated[Path | None, typer.Option(help="Of many: the answers as a page (HTML), too.")] = None,
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
    """Generate text, a picture, a clip of sound, or text and pictures in turn, or answer a file of requests.

    What comes out shows what the model has learnt: a tiny model trained for minutes on a handful of files gives broken
    text, blurs and noise. The answers to a file of requests become a dataset of Arrow files in the folder --out;
    stopped, the same command goes on where it was.

    Example: omnimill generate runs/demo/runs/demo --root runs/demo --target image --prompt "a cup" --out cup.png
    """
    from pydantic import ValidationError

    from omnimill.training.generation.decoding import Sampling
    from omnimill.training.rendering.prompt import Request

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
        if page is not None:
            from omnimill.training.generation.generate_many import answers_page

            _write(page, answers_page(requests, str(out)).encode())
        if json:
            print_json(many)
        else:
            print(f"{many['count']} answers in {many['answers']}")
        return
    if page is not None:
        raise ConfigError("--page: of --requests alone; one answer of text and pictures is a page with --out *.html")
    pictures, clips = [_read(path) for path in image or ()], [_read(path) for path in audio or ()]
    request = Request(target or "interleaved", prompt, pictures, clips, numbers, negative)
    _one(root, checkpoint, request, sampling, out, json, free=target is None)


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
    from omnimill.training.generation.answering import Actors
    from omnimill.training.generation.decoding import Decoding
    from omnimill.training.generation.generate_many import generate_many

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


def _one(
    root: str,
    checkpoint: Path,
    request: Request,
    sampling: Sampling,
    out: Path | None,
    json: bool,
    *,
    free: bool,
) -> None:
    """free: nothing was said of what is wanted."""
    from omnimill.cli.generate_sequences import answer, as_json
    from omnimill.infra import lineage, storage
    from omnimill.tokenizers.audio import encode_waveform
    from omnimill.tokenizers.image import encode_png
    from omnimill.training.checkpoints.checkpoint import folder_name
    from omnimill.training.generation.generators import load_generator
    from omnimill.training.generation.interleaved import SequenceGenerator

    generator, record = load_generator(root, checkpoint)
    if free and not isinstance(generator, SequenceGenerator):
        raise ConfigError("--target: not given; allowed: text, image, audio, or --requests with a file")
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
        if isinstance(generator, SequenceGenerator):
            found, file, content = answer(generator, request, sampling, out, show=not json)
            cut, told = found.cut, as_json(found)
        else:
            result = generator.generate(request, sampling)
            cut, file, content = result.cut, out, None
            told = {"tokens": len(result.ids), "text": result.text}
            if result.picture is not None:
                file, content = out or Path("generated.png"), encode_png(result.picture)
            elif result.waveform is not None:
                rate = record.layout.audio.sample_rate
                file, content = out or Path("generated.wav"), encode_waveform(result.waveform, rate, "WAV")
            elif out is not None:
                content = f"{result.text}\n".encode()
            if result.text is not None and not json:
                print(result.text)
        if cut:
            console.print(f"the last {cut} tokens of the prompt did not fit and were left out")
        if file is not None and content is not None:
            _write(file, content)
            run.output(file.name, storage.digest_file(str(file)), str(file))

    if json:
        print_json({**facts, **told, "file": str(file) if file else None})
    elif file is not None and request.target != "text":
        print(file)


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
