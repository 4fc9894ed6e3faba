"""Cars, buses, trucks, bicycles and motorcycles, in metres, facing right."""

from __future__ import annotations

import math

from mint_stream.demo.street.look import Look
from mint_stream.demo.street.pen import Pen, blend, shade

TYRE, RIM, GLASS, STEEL = (26, 26, 28), (168, 172, 178), (70, 92, 112), (120, 124, 130)
LAMP, TAIL = (255, 244, 200), (196, 24, 24)


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


def car(pen: Pen, look: Look) -> None:
    """Draw a car: sedan, hatchback or off-roader from the side, or its front or back."""
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
    for wing in (0.08, 0.56):
        pen.box(door + wing, 0.62, door + wing + 0.4, 2.42, blend(GLASS, (210, 230, 240), 0.35))
    pen.slab(1.2, 2.68, 4.1, 2.95, 0.06, (24, 24, 24))
    pen.box(1.5, 2.76, 3.6, 2.88, (255, 176, 40))
    for axle in (2.75 if door < 0 else 3.5, -2.7):
        pen.disc(axle, 0.5, 0.66, shade(c, 0.28))
        _wheel(pen, axle, 0.5)
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


def bus(pen: Pen, look: Look) -> None:
    """Draw a city bus from the side or the front."""
    (_bus_front if look.front else _bus_side)(pen, look)


def truck(pen: Pen, look: Look) -> None:
    """Draw a truck with a box, a tipper or a tank."""
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


def bicycle(pen: Pen, look: Look) -> None:
    """Draw a bicycle; the pose is the pedals, a basket and a bag."""
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


def motorcycle(pen: Pen, look: Look) -> None:
    """Draw a motorcycle, with or without a fairing."""
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
