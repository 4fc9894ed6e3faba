"""What a street camera sees behind the objects: sky, buildings, trees, road and pavement.

Each camera has its own place and viewpoint, drawn from its seed alone; the sky and the light
change from frame to frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from mint_stream.demo.street.pen import Colour, blend, shade

PLACES = ("city street", "shopping street", "suburban street", "park road", "country road")
SKIES = ("clear", "partly cloudy", "cloudy")
TIMES = ("morning", "noon", "afternoon")

_ZENITH = {"morning": (126, 172, 220), "noon": (84, 148, 222), "afternoon": (112, 160, 212)}
_HORIZON = {"morning": (230, 226, 214), "noon": (204, 224, 240), "afternoon": (238, 222, 194)}
_WALLS = (
    (176, 112, 86), (200, 178, 148), (150, 150, 154), (188, 160, 120), (122, 128, 140),
    (214, 204, 188), (140, 98, 80), (164, 176, 180), (196, 140, 110), (98, 106, 116),
)  # fmt: skip
_LEAVES = ((66, 110, 52), (88, 126, 56), (52, 94, 58), (104, 134, 66))
_AWNINGS = ((150, 60, 56), (58, 96, 120), (80, 110, 78), (168, 140, 80))


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One fixed viewpoint. Heights and positions are shares of the frame, from the top left."""

    name: str
    seed: int
    place: str
    horizon: float
    along: bool
    vanish: float
    kerb: float
    asphalt: Colour
    pavement: Colour
    lawn: Colour


def make_camera(name: str, seed: int, *, place: str | None = None) -> Camera:
    """Draw a camera's place and viewpoint from its seed (same seed, same camera).

    Raises ValueError for a place that is not in `PLACES`.
    """
    if place is not None and place not in PLACES:
        raise ValueError(f"place {place!r} is not one of {', '.join(PLACES)}")
    rng = np.random.default_rng([seed, 11])
    grey = int(rng.integers(84, 128))
    pale = int(rng.integers(150, 196))
    green = _LEAVES[int(rng.integers(len(_LEAVES)))]
    return Camera(
        name=name,
        seed=seed,
        place=place or PLACES[int(rng.integers(len(PLACES)))],
        horizon=float(rng.uniform(0.36, 0.56)),
        along=bool(rng.random() < 0.5),
        vanish=float(rng.uniform(0.15, 0.85)),
        kerb=float(rng.uniform(0.18, 0.4)),
        asphalt=(grey, grey, grey + int(rng.integers(0, 9))),
        pavement=(pale, pale - 4, pale - int(rng.integers(6, 22))),
        lawn=blend(green, (150, 176, 90), 0.35),
    )


