"""``omnimill generate``: text, a picture or a clip from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from omnimill.cli.output import DEFAULT_ROOT, Json, Root, print_json
from omnimill.errors import ConfigError
from omnimill.progress import console


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("generate")(generate)


def generate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder, or a run's: its newest checkpoint.")],
    target: Annotated[Literal["text", "image", "audio"], typer.Option(help="What to generate.")],
    prompt: Annotated[str, typer.Option(help="What is asked for.")] = "",
    image: Annotated[
        list[Path] | None,
        typer.Option(help="Input picture. Several: the last is the current one, the others its history."),
    ] = None,
    audio: Annotated[
        list[Path] | None, typer.Option(help="Input sound (WAV, FLAC, OGG, MP3); as for pictures.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write: PNG or WAV (default: generated.png, generated.wav), or text.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 takes the most likely token each time.")] = 1.0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest tokens that reach this probability.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the draws: the same seed gives the same output.")] = 0,
    root: Root = DEFAULT_ROOT,
    json: Json = False,
) -> None:
    """Generate text, a picture or a clip of sound from a checkpoint.

    What comes out shows what the model has learnt: a tiny model trained for minutes on a handful of files gives broken
    text, blurs and noise.

    Example: omnimill generate runs/demo/runs/demo --root runs/demo --target image --prompt "a cup" --out cup.png
    """
    from pydantic import ValidationError

    from omnimill.infra import lineage, storage
    from omnimill.tokenizers.audio import encode_waveform
    from omnimill.tokenizers.image import encode_png
    from omnimill.training.checkpoint import folder_name
    from omnimill.training.decoding import Sampling
    from omnimill.training.generate import load_generator
    from omnimill.training.prompt import Request

    try:
        sampling = Sampling(temperature=temperature, top_p=top_p, seed=seed)
    except ValidationError as error:
        fault = error.errors()[0]
        option = str(fault["loc"][0]).replace("_", "-")
        raise ConfigError(f"--{option}: {fault['msg']}; found {fault['input']}") from None
    request = Request(target, prompt, [_read(path) for path in image or ()], [_read(path) for path in audio or ()])
    generator, record = load_generator(root, checkpoint)
    facts = {"run": record.run, "step": record.step, "target": target, "prompt": prompt, **sampling.model_dump()}
    with lineage.command_run(root, "generate", facts) as run:
        run.tags({"omnimill.prompt": prompt})
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
