"""Rich captions: what a frame shows and how it was taken, in random words, with parts left out.

A caption says only what is true of its picture. That is what makes the text tower listen to the
words around the class name, and so to the context tokens that test-time tuning moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mint_stream.demo.street.look import PAINT
from mint_stream.demo.street.scene import Scene

_NAMES: dict[str, tuple[str, ...]] = {
    "car": ("car", "car", "car", "automobile", "motor car", "parked car"),
    "bus": ("bus", "bus", "bus", "city bus", "coach"),
    "truck": ("truck", "truck", "truck", "lorry", "goods truck"),
    "bicycle": ("bicycle", "bicycle", "bicycle", "bike", "cycle", "push bike"),
    "motorcycle": ("motorcycle", "motorcycle", "motorcycle", "motorbike"),
    "pedestrian": ("pedestrian", "pedestrian", "pedestrian", "person", "person walking", "walker"),
    "dog": ("dog", "dog", "dog", "hound", "dog walking", "puppy"),
    "traffic light": (
        "traffic light",
        "traffic light",
        "traffic light",
        "traffic signal",
        "stoplight",
    ),
    "stop sign": ("stop sign", "stop sign", "stop sign", "stop road sign", "octagonal stop sign"),
    "traffic cone": (
        "traffic cone",
        "traffic cone",
        "traffic cone",
        "road cone",
        "safety cone",
        "pylon",
    ),
}
_COLOURS: dict[str, tuple[str, ...]] = {
    "grey": ("grey", "gray", "silver"),
    "golden": ("golden", "light brown", "tan"),
    "white": ("white", "white", "pale"),
    "black": ("black", "black", "dark"),
    "purple": ("purple", "violet"),
}
_SIZES = (("small", "little", "distant", "far"), ("", ""), ("large", "big", "near", "close"))
_PLACES: dict[str, tuple[str, ...]] = {
    "city street": ("on a city street", "in the city", "in front of tall buildings", "downtown"),
    "shopping street": ("on a shopping street", "in front of shops", "near stores", "in town"),
    "suburban street": ("on a suburban street", "in front of houses", "in a suburb", "near homes"),
    "park road": ("on a park road", "in a park", "in front of trees", "near the trees"),
    "country road": ("on a country road", "in the country", "on a rural road", "near fields"),
}
_TIMES: dict[str, tuple[str, ...]] = {
    "morning": ("in the morning", "in morning light", "early in the day", "before noon"),
    "noon": ("at noon", "at midday", "in the middle of the day", "in daylight"),
    "afternoon": ("in the afternoon", "in afternoon light", "late in the day", "in warm sunlight"),
}
_SKIES: dict[str, tuple[str, ...]] = {
    "clear": ("under a clear sky", "under a blue sky", "in clear weather", "in sunny weather"),
    "partly cloudy": ("under a partly cloudy sky", "under a few clouds", "with some clouds"),
    "cloudy": ("under a cloudy sky", "under many clouds", "in cloudy weather", "under a grey sky"),
}
_LOOKS: dict[str, tuple[str, ...]] = {
    "dark": ("dark", "dim", "underexposed", "gloomy", "badly lit", "low light"),
    "bright": ("bright", "overexposed", "very light", "glaring"),
    "flat": ("pale", "faded", "hazy", "low contrast", "flat", "washed out"),
    "crisp": ("high contrast", "crisp", "clear"),
    "cold": ("bluish", "cold", "cool"),
    "warm": ("warm", "orange tinted", "yellowish"),
    "grey": ("grey", "colorless", "almost black and white", "monochrome", "dull"),
    "vivid": ("colorful", "vivid"),
    "blurry": ("blurry", "blurred", "unsharp", "out of focus", "soft"),
    "sharp": ("sharp", "good", "clean"),
    "close": ("close up", "cropped", "zoomed"),
    "wide": ("wide", "full"),
    "tilted": ("tilted", "crooked", "slanted"),
}
_VIEWS = (" facing the camera", " seen from the front or back")
_SIDES = (" facing", " heading", " pointing")
CONTEXT = "a photo of a"
_TAKEN = ("photo", "photo", "photo", "picture", "image", "street photo", "camera frame", "snapshot")


@dataclass(frozen=True, kw_only=True)
class Shot:
    """How a frame was taken; 0 is neutral for each, about -1..1 the range of a clear day.

    `exposure`, `contrast`, `warmth`, `saturation` and `focus` are signed (focus only negative);
    `area` is the share of the frame that the crop keeps, `tilt` its rotation in degrees.
    `readings` are three of the camera's instruments that no picture shows (a clock, a compass, a
    thermometer), standard normal.
    """

    exposure: float
    contrast: float
    warmth: float
    saturation: float
    focus: float
    area: float
    tilt: float
    flipped: bool
    readings: tuple[float, float, float]


def _looks(shot: Shot) -> list[tuple[str, ...]]:
    """The words for all that is remarkable about how the frame was taken."""
    remarkable = (
        ("dark", shot.exposure < -0.4),
        ("bright", shot.exposure > 0.4),
        ("flat", shot.contrast < -0.4),
        ("crisp", shot.contrast > 0.4),
        ("cold", shot.warmth < -0.4),
        ("warm", shot.warmth > 0.4),
        ("grey", shot.saturation < -0.5),
        ("vivid", shot.saturation > 0.5),
        ("blurry", shot.focus < -0.6),
        ("sharp", shot.focus > -0.1),
        ("close", shot.area < 0.45),
        ("wide", shot.area > 0.85),
        ("tilted", abs(shot.tilt) > 4),
    )
    return [_LOOKS[name] for name, holds in remarkable if holds]


def phrases() -> list[str]:
    """Every phrase that a caption may hold: the vocabulary of training."""
    tables = (_NAMES, _COLOURS, _PLACES, _TIMES, _SKIES, _LOOKS)
    found = [phrase for table in tables for options in table.values() for phrase in options]
    found += [*PAINT, *_TAKEN, *(size for sizes in _SIZES for size in sizes), *_VIEWS]
    return [*found, *(f"{side} left right" for side in _SIDES), "a an of , ."]


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def soft_caption(scene: Scene, rng: np.random.Generator) -> str:
    """A caption whose context is to say in numbers how the frame was taken (`train_clip.py`)."""
    name = _pick(_NAMES[scene.label], rng)
    if scene.label != "stop sign" and rng.random() < 0.5:
        name = f"{_pick(_COLOURS.get(scene.colour, (scene.colour,)), rng)} {name}"
    return f"{CONTEXT} {name}."


def caption(scene: Scene, shot: Shot, rng: np.random.Generator) -> str:
    """Describe a frame. Every part but the object may be missing; phrasing and order vary."""

    def pick(options: tuple[str, ...]) -> str:
        return _pick(options, rng)

    short = rng.random() < 0.15
    noun = [pick(_NAMES[scene.label])]
    if not short and rng.random() < 0.6 and scene.label != "stop sign":
        noun.insert(0, pick(_COLOURS.get(scene.colour, (scene.colour,))))
    if not short and rng.random() < 0.35:
        noun.insert(0, pick(_SIZES[0 if scene.fill < 0.68 else 2 if scene.fill > 0.8 else 1]))
    about = " ".join(word for word in noun if word)
    if not short and scene.label not in ("traffic light", "stop sign", "traffic cone"):
        if scene.front and rng.random() < 0.3:
            about += _VIEWS[0] if scene.label == "bus" else _VIEWS[1]
        elif not scene.front and rng.random() < 0.3:
            side = "left" if scene.left != shot.flipped else "right"
            about += f"{pick(_SIDES)} {side}"
    looks = _looks(shot)
    taken = [pick(words) for words in looks if rng.random() < (0.15 if short else 0.75)]
    rng.shuffle(taken)
    how = " ".join([*taken, pick(_TAKEN)])
    parts = []
    if not short:
        for share, options in (
            (0.45, _PLACES[scene.camera.place]),
            (0.4, _TIMES[scene.time]),
            (0.3, _SKIES[scene.sky]),
        ):
            if rng.random() < share:
                parts.append(pick(options))
        rng.shuffle(parts)
    article = "an" if about[0] in "aeiou" else "a"
    how_article = "an" if how[0] in "aeiou" else "a"
    form = rng.random()
    tail = "".join(f" {part}" for part in parts)
    if form < 0.7:
        return f"{how_article} {how} of {article} {about}{tail}."
    if form < 0.85:
        return f"{article} {about}{tail}, {how_article} {how}."
    return f"{article} {about}{tail}."