class _Street:
    """Draws one camera's street on a canvas of `size` pixels a side."""

    def __init__(self, canvas: Image.Image, camera: Camera) -> None:
        self.size = canvas.width
        self.draw = ImageDraw.Draw(canvas, "RGBA")
        self.camera = camera
        self.rng = np.random.default_rng([camera.seed, 12])
        self.ground = camera.horizon

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Colour) -> None:
        s = self.size
        if x1 > x0 and y1 > y0:
            self.draw.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), fill=fill)

    def poly(self, points: list[tuple[float, float]], fill: Colour) -> None:
        self.draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=fill)

    def blob(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        s = self.size
        self.draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=fill)

    def hills(self) -> None:
        base = self.rng.uniform(0.04, 0.12)
        bumps = self.rng.uniform(0.3, 1.0, 7) * base
        crest = [(k / 6, self.ground - float(b)) for k, b in enumerate(bumps)]
        self.poly([(0, self.ground), *crest, (1, self.ground)], (128, 148, 148))

    def tree(self, x: float, base: float, height: float) -> None:
        leaf = _LEAVES[int(self.rng.integers(len(_LEAVES)))]
        trunk = height * 0.045
        self.rect(x - trunk, base - height * 0.5, x + trunk, base, (92, 70, 52))
        if self.rng.random() < 0.25:  # a conifer
            for k in range(3):
                low, wide = base - height * (0.18 + 0.25 * k), height * (0.26 - 0.06 * k)
                tone = shade(leaf, 0.72 + 0.1 * k)
                self.poly([(x - wide, low), (x + wide, low), (x, low - height * 0.36)], tone)
            return
        for k in range(7):
            dx, dy = self.rng.uniform(-0.2, 0.2), self.rng.uniform(-0.2, 0.16)
            r = height * self.rng.uniform(0.15, 0.22)
            tone = shade(leaf, 0.78 + 0.36 * (0.2 - dy) + 0.05 * k)
            self.blob(x + dx * height, base - height * 0.68 + dy * height, r, r, tone)

    def tower(self, x0: float, x1: float, top: float) -> None:
        wall = _WALLS[int(self.rng.integers(len(_WALLS)))]
        self.rect(x0, top, x1, self.ground, wall)
        self.rect(x1 - 0.15 * (x1 - x0), top, x1, self.ground, shade(wall, 0.86))
        self.rect(x0 - 0.004, top - 0.008, x1 + 0.004, top + 0.008, shade(wall, 0.7))
        columns = max(2, round((x1 - x0) / 0.065))
        rows = max(1, int((self.ground - top - 0.06) / 0.075))
        pane = blend((70, 88, 108), (190, 206, 220), float(self.rng.uniform(0, 0.5)))
        wide, high = (x1 - x0) / columns, 0.075
        for row in range(rows):
            for column in range(columns):
                x, y = x0 + (column + 0.24) * wide, top + 0.03 + row * high
                tone = shade(pane, 1.0 + 0.12 * ((row * 3 + column * 5) % 4 - 1.5))
                self.rect(x, y, x + wide * 0.52, y + high * 0.58, tone)

    def shop(self, x0: float, x1: float) -> None:
        top = self.ground - 0.13
        awning = _AWNINGS[int(self.rng.integers(len(_AWNINGS)))]
        self.rect(x0, top, x1, self.ground, (70, 66, 64))
        self.rect(x0 + 0.015, top + 0.05, x1 - 0.06, self.ground - 0.02, (150, 172, 182))
        self.rect(x1 - 0.05, top + 0.04, x1 - 0.015, self.ground, (94, 70, 56))
        stripes = 6
        for k in range(stripes):
            tone = awning if k % 2 else (232, 228, 220)
            a, b = x0 + (x1 - x0) * k / stripes, x0 + (x1 - x0) * (k + 1) / stripes
            self.poly([(a, top), (b, top), (b + 0.01, top + 0.045), (a + 0.01, top + 0.045)], tone)

    def house(self, x0: float, x1: float) -> None:
        wall = blend(_WALLS[int(self.rng.integers(len(_WALLS)))], (240, 236, 226), 0.45)
        eaves = self.ground - self.rng.uniform(0.11, 0.16)
        ridge = eaves - self.rng.uniform(0.06, 0.1)
        roof = ((132, 70, 56), (92, 86, 88), (112, 84, 66))[int(self.rng.integers(3))]
        self.rect(x0, eaves, x1, self.ground, wall)
        middle = (x0 + x1) / 2
        self.poly([(x0 - 0.02, eaves), (x1 + 0.02, eaves), (middle, ridge)], roof)
        self.rect(x1 - 0.05, ridge - 0.01, x1 - 0.025, eaves - 0.02, shade(roof, 0.75))
        wide = (x1 - x0) / 5
        for k in (0.6, 3.2):
            x = x0 + k * wide
            self.rect(x - 0.005, eaves + 0.025, x + wide + 0.005, eaves + 0.08, (244, 244, 240))
            self.rect(x, eaves + 0.03, x + wide, eaves + 0.075, (92, 112, 128))
        self.rect(x0 + 2 * wide, self.ground - 0.085, x0 + 2.8 * wide, self.ground, (110, 70, 48))

    def skyline(self) -> None:
        place, rng = self.camera.place, self.rng
        self.hills()
        if place in ("city street", "shopping street"):
            x = -float(rng.uniform(0, 0.15))
            while x < 1:
                wide = float(rng.uniform(0.16, 0.32))
                self.tower(x, x + wide, float(rng.uniform(-0.05, self.ground - 0.16)))
                if place == "shopping street":
                    self.shop(x, x + wide)
                x += wide + float(rng.choice([0.0, 0.0, 0.05]))
        elif place == "suburban street":
            x = -float(rng.uniform(0, 0.2))
            while x < 1:
                wide = float(rng.uniform(0.24, 0.36))
                if rng.random() < 0.5:
                    self.tree(x - 0.03, self.ground, float(rng.uniform(0.2, 0.32)))
                self.house(x, x + wide)
                x += wide + float(rng.uniform(0.05, 0.16))
        count = {"park road": 8, "country road": 4, "suburban street": 1}.get(place, 1)
        for _ in range(count):
            height = float(rng.uniform(0.18, 0.42))
            self.tree(float(rng.uniform(-0.05, 1.05)), self.ground + 0.01, height)

    def ground_across(self) -> None:
        """A road that crosses the picture from left to right."""
        g, c = self.ground, self.camera
        green = c.place in ("park road", "country road", "suburban street")
        depth = 1 - g
        far, near = g + 0.14 * depth, g + (0.62 + 0.2 * c.kerb) * depth
        self.rect(0, g, 1, 1, c.lawn if green else c.pavement)
        self.rect(0, far - 0.05 * depth, 1, far, c.pavement)
        self.rect(0, far, 1, near, c.asphalt)
        self.rect(0, far, 1, far + 0.012, shade(c.pavement, 0.75))
        self.rect(0, near - 0.012, 1, near + 0.01, shade(c.pavement, 1.1))
        self.rect(0, near + 0.01, 1, 1, c.pavement)
        line = far + 0.42 * (near - far)
        start = float(self.rng.uniform(-0.2, 0))
        while start < 1:
            self.rect(start, line, start + 0.12, line + 0.014, (222, 220, 210))
            start += 0.24
        for k in range(1, 7):
            x = k / 6 + 0.03
            self.draw.line(
                [(x * self.size, near * self.size), ((1.6 * x - 0.3) * self.size, self.size)],
                fill=shade(c.pavement, 0.86),
                width=2,
            )

    def ground_along(self) -> None:
        """A road that runs away from the camera."""
        g, c, v = self.ground, self.camera, self.camera.vanish
        green = c.place in ("park road", "country road", "suburban street")
        self.rect(0, g, 1, 1, c.lawn if green else c.pavement)
        left, right = 0.5 - 0.75 - c.kerb, 0.5 + 0.75 + c.kerb
        walk = 0.35
        self.poly([(v - 0.03, g), (v + 0.03, g), (right + walk, 1), (left - walk, 1)], c.pavement)
        self.poly([(v - 0.02, g), (v + 0.02, g), (right, 1), (left, 1)], shade(c.pavement, 1.12))
        self.poly([(v - 0.018, g), (v + 0.018, g), (right - 0.04, 1), (left + 0.04, 1)], c.asphalt)
        middle = 0.5
        for near, far in ((1.0, 0.82), (0.7, 0.55), (0.45, 0.35), (0.28, 0.22), (0.17, 0.13)):
            points = []
            for t, side in ((near, -1), (near, 1), (far, 1), (far, -1)):
                x = v + (middle - v) * t + side * 0.018 * t
                points.append((x, g + (1 - g) * t))
            self.poly(points, (222, 220, 210))
        if self.rng.random() < 0.35:  # a zebra crossing
            for k in range(9):
                x0 = left + (right - left) * (k + 0.2) / 9
                near, far, wide = 0.62, 0.5, 0.09

                def at(x: float, t: float) -> tuple[float, float]:
                    return (v + (x - v) * t, g + (1 - g) * t)

                self.poly(
                    [at(x0, near), at(x0 + wide, near), at(x0 + wide, far), at(x0, far)],
                    (226, 224, 216),
                )

    def furniture(self) -> None:
        """Lamp posts, bollards, bins, bushes and benches: clutter that is in no class."""
        rng, g = self.rng, self.ground
        for _ in range(int(rng.integers(2, 6))):
            x, near = float(rng.uniform(0.02, 0.98)), float(rng.uniform(0.02, 0.22))
            base, h = g + near * (1 - g), 0.06 + 0.35 * near
            kind = int(rng.integers(5))
            if kind == 0:
                tall = 3.2 * h + 0.1
                self.rect(x, base - tall, x + 0.012, base, (74, 78, 82))
                self.rect(x, base - tall, x + 0.07, base - tall + 0.011, (74, 78, 82))
                self.rect(x + 0.045, base - tall, x + 0.08, base - tall + 0.02, (228, 226, 210))
            elif kind == 1:
                for k in range(4):
                    self.rect(
                        x + 0.05 * k, base - 0.5 * h, x + 0.05 * k + 0.012, base, (70, 72, 76)
                    )
            elif kind == 2:
                self.rect(x, base - 0.55 * h, x + 0.035, base, (52, 78, 66))
                self.rect(x - 0.004, base - 0.6 * h, x + 0.039, base - 0.52 * h, (38, 52, 48))
            elif kind == 3:
                leaf = _LEAVES[int(rng.integers(len(_LEAVES)))]
                for k in range(4):
                    self.blob(
                        x + 0.03 * k,
                        base - 0.02,
                        0.032,
                        0.03 + 0.01 * (k % 2),
                        shade(leaf, 0.85 + 0.07 * k),
                    )
            else:
                self.rect(x, base - 0.4 * h, x + 0.11, base - 0.33 * h, (122, 84, 52))
                self.rect(x, base - 0.22 * h, x + 0.11, base - 0.16 * h, (122, 84, 52))
                for dx in (0.008, 0.096):
                    self.rect(x + dx, base - 0.4 * h, x + dx + 0.008, base, (60, 60, 62))


