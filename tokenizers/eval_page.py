"""The page of ``tokenizer eval``: reconstructions beside their originals, one self-contained HTML file."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from omnimill.infra.report import charts
from omnimill.infra.report.charts import Chart
from omnimill.infra.report.media import data_url
from omnimill.infra.report.template import page_template
from omnimill.tokenizers import audio, image
from omnimill.tokenizers.audio import FloatArray

if TYPE_CHECKING:
    from omnimill.tokenizers.evaluate import ClipPair, EvalResult, PicturePair
    from omnimill.tokenizers.store import Tokenizers

# Small pictures are enlarged by whole factors up to about this side, so that their pixels can be seen.
_SHOWN_SIDE = 256
# Points of the curve of how often codes occur.
_CURVE_POINTS = 200

_LABELS = {
    "image_psnr_db": "PSNR, dB",
    "image_ssim": "SSIM",
    "image_codes_used": "codes used",
    "image_codebook_usage": "share of the codebook used",
    "image_perplexity": "codebook perplexity",
    "audio_mel_error": "mean absolute error of log-mel",
    "audio_spectral_convergence": "spectral convergence",
    "audio_codes_used": "codes used",
    "audio_codebook_usage": "share of the codebook used",
    "audio_perplexity": "codebook perplexity",
}


@dataclass(frozen=True)
class _Shown:
    """A pair as the page shows it: data URLs, and lines of text."""

    example: str
    facts: str
    original: str
    made: str
    spectrograms: str = ""


def write_page(path: Path, result: EvalResult, tokenizers: Tokenizers) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        result: what was measured, with the pairs to show.
        tokenizers: the set; sound is made of its spectrograms as it would be in generation.
    """
    sections = []
    sizes = {"image": tokenizers.layout.image.codes, "audio": tokenizers.layout.audio.codes}
    for name, part in result.measured.items():
        counts = np.sort(np.bincount(part.codes.reshape(-1), minlength=sizes[name]))[::-1]
        show = _picture if name == "image" else lambda pair: _clip(pair, tokenizers)
        sections.append(
            {
                "name": name,
                "title": {"image": "Pictures", "audio": "Sound"}[name],
                "count": part.count,
                "facts": [(_LABELS[key], f"{value:,.4g}") for key, value in part.quality.items()],
                "codes": sizes[name],
                "names": [_LABELS[key] for key in next(iter(part.by_source.values())) if key != "count"],
                "by_source": {
                    source: [f"{value:,.4g}" for value in values.values()] for source, values in part.by_source.items()
                },
                "usage": _usage(name, counts),
                "pairs": [show(pair) for pair in part.shown],
            }
        )
    vocoder = "by the set's vocoder" if tokenizers.vocoder is not None else "by Griffin-Lim"
    page = page_template(Path(__file__).with_name("eval_page.html")).render(
        result=result, sections=sections, vocoder=vocoder, layout=tokenizers.layout
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _picture(pair: PicturePair) -> _Shown:
    facts = f"{pair.psnr:.1f} dB, SSIM {pair.ssim:.3f}"
    return _Shown(pair.example, facts, _picture_url(pair.original), _picture_url(pair.made))


def _picture_url(values: FloatArray) -> str:
    """A PNG, enlarged without smoothing where it is small."""
    pixels = image.to_bytes(values)
    factor = max(1, _SHOWN_SIDE // max(pixels.shape[:2]))
    return data_url(image.encode_png(pixels.repeat(factor, axis=0).repeat(factor, axis=1)), "image/png")


def _clip(pair: ClipPair, tokenizers: Tokenizers) -> _Shown:
    layout = tokenizers.layout.audio
    made = audio.encode_waveform(tokenizers.waveform(pair.made), layout.sample_rate, "WAV")
    return _Shown(
        pair.example,
        f"log-mel error {pair.error:.3f}, spectral convergence {pair.convergence:.3f}",
        data_url(pair.flac, "audio/flac"),
        data_url(made, "audio/wav"),
        _spectrograms(pair, layout.segment_seconds),
    )


def _spectrograms(pair: ClipPair, seconds: float) -> str:
    """Both spectrograms on one scale of colours, as a PNG."""
    figure = Figure(figsize=(10.0, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    mels = pair.original.shape[1]
    # Exact zeros are silence, which lies below every other value.
    lowest = np.log(audio.FLOOR)
    drawn: Any = None
    for axes, title, mel in ((left, "original", pair.original), (right, "reconstruction", pair.made)):
        shown = np.where(mel == 0, lowest, mel).T
        high = float(max(pair.original.max(), lowest + 1.0))
        drawn = axes.imshow(
            shown, origin="lower", aspect="auto", extent=(0.0, seconds, 0.0, mels), vmin=lowest, vmax=high, cmap="magma"
        )
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_xlabel("seconds", fontsize=8)
        axes.tick_params(labelsize=8)
    left.set_ylabel("mel band", fontsize=8)
    figure.colorbar(drawn, ax=[left, right], label="log power").ax.tick_params(labelsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    with Image.open(stream) as rendered:
        # As few bytes as a page of several can do with.
        small = io.BytesIO()
        rendered.convert("RGB").quantize(128).save(small, "PNG")
    return data_url(small.getvalue(), "image/png")


def _usage(name: str, counts: np.ndarray[Any, np.dtype[np.int64]]) -> Chart:
    """How often codes occur, most frequent first."""
    places = np.unique(np.linspace(0, len(counts) - 1, _CURVE_POINTS).astype(np.int64))
    share = counts / max(int(counts.sum()), 1) * len(counts)
    curve = [(float(place + 1), float(share[place])) for place in places]
    title = f"How often each {name} code occurs, most frequent first (1: as often as in even use)"
    return charts.curves(title, {"frequency": curve}, "codes", "times even use")
