"""Pedestrians, dogs, traffic lights, stop signs and traffic cones, in metres, facing right."""

from __future__ import annotations

import math

from mint_stream.demo.street.look import PAINT, Look
from mint_stream.demo.street.pen import Colour, Pen, blend, shade

SKIN = ((236, 190, 158), (198, 142, 104), (112, 74, 52))


def pedestrian(pen: Pen, look: Look) -> None:
    """Draw someone who walks; the pose is stride, backpack and skirt."""
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


def dog(pen: Pen, look: Look) -> None:
    """Draw a walking dog; the pose is its step and its tail."""
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


def traffic_light(pen: Pen, look: Look) -> None:
    """Draw a traffic light; its colour is the lamp that is lit."""
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


def stop_sign(pen: Pen, look: Look) -> None:
    """Draw a stop sign on its pole."""
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


def traffic_cone(pen: Pen, look: Look) -> None:
    """Draw a traffic cone with one or two white bands."""
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