def _sky(size: int, camera: Camera, time: str, sky: str, rng: np.random.Generator) -> Image.Image:
    share = np.clip(np.arange(size) / (camera.horizon * size), 0, 1)[:, None]
    zenith, horizon = np.array(_ZENITH[time]), np.array(_HORIZON[time])
    if sky == "cloudy":
        zenith, horizon = zenith * 0.35 + np.array([196, 202, 208]) * 0.65, horizon * 0.5 + 110
    rows = (zenith * (1 - share) + horizon * share).clip(0, 255).astype(np.uint8)
    canvas = Image.fromarray(np.repeat(rows[:, None, :], size, axis=1))
    draw = ImageDraw.Draw(canvas, "RGBA")
    for _ in range({"clear": 0, "partly cloudy": 3, "cloudy": 8}[sky]):
        x, y = rng.uniform(-0.1, 1.1) * size, rng.uniform(0.0, camera.horizon * 0.8) * size
        wide = rng.uniform(0.08, 0.2) * size
        tone = (
            int(rng.integers(236, 255)) if sky == "partly cloudy" else int(rng.integers(196, 232))
        )
        for dx, dy in rng.uniform(-1, 1, (7, 2)):
            r = wide * (0.55 - 0.25 * abs(dx))
            cx, cy = x + dx * wide, y + dy * wide * 0.18
            draw.ellipse(
                (cx - r, cy - 0.5 * r, cx + r, cy + 0.45 * r), fill=(tone, tone, tone + 0, 130)
            )
    return canvas


def paint(
    size: int, camera: Camera, *, time: str, sky: str, rng: np.random.Generator
) -> Image.Image:
    """Draw the empty street: an RGB canvas of `size` x `size` pixels.

    `rng` moves the clouds; everything else comes from the camera.
    """
    canvas = _sky(size, camera, time, sky, rng)
    street = _Street(canvas, camera)
    street.skyline()
    (street.ground_along if camera.along else street.ground_across)()
    street.furniture()
    return canvas
