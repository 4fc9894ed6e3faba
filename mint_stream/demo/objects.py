"""The ten kinds of road users and objects, each drawn by one function.

A drawing stands on the origin, faces right and takes a `Look`: its colour, its variant number
and a few numbers in 0..1 that vary the pose. `EXTENT` holds width and height in metres.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from mint_stream.demo.pen import Colour, Pen, blend, shade

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
_VEHICLE = ("red", "blue", "green", "yellow", "white", "black", "grey", "orange")
PALETTE: dict[str, tuple[str, ...]] = {
    "car": _VEHICLE,
    "bus": ("red", "blue", "green", "yellow", "white", "orange", "purple"),
    "truck": ("red", "blue", "green", "white", "yellow", "orange", "grey"),
    "bicycle": ("red", "blue", "green", "yellow", "black", "purple", "pink"),
    "motorcycle": ("red", "blue", "green", "black", "yellow", "orange"),
    "pedestrian": ("red", "blue", "green", "yellow", "white", "black", "purple", "pink", "grey"),
    "dog": ("brown", "black", "white", "grey", "golden"),
    "traffic light": ("red", "yellow", "green"),
    "stop sign": ("red",),
    "traffic cone": ("orange", "red", "yellow"),
}
LABELS: tuple[str, ...] = tuple(PALETTE)

TYRE, RIM, GLASS, STEEL = (26, 26, 28), (168, 172, 178), (70, 92, 112), (120, 124, 130)
LAMP, TAIL, SKIN = (255, 244, 200), (196, 24, 24), ((236, 190, 158), (198, 142, 104), (112, 74, 52))


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one object looks: body colour, which variant, the view, and three pose numbers."""

    colour: Colour
    variant: int
    front: bool
    pose: tuple[float, float, float]


def _wheel(pen: Pen, x: float, r: float) -> None:
    pen.disc(x, r, r, TYRE)
    pen.disc(x, r, r * 0.62, RIM)
    pen.disc(x, r, r * 0.42, shade(RIM, 0.55))
    for k in range(5):
        angle = 2 * math.pi * k / 5 + 0.3
        tip = (x + r * 0.55 * math.cos(angle), r + r * 0.55 * math.sin(angle))
        pen.line([(x, r), tip], RIM, r * 0.16)


def _glass(pen: Pen, points: list[tuple[float, float]]) -> None:
    pen.poly(points, GLASS)
    (x0, y0), (x1, y1) = points[0], points[2]
    pen.line(
        [(x0 + (x1 - x0) * 0.25, y0 + 0.03), (x0 + (x1 - x0) * 0.5, y1 - 0.04)],
        (150, 176, 194),
        0.07,
    )


def _car_side(pen: Pen, look: Look) -> None:
    c = look.colour
    roof = (1.42, 1.46, 1.66)[look.variant % 3]
    tail, back = ((-1.55, -0.95), (-2.0, -1.7), (-2.02, -1.8))[look.variant % 3]
    front, hood = ((0.32, 1.02), (0.3, 1.0), (0.45, 1.05))[look.variant % 3]
    waist = 0.92 if look.variant % 3 < 2 else 1.04
    pen.poly(
        [
            (-2.1, 0.3), (-2.12, 0.7), (-2.06, waist), (tail, waist + 0.04), (back, roof - 0.05),
            (back + 0.2, roof), (front - 0.12, roof), (front, roof - 0.04), (hood, waist + 0.03),
            (1.85, waist - 0.1), (2.1, waist - 0.28), (2.12, 0.3),
        ],
        c,
    )  # fmt: skip
    pen.poly([(-2.12, 0.3), (-2.12, 0.58), (2.12, 0.55), (2.12, 0.3)], shade(c, 0.68))
    pen.line([(-2.06, waist - 0.06), (1.8, waist - 0.12)], blend(c, (255, 255, 255), 0.4), 0.05)
    low, high, middle = waist + 0.03, roof - 0.1, (back + front) / 2
    _glass(
        pen, [(tail + 0.28, low), (middle - 0.05, low), (middle - 0.05, high), (back + 0.16, high)]
    )
    _glass(
        pen, [(middle + 0.06, low), (hood - 0.16, low), (front - 0.1, high), (middle + 0.06, high)]
    )
    for x in (middle, tail + 0.25):
        pen.line([(x, 0.36), (x, waist)], shade(c, 0.6), 0.03)
    pen.box(middle + 0.08, waist - 0.2, middle + 0.3, waist - 0.15, shade(c, 0.5))
    pen.disc(1.3, 0.35, 0.46, shade(c, 0.3))
    pen.disc(-1.3, 0.35, 0.46, shade(c, 0.3))
    _wheel(pen, 1.3, 0.37)
    _wheel(pen, -1.3, 0.37)
    pen.slab(1.84, waist - 0.38, 2.1, waist - 0.22, 0.05, LAMP)
    pen.slab(-2.12, waist - 0.3, -1.92, waist - 0.1, 0.05, TAIL)


