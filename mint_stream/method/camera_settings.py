"""All constants of `cameras`, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Half-lives and ages are in frames of one camera. (Those of the bank's sums: camera_state.)

    Chosen on streams made from the even-numbered CIFAR-10 test photographs; no single one of them
    matters much (the table of ablations).
    """

    fresh: float = 8
    own: float = 128
    middle: float = 64
    mixed: float = 32
    """Half-lives in a camera's row (camera_rows)."""

    row_age: float = 64
    """Age at which another camera's row counts half."""
    row_limit: float = 256
    """Age from which it does not count."""
    rows: int = 64
    """At most so many of the freshest count."""
    alike: float = 2.0
    """How sharply rows are told apart by how their cameras changed."""

    frozen_share: float = 0.15
    """Of the frozen logits in the shifted ones."""
    anchor: float = 0.7
    """Share of a class's usual place that is taken off a feature before the camera's own mean is
    made of it."""
    temperature: float = 4.0
    """Of the shifted logits in the chain."""
    local: float = 0.3
    """Share of the classes that a camera showed lately in what it shows when it changes; the rest
    are all classes evenly."""

    sticks: float = 0.2
    """Stickiness from which frames of a camera are answered together, ..."""
    coherent: float = 0.03
    """with so much evidence a pair of neighbours."""
    earned: float = 0.3
    """Share of that evidence which has to be left after the shift."""
    repeats: float = 0.4
    """Distance of neighbours, over that of any frames, below which they are nearly one picture:
    then cameras must be known better before they are pooled."""
    alike_cameras: tuple[float, float] = (0.1, 0.16)
    """Evidence a crossing from which cameras count as showing the same thing: where neighbours are
    nearly one picture, and elsewhere."""
    crossings: tuple[float, float] = (24, 12)
    """Crossings before anything is said of it, likewise."""

    agree: float = 0.5
    """Share of answers that stand without the camera's mean from which it shows a mixture, ..."""
    diverse: float = 0.3
    """with so large an effective number of answers, over the number of classes, ..."""
    frames_for_mixture: float = 30
    """and so many frames."""

    report_temperature: float = 2.5
    """Of the shifted logits where they become probabilities."""
    trust: float = 0.6
    """In the chain's own confidence, where neighbours are as far apart as any frames, ..."""
    trust_from: float = 0.3
    """less below 0.65 of that, and none where they are nearer than this share of it."""
