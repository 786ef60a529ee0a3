"""Made sound against the sound that was wanted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omnimill.tokenizers.audio import FloatArray
from omnimill.tokenizers.metrics import mel_error, spectral_convergence
from omnimill.training.metrics.score import mean, paired


def mel_distance(predictions: Sequence[FloatArray | None], references: Sequence[FloatArray]) -> dict[str, float | None]:
    """Differences of log-mel spectrograms [frames, mels], natural logarithm of power, of equal shapes.

    Silence stands for what could not be read: the least level that any reference has.

    Returns:
        ``mel_distance``: mean absolute difference; ``spectral_convergence``: relative error of magnitudes (Arik et al.
        2019).
    """
    paired(predictions, references)
    silence = min((float(reference.min()) for reference in references), default=0.0)
    pairs = [
        (wanted, np.full_like(wanted, silence) if found is None else found)
        for found, wanted in zip(predictions, references, strict=True)
    ]
    return {
        "mel_distance": mean([mel_error(*pair) for pair in pairs]),
        "spectral_convergence": mean([spectral_convergence(*pair) for pair in pairs]),
    }