def _car_front(pen: Pen, look: Look) -> None:
    c, rear = look.colour, look.variant % 2 == 1
    for x in (-0.84, 0.56):
        pen.box(x, 0.0, x + 0.28, 0.5, TYRE)
    pen.poly([(-0.74, 0.85), (-0.6, 1.42), (-0.4, 1.5), (0.4, 1.5), (0.6, 1.42), (0.74, 0.85)], c)
    _glass(pen, [(-0.66, 0.9), (0.66, 0.9), (0.53, 1.38), (-0.53, 1.38)])
    pen.slab(-0.92, 0.24, 0.92, 0.94, 0.16, c)
    pen.slab(-0.9, 0.22, 0.9, 0.44, 0.08, shade(c, 0.6))
    pen.line([(-0.75, 0.9), (0.75, 0.9)], blend(c, (255, 255, 255), 0.45), 0.05)
    for side in (-1, 1):
        pen.disc(side * 1.0, 0.98, 0.12, shade(c, 0.75), 0.08)
        pen.disc(side * 0.66, 0.68, 0.18, TAIL if rear else LAMP, 0.11)
        pen.disc(side * 0.66, 0.68, 0.09, (255, 90, 70) if rear else (255, 255, 255), 0.07)
    if rear:
        pen.line([(-0.4, 0.78), (0.4, 0.78)], shade(c, 0.7), 0.04)
    else:
        pen.slab(-0.38, 0.56, 0.38, 0.76, 0.06, (34, 34, 38))
    pen.box(-0.24, 0.34, 0.24, 0.47, (240, 240, 225))


def _car(pen: Pen, look: Look) -> None:
    (_car_front if look.front else _car_side)(pen, look)


def _bus_side(pen: Pen, look: Look) -> None:
    c = look.colour
    trim = (245, 245, 240) if sum(c) < 560 else (60, 90, 150)
    pen.slab(-4.3, 0.35, 4.3, 3.05, 0.3, c)
    pen.box(-4.3, 0.4, 4.3, 0.8, shade(c, 0.7))
    pen.box(-4.28, 1.2, 4.28, 1.36, trim)
    pen.slab(-4.15, 1.55, 4.2, 2.62, 0.12, (40, 46, 54))
    for k in range(6):
        x = -4.0 + k * 1.22
        _glass(pen, [(x, 1.64), (x + 1.08, 1.64), (x + 1.08, 2.52), (x, 2.52)])
    _glass(pen, [(3.4, 1.64), (4.16, 1.64), (4.16, 2.52), (3.4, 2.52)])
    door = 2.2 if look.variant % 2 else -0.3
    pen.box(door, 0.5, door + 1.05, 2.55, (34, 38, 46))
    for k in (0.08, 0.56):
        pen.box(door + k, 0.62, door + k + 0.4, 2.42, blend(GLASS, (210, 230, 240), 0.35))
    pen.slab(1.2, 2.68, 4.1, 2.95, 0.06, (24, 24, 24))
    pen.box(1.5, 2.76, 3.6, 2.88, (255, 176, 40))
    for x in (2.75 if door < 0 else 3.75, -2.7):
        pen.disc(min(x, 3.5), 0.5, 0.66, shade(c, 0.28))
        _wheel(pen, min(x, 3.5), 0.5)
    pen.box(4.14, 0.72, 4.32, 0.98, LAMP)
    pen.box(-4.32, 0.72, -4.16, 1.1, TAIL)


