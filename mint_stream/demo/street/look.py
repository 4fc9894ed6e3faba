"""What all drawings share: paint by name, and how one object looks."""

from __future__ import annotations

from dataclasses import dataclass

from mint_stream.demo.street.pen import Colour

PAINT: dict[str, Colour] = {
    "red": (200, 30, 32),
    "blue": (36, 78, 180),
    "green": (38, 128, 66),
    "yellow": (238, 196, 36),
    "white": (236, 236, 232),
    "black": (38, 38, 42),
    "grey": (136, 140, 146),
    "orange": (240, 112, 24),
    "brown": (126, 78, 42),
    "golden": (206, 158, 88),
    "purple": (112, 58, 146),
    "pink": (226, 120, 160),
}


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one object looks: body colour, which variant, the view, and three pose numbers."""

    colour: Colour
    variant: int
    front: bool
    pose: tuple[float, float, float]
