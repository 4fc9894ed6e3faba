"""The ten kinds of road users and objects: their colours, their sizes and who draws them.

A drawing stands on the origin, faces right and takes a `Look`. `EXTENT` holds width and height in
metres.
"""

from __future__ import annotations

from collections.abc import Callable

from mint_stream.demo.street import bystanders, vehicles
from mint_stream.demo.street.look import Look
from mint_stream.demo.street.pen import Pen

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

DRAW: dict[str, Callable[[Pen, Look], None]] = {
    "car": vehicles.car,
    "bus": vehicles.bus,
    "truck": vehicles.truck,
    "bicycle": vehicles.bicycle,
    "motorcycle": vehicles.motorcycle,
    "pedestrian": bystanders.pedestrian,
    "dog": bystanders.dog,
    "traffic light": bystanders.traffic_light,
    "stop sign": bystanders.stop_sign,
    "traffic cone": bystanders.traffic_cone,
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