def _bus_front(pen: Pen, look: Look) -> None:
    c = look.colour
    for x in (-1.2, 0.8):
        pen.box(x, 0.0, x + 0.4, 0.6, TYRE)
    pen.slab(-1.3, 0.3, 1.3, 3.1, 0.25, c)
    pen.slab(-1.28, 0.3, 1.28, 0.7, 0.1, shade(c, 0.62))
    pen.slab(-1.15, 1.25, 1.15, 2.5, 0.15, (36, 42, 50))
    _glass(pen, [(-1.08, 1.32), (-0.04, 1.32), (-0.04, 2.42), (-1.08, 2.42)])
    _glass(pen, [(0.04, 1.32), (1.08, 1.32), (1.08, 2.42), (0.04, 2.42)])
    pen.slab(-0.95, 2.6, 0.95, 2.94, 0.06, (22, 22, 22))
    pen.box(-0.7, 2.69, 0.7, 2.85, (255, 176, 40))
    for side in (-1, 1):
        pen.disc(side * 0.98, 0.86, 0.17, LAMP)
        pen.disc(side * 0.62, 0.86, 0.12, (255, 186, 90))
        pen.slab(side * 1.42 - 0.1, 1.7, side * 1.42 + 0.1, 2.3, 0.06, (30, 30, 32))
        pen.line([(side * 1.25, 2.6), (side * 1.42, 2.25)], (30, 30, 32), 0.06)
    pen.box(-0.3, 0.45, 0.3, 0.6, (240, 240, 225))


def _bus(pen: Pen, look: Look) -> None:
    (_bus_front if look.front else _bus_side)(pen, look)


def _truck(pen: Pen, look: Look) -> None:
    c, kind = look.colour, look.variant % 3
    pen.box(-3.5, 0.55, 2.9, 0.82, (46, 46, 50))
    if kind == 0:  # a closed box, lighter than the cab
        load = blend(c, (250, 250, 250), 0.72)
        pen.box(-3.55, 0.8, 1.45, 3.3, load)
        pen.box(-3.55, 0.8, 1.45, 1.0, shade(load, 0.72))
        pen.box(-3.55, 3.2, 1.45, 3.3, shade(load, 0.85))
        for k in range(1, 6):
            pen.line([(-3.55 + k * 0.83, 1.0), (-3.55 + k * 0.83, 3.2)], shade(load, 0.9), 0.04)
        pen.box(-2.7, 1.75, 0.6, 2.4, c)
    elif kind == 1:  # a tipper full of sand
        pen.poly([(-3.3, 2.0), (-2.2, 2.85), (-0.6, 3.0), (0.9, 2.5), (1.3, 2.0)], (176, 142, 96))
        pen.poly([(-3.7, 2.3), (-3.3, 0.85), (1.3, 0.85), (1.45, 2.3)], shade(c, 0.85))
        for k in range(5):
            x = -3.1 + k * 0.98
            pen.line([(x, 0.95), (x, 2.25)], shade(c, 0.62), 0.12)
        pen.line([(-3.7, 2.27), (1.45, 2.27)], shade(c, 0.6), 0.12)
    else:  # a tanker
        pen.slab(-3.6, 0.95, 1.4, 2.75, 0.8, (196, 202, 208))
        pen.slab(-3.5, 2.2, 1.3, 2.55, 0.17, (232, 236, 240))
        pen.slab(-3.5, 1.0, 1.3, 1.35, 0.17, (138, 144, 152))
        pen.box(-3.58, 1.68, 1.38, 1.92, c)
        for x in (-2.4, -1.1, 0.2):
            pen.line([(x, 0.98), (x, 2.73)], (150, 156, 162), 0.06)
            pen.slab(x - 0.25, 2.7, x + 0.25, 2.9, 0.05, (120, 124, 130))
    pen.poly(
        [(1.6, 0.55), (1.6, 2.75), (1.75, 2.85), (2.85, 2.8), (3.3, 1.75), (3.4, 1.6), (3.42, 0.5)],
        c,
    )
    pen.poly([(1.6, 0.5), (1.6, 0.95), (3.42, 0.95), (3.42, 0.5)], shade(c, 0.66))
    _glass(pen, [(2.1, 1.7), (3.16, 1.7), (2.78, 2.6), (2.1, 2.6)])
    pen.line([(1.98, 0.7), (1.98, 2.7)], shade(c, 0.6), 0.05)
    pen.box(2.12, 1.42, 2.42, 1.5, shade(c, 0.45))
    pen.box(3.2, 0.98, 3.44, 1.25, LAMP)
    pen.line([(1.52, 0.9), (1.52, 3.15)], STEEL, 0.12)
    for x in (2.55, -1.6, -2.7):
        pen.disc(x, 0.5, 0.62, (30, 30, 32))
        _wheel(pen, x, 0.52)


