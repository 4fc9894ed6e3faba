"""A pen that draws in an object's own coordinates (metres, y up) on a Pillow canvas (pixels)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from PIL import ImageDraw

Colour = tuple[int, ...]
Point = tuple[float, float]

_CIRCLE: list[Point] = [
    (math.cos(2 * math.pi * i / 20), math.sin(2 * math.pi * i / 20)) for i in range(20)
]


def shade(colour: Colour, factor: float) -> Colour:
    """Scale the brightness of an RGB colour (0 to 255 each) by `factor`, clipped."""
    return tuple(min(255, max(0, round(channel * factor))) for channel in colour[:3])


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """Mix two RGB colours; `share` is the second one's part, 0 to 1."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first[:3], second[:3], strict=True))


@dataclass(frozen=True, kw_only=True)
class Pen:
    """Maps object coordinates to canvas pixels and draws filled shapes.

    `x`, `y` (pixels) is where the object's origin stands, `scale` is pixels a unit, `mirror` flips
    left and right, `squeeze` foreshortens the horizontal axis and `tilt` rotates (radians).
    """

    draw: ImageDraw.ImageDraw
    x: float
    y: float
    scale: float
    mirror: bool = False
    squeeze: float = 1.0
    tilt: float = 0.0

    def place(self, points: Iterable[Point]) -> list[Point]:
        """Canvas pixels of object coordinates."""
        along = self.scale * self.squeeze * (-1 if self.mirror else 1)
        cos, sin = math.cos(self.tilt), math.sin(self.tilt)
        placed = []
        for px, py in points:
            u, v = px * along, -py * self.scale
            placed.append((self.x + u * cos - v * sin, self.y + u * sin + v * cos))
        return placed

    def poly(self, points: Sequence[Point], fill: Colour) -> None:
        """Fill a polygon."""
        self.draw.polygon(self.place(points), fill=fill)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        """Fill an axis-parallel rectangle."""
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill)

    def slab(self, x0: float, y0: float, x1: float, y1: float, r: float, fill: Colour) -> None:
        """Fill a rectangle with corners cut round by the radius `r`."""
        k = 0.3 * r
        self.poly(
            [
                (x0 + r, y0), (x1 - r, y0), (x1 - k, y0 + k), (x1, y0 + r),
                (x1, y1 - r), (x1 - k, y1 - k), (x1 - r, y1), (x0 + r, y1),
                (x0 + k, y1 - k), (x0, y1 - r), (x0, y0 + r), (x0 + k, y0 + k),
            ],
            fill,
        )  # fmt: skip

    def disc(self, cx: float, cy: float, r: float, fill: Colour, ry: float | None = None) -> None:
        """Fill an ellipse with the radii `r` and `ry` (a circle without `ry`)."""
        ry = r if ry is None else ry
        self.poly([(cx + r * c, cy + ry * s) for c, s in _CIRCLE], fill)

    def ring(self, cx: float, cy: float, r: float, width: float, fill: Colour) -> None:
        """Draw a circle's line."""
        points = [(cx + r * c, cy + r * s) for c, s in _CIRCLE]
        self.line([*points, points[0], points[1]], fill, width)

    def line(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """Draw a line of the given width (units)."""
        pixels = max(1, round(width * self.scale))
        self.draw.line(self.place(points), fill=fill, width=pixels, joint="curve")

    def limb(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """Draw a line with round ends."""
        self.line(points, fill, width)
        for cx, cy in (points[0], points[-1]):
            self.disc(cx, cy, width / 2, fill)
