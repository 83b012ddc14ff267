"""How long a study's trainings will take, before one of them has begun."""

from __future__ import annotations

MULTIPLY_ADDS_A_SECOND = 1.2e9
"""Of the forward pass, while training on one thread: small networks at 16 pixels (results/scaling_cifar). Large images
and other machines may differ by a factor of two or three; the first finished trainings say it better."""

PREPARATION_SECONDS = 0.001
"""Of decoding, nearest neighbours and the like, an image."""


def training_seconds(multiply_adds: float, *, images: int, epochs: int) -> float:
    """About the seconds of one training on one thread. multiply_adds: of one image."""
    return images * (epochs * multiply_adds / MULTIPLY_ADDS_A_SECOND + PREPARATION_SECONDS)


def about(seconds: float) -> str:
    """The time in the unit that suits it, roughly: 40 s, 12 minutes, 3.5 hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