def _spoked(pen: Pen, x: float, r: float) -> None:
    pen.ring(x, r, r - 0.03, 0.065, TYRE)
    pen.ring(x, r, r - 0.075, 0.025, (170, 174, 180))
    for k in range(6):
        angle = math.pi * k / 6
        dx, dy = (r - 0.08) * math.cos(angle), (r - 0.08) * math.sin(angle)
        pen.line([(x - dx, r - dy), (x + dx, r + dy)], (150, 154, 160), 0.012)
    pen.disc(x, r, 0.045, (60, 60, 64))


def _bicycle(pen: Pen, look: Look) -> None:
    c, r = look.colour, 0.36
    back, front, crank = (-0.54, r), (0.56, r), (-0.08, 0.3)
    _spoked(pen, back[0], r)
    _spoked(pen, front[0], r)
    seat, head = (-0.22, 0.84), (0.36, 0.84)
    pen.line([back, crank, (0.36, 0.76)], c, 0.065)
    pen.line([back, (-0.2, 0.76)], c, 0.05)
    pen.line([crank, seat], c, 0.065)
    if look.variant % 2:  # a low frame
        pen.line([(-0.13, 0.5), (0.36, 0.74)], c, 0.065)
    else:
        pen.line([(-0.2, 0.76), (0.38, 0.78)], c, 0.065)
    pen.line([front, head, (0.34, 0.98)], shade(c, 0.8), 0.06)
    pen.line([(0.34, 0.98), (0.46, 1.02), (0.5, 0.93)], (30, 30, 32), 0.05)
    pen.line([(0.34, 0.98), (0.2, 1.0)], (30, 30, 32), 0.05)
    pen.line([seat, (-0.24, 0.92)], STEEL, 0.04)
    pen.slab(-0.4, 0.9, -0.08, 0.98, 0.04, (34, 30, 28))
    pen.disc(*crank, 0.1, (70, 70, 74))
    pen.disc(*crank, 0.06, (150, 150, 154))
    angle = look.pose[0] * 2 * math.pi
    dx, dy = 0.16 * math.cos(angle), 0.16 * math.sin(angle)
    pen.line([(crank[0] - dx, crank[1] - dy), (crank[0] + dx, crank[1] + dy)], (40, 40, 44), 0.035)
    if look.pose[1] > 0.6:
        pen.poly([(0.42, 0.72), (0.72, 0.72), (0.78, 0.96), (0.4, 0.96)], (156, 112, 66))
    if look.pose[2] > 0.6:
        pen.line([(-0.84, 0.72), (-0.26, 0.74)], (60, 60, 64), 0.05)
        pen.slab(-0.8, 0.42, -0.42, 0.72, 0.05, shade(c, 0.55))
    pen.line([(-0.92, 0.42), (-0.76, 0.7), (-0.5, 0.78)], shade(c, 0.7), 0.04)


def _motorcycle(pen: Pen, look: Look) -> None:
    c = look.colour
    for x in (-0.72, 0.74):
        pen.disc(x, 0.34, 0.34, TYRE)
        pen.disc(x, 0.34, 0.21, (120, 122, 128))
        pen.disc(x, 0.34, 0.15, (48, 48, 52))
        pen.disc(x, 0.34, 0.06, RIM)
    pen.line([(-0.72, 0.34), (-0.1, 0.4)], (90, 92, 98), 0.12)
    pen.line([(0.74, 0.34), (0.44, 1.02)], (176, 180, 186), 0.09)
    pen.slab(-0.32, 0.24, 0.34, 0.66, 0.12, (64, 66, 72))
    for k in range(4):
        pen.line([(-0.02, 0.34 + k * 0.08), (0.3, 0.34 + k * 0.08)], (150, 152, 158), 0.03)
    pen.line([(0.1, 0.3), (-0.2, 0.2), (-1.0, 0.26)], (198, 200, 206), 0.09)
    pen.poly([(-0.3, 0.66), (-0.18, 0.86), (0.14, 1.0), (0.42, 0.92), (0.46, 0.72), (0.2, 0.62)], c)
    pen.line([(-0.06, 0.9), (0.16, 0.96), (0.36, 0.91)], blend(c, (255, 255, 255), 0.5), 0.04)
    pen.poly(
        [(-1.02, 0.84), (-0.92, 0.74), (-0.26, 0.66), (-0.1, 0.84), (-0.5, 0.84)], (34, 32, 34)
    )
    pen.poly([(-1.06, 0.7), (-1.02, 0.86), (-0.66, 0.76), (-0.6, 0.62)], c)
    pen.slab(-1.1, 0.72, -1.0, 0.82, 0.02, TAIL)
    pen.poly([(0.42, 0.68), (0.6, 0.76), (1.02, 0.7), (1.08, 0.52), (0.98, 0.64), (0.7, 0.68)], c)
    if look.variant % 2:  # a fairing with a screen
        pen.poly([(0.3, 0.56), (0.4, 1.06), (0.62, 1.04), (0.78, 0.84), (0.58, 0.56)], c)
        pen.poly([(0.42, 1.04), (0.44, 1.26), (0.62, 1.03)], (150, 180, 200))
    pen.disc(0.64, 0.94, 0.12, (52, 52, 56))
    pen.disc(0.68, 0.94, 0.09, LAMP)
    pen.line([(0.46, 1.04), (0.3, 1.14), (0.14, 1.1)], (30, 30, 32), 0.06)
    pen.line([(0.4, 1.1), (0.46, 1.26)], (30, 30, 32), 0.03)
    pen.disc(0.46, 1.28, 0.07, (60, 64, 70), 0.05)


def _pedestrian(pen: Pen, look: Look) -> None:
    c, skin = look.colour, SKIN[look.variant % 3]
    trousers = ((44, 54, 86), (58, 56, 58), (120, 96, 68), (30, 30, 34))[look.variant % 4]
    hair = ((48, 32, 22), (24, 20, 20), (150, 110, 60))[look.variant % 3]
    stride = (0.1 + 0.24 * look.pose[0]) * (0.45 if look.front else 1.0)
    swing = stride * 0.9
    pen.limb([(0.02, 1.36), (-swing * 0.6, 1.12), (-swing * 0.7 + 0.06, 0.9)], shade(c, 0.65), 0.12)
    pen.disc(-swing * 0.7 + 0.06, 0.87, 0.055, skin)
    for side, tone in ((-1, 0.7), (1, 1.0)):
        foot = side * stride
        pen.limb(
            [(side * 0.04, 0.86), (foot * 0.65 + 0.04, 0.46), (foot, 0.08)],
            shade(trousers, tone),
            0.17,
        )
        pen.slab(foot - 0.08, 0.0, foot + 0.17, 0.09, 0.03, (36, 30, 28))
    if look.pose[2] > 0.75:  # a skirt or a long coat
        pen.poly([(-0.2, 0.95), (0.2, 0.95), (0.27, 0.52), (-0.27, 0.52)], shade(c, 0.8))
    wide = 0.25 if look.front else 0.2
    pen.slab(-wide, 0.82, wide, 1.47, 0.1, c)
    pen.box(-wide + 0.02, 0.84, wide - 0.02, 0.92, shade(c, 0.7))
    pen.box(-0.06, 1.4, 0.06, 1.54, shade(skin, 0.85))
    if look.pose[1] > 0.6:  # a backpack
        pen.slab(-wide - 0.17, 0.98, -wide + 0.04, 1.42, 0.06, (70, 84, 60))
    pen.limb([(0.0, 1.36), (swing * 0.6, 1.12), (swing * 0.9 + 0.05, 0.92)], shade(c, 0.88), 0.12)
    pen.disc(swing * 0.9 + 0.06, 0.89, 0.055, skin)
    pen.disc(0.0, 1.65, 0.125, skin, 0.15)
    pen.poly(
        [
            (-0.14, 1.6),
            (-0.14, 1.74),
            (-0.06, 1.82),
            (0.07, 1.82),
            (0.13, 1.73),
            (0.02, 1.73),
            (-0.05, 1.66),
        ],
        hair,
    )
    if look.variant % 5 == 1:
        pen.slab(-0.15, 1.73, 0.15, 1.84, 0.05, shade(c, 0.75))
        pen.box(0.05, 1.73, 0.24, 1.76, shade(c, 0.6))


def _dog(pen: Pen, look: Look) -> None:
    c = look.colour
    dark, light = shade(c, 0.68), blend(c, (255, 250, 240), 0.3)
    lift = 0.08 + 0.14 * look.pose[0]
    for x, tone, step in (
        (-0.3, dark, -lift),
        (0.26, dark, lift),
        (-0.38, c, lift),
        (0.3, c, -lift),
    ):
        pen.limb([(x, 0.4), (x + step * 0.4 - 0.03, 0.22), (x + step, 0.04)], tone, 0.1)
        pen.disc(x + step + 0.03, 0.03, 0.07, tone, 0.035)
    wag = 0.12 + 0.24 * look.pose[1]
    pen.limb([(-0.42, 0.52), (-0.58, 0.58 + wag * 0.5), (-0.64, 0.6 + wag)], c, 0.07)
    pen.disc(-0.3, 0.45, 0.19, c, 0.15)
    pen.disc(-0.02, 0.45, 0.36, c, 0.155)
    pen.disc(0.24, 0.46, 0.18, c, 0.19)
    pen.disc(-0.02, 0.37, 0.3, light, 0.07)
    pen.limb([(0.28, 0.52), (0.44, 0.68)], c, 0.2)
    pen.limb([(0.3, 0.6), (0.42, 0.56)], (190, 30, 36), 0.05)
    pen.disc(0.48, 0.73, 0.14, c, 0.125)
    pen.slab(0.5, 0.62, 0.74, 0.75, 0.05, light)
    pen.disc(0.73, 0.73, 0.04, (24, 20, 20))
    pen.disc(0.53, 0.77, 0.025, (20, 18, 18))
    if look.variant % 2:  # pointed ears
        pen.poly([(0.36, 0.8), (0.38, 0.98), (0.5, 0.84)], dark)
    else:
        pen.poly([(0.42, 0.84), (0.32, 0.8), (0.3, 0.6), (0.4, 0.62)], dark)
    if look.variant % 3 == 2:
        pen.disc(-0.1, 0.5, 0.12, dark, 0.09)
        pen.disc(0.16, 0.54, 0.07, dark, 0.06)


def _traffic_light(pen: Pen, look: Look) -> None:
    pen.box(-0.06, 0.0, 0.06, 1.2, (92, 96, 100))
    pen.box(-0.06, 0.0, -0.01, 1.2, (136, 140, 144))
    pen.slab(-0.15, 0.0, 0.15, 0.12, 0.03, (80, 84, 88))
    case = (34, 36, 38) if look.variant % 3 else (206, 166, 30)
    pen.slab(-0.33, 1.05, 0.33, 2.55, 0.08, (222, 222, 218))
    pen.slab(-0.29, 1.09, 0.29, 2.51, 0.07, case)
    lit = {"red": 2, "yellow": 1, "green": 0}
    which = next(lit[name] for name in lit if PAINT[name] == look.colour)
    glow = {2: (255, 48, 36), 1: (255, 206, 50), 0: (60, 240, 130)}
    dull = {2: (78, 22, 20), 1: (80, 64, 20), 0: (20, 66, 40)}
    for k in range(3):
        y = 1.34 + 0.46 * k
        pen.disc(0.0, y, 0.2, shade(case, 0.6))
        if k == which:
            pen.disc(0.0, y, 0.18, glow[k])
            pen.disc(-0.03, y + 0.04, 0.08, blend(glow[k], (255, 255, 255), 0.6))
        else:
            pen.disc(0.0, y, 0.17, dull[k])
        pen.poly(
            [
                (-0.21, y + 0.1),
                (-0.15, y + 0.22),
                (0.15, y + 0.22),
                (0.21, y + 0.1),
                (0.14, y + 0.16),
                (-0.14, y + 0.16),
            ],
            (18, 18, 20),
        )


def _octagon(r: float, cy: float) -> list[tuple[float, float]]:
    return [
        (r * math.cos(math.pi * (2 * k + 1) / 8), cy + r * math.sin(math.pi * (2 * k + 1) / 8))
        for k in range(8)
    ]


def _stop_sign(pen: Pen, look: Look) -> None:
    pen.box(-0.045, 0.0, 0.045, 1.7, (150, 154, 158))
    pen.box(0.01, 0.0, 0.045, 1.7, (104, 108, 112))
    cy, white = 1.7, (245, 245, 242)
    pen.poly(_octagon(0.56, cy), white)
    pen.poly(_octagon(0.51, cy), shade(look.colour, 0.9 + 0.15 * look.pose[0]))
    strokes = (
        ((-0.2, 0.1), (-0.34, 0.14), (-0.38, 0.06), (-0.22, -0.05), (-0.26, -0.14), (-0.39, -0.1)),
        ((-0.17, 0.13), (0.01, 0.13)),
        ((-0.08, 0.13), (-0.08, -0.14)),
        (
            (0.06, 0.1),
            (0.13, 0.14),
            (0.19, 0.1),
            (0.19, -0.1),
            (0.13, -0.14),
            (0.06, -0.1),
            (0.06, 0.1),
        ),
        ((0.26, -0.14), (0.26, 0.13), (0.38, 0.12), (0.4, 0.04), (0.36, -0.01), (0.26, -0.01)),
    )
    # Letters are not mirrored, whichever way the pen faces.
    side = -1 if pen.mirror else 1
    for stroke in strokes:
        pen.line([(side * x, cy + y) for x, y in stroke], white, 0.055)
    if look.variant % 3 == 0:
        pen.box(-0.26, 0.88, 0.26, 1.06, white)
        pen.box(-0.23, 0.91, 0.23, 1.03, shade(look.colour, 0.9))


def _traffic_cone(pen: Pen, look: Look) -> None:
    c = look.colour
    pen.poly([(-0.27, 0.0), (-0.23, 0.07), (0.23, 0.07), (0.27, 0.0)], shade(c, 0.6))
    pen.poly([(-0.25, 0.02), (-0.22, 0.07), (0.22, 0.07), (0.25, 0.02)], shade(c, 0.8))

    def band(low: float, high: float, fill: Colour, left: float = -1.0, right: float = 1.0) -> None:
        a, b = (0.18 - 0.2 * (y - 0.06) for y in (low, high))
        pen.poly([(left * a, low), (right * a, low), (right * b, high), (left * b, high)], fill)

    bands = ((0.28, 0.42), (0.54, 0.64)) if look.variant % 2 else ((0.34, 0.54),)
    for low, high, paint in ((0.06, 0.76, c), *((a, b, (244, 244, 240)) for a, b in bands)):
        band(low, high, paint)
        band(low, high, shade(paint, 0.78), left=0.3)
        band(low, high, blend(paint, (255, 255, 255), 0.35), left=-0.75, right=-0.45)
    pen.disc(0.0, 0.76, 0.04, shade(c, 0.5), 0.015)


DRAW: dict[str, Callable[[Pen, Look], None]] = {
    "car": _car,
    "bus": _bus,
    "truck": _truck,
    "bicycle": _bicycle,
    "motorcycle": _motorcycle,
    "pedestrian": _pedestrian,
    "dog": _dog,
    "traffic light": _traffic_light,
    "stop sign": _stop_sign,
    "traffic cone": _traffic_cone,
}

EXTENT: dict[str, tuple[float, float]] = {
    "car": (4.3, 1.6),
    "bus": (8.7, 3.1),
    "truck": (7.2, 3.3),
    "bicycle": (1.9, 1.05),
    "motorcycle": (2.2, 1.3),
    "pedestrian": (0.8, 1.85),
    "dog": (1.4, 1.0),
    "traffic light": (0.66, 2.55),
    "stop sign": (1.12, 2.26),
    "traffic cone": (0.54, 0.78),
}
FRONT_EXTENT: dict[str, tuple[float, float]] = {"car": (2.1, 1.52), "bus": (3.0, 3.12)}
