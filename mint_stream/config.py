"""What a run is made of: small frozen dataclasses, checked where they are built.

`MethodConfig` is a preset, a complete and named set of hyper-parameters (METHOD.md calls them the
symbols); `ModelConfig` says which CLIP, where and in which precision; `RunConfig` is one
invocation of the pipeline. None of them ever holds a secret: credentials stay in the environment.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

Dtype = Literal["auto", "float32", "bfloat16", "float64"]
BankScope = Literal["shared", "camera"]
Adapt = Literal["on", "shadow", "off"]

_PUBLISHED = frozenset({"mint", "tpt", "zero"})
_CAMERA_NUMBERS = 64
"""Numbers of a camera's row (`method.camera_table`) besides its arrays, and some to spare."""
_BY_STEPS = frozenset({"mint", "tpt"})
"""Algorithms that do nothing without optimisation steps."""

METHODS_GROUP = "mint_stream.methods"
"""Entry points of other packages: a class with the verbs of `method.methods.Method`, by the name of
its algorithm, whose `presets` are `MethodConfig`s."""

BUNDLED = "bundled"
"""The name of the small CLIP that the package ships. It knows rendered street scenes alone, so that
it is used where it is asked for by name, and in the quickstart."""
BUNDLED_FOLDER = Path(__file__).parent / "demo" / "clip"
BUNDLED_LABELS = BUNDLED_FOLDER.parent / "labels.txt"
"""The ten classes that it knows."""
WHICH_MODEL = (
    "named: a model of open_clip with its weights (ViT-B-16 with laion2b_s34b_b88k), a folder with "
    f"a configuration and weights, or {BUNDLED} for the small CLIP of the demonstration, which "
    "knows rendered street scenes and nothing else"
)
"""What is allowed as a model."""


_QUERY = re.compile(r"(https?://[^\s'\"<>?]+)\?[^\s'\"<>]*?(?=[:;,.)]*(?:[\s'\"<>]|$))")


def without_queries(text: str) -> str:
    """`text` with the queries of web addresses cut off: a presigned one is as good as a key."""
    return _QUERY.sub(r"\1", text)


class ConfigError(ValueError):
    """A setting that cannot work. The message names the field, its value and what is allowed."""

    def __init__(self, message: str = "") -> None:
        super().__init__(without_queries(message))


def require(holds: bool, field: str, value: object, allowed: str) -> None:
    """Raise `ConfigError` naming `field`, its `value` and what is `allowed` unless `holds`."""
    if not holds:
        raise ConfigError(f"{field} is {value!r}; it must be {allowed}")


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """The hyper-parameters of the method, under METHOD.md's words.

    The defaults are the published values (the `paper` preset).
    """

    name: str = "paper"
    views: int = 64
    """V: the image itself and V - 1 random resized crops with horizontal flips."""
    min_crop_area: float = 0.08
    """Smallest share of the image's area that a random crop may cover (torchvision's default)."""
    bank_size: int = 512
    """K: entries in the Memory Prompt Bank."""
    prompt_rows: int = 2
    """P: rows of an entry's prompt; half are keys, half are values of the prefix."""
    retrieved: int = 2
    """R: entries retrieved for each query level."""
    query_levels: int = 3
    """Q: the CLS token is a query after Q blocks, evenly spaced up to the last one."""
    context: str = "a photo of a"
    """The phrase whose token embeddings are the initial context tokens (label-free start)."""
    steps: int = 3
    """S: optimisation steps for each image; 0 means no adaptation at all."""
    confident_share: float = 0.1
    """int(share * V) views of lowest entropy enter the entropy term."""
    learning_rate: float = 5e-3
    weight_decay: float = 0.01
    distance_weight: float = -0.2
    """Factor of the distance term in the loss; negative moves retrieved keys away."""
    algorithm: str = "mint"
    """`mint` adapts bank and text to each image, `domains` learns what each domain of the stream
    does to the features, `tpt` adapts the text alone (Shu et al. 2022), `zero` lets the confident
    views vote and adapts nothing (Farina et al. 2024)."""
    templates: tuple[str, ...] = ()
    """Sentences with `{}` for the class name, instead of those of the class list."""
    half_life: float = 48.0
    """`domains`: frames of a domain after which what was seen before counts half."""
    new_domain: float = 0.3
    """`domains`: a new entry is used for frames whose mean query lies further than this from the
    nearest key, in units of the spread of a domain's queries."""
    frozen_share: float = 0.3
    """`domains`: weight of the frozen model's logits in an adapted answer."""
    guard: bool = True
    """`domains`: whether the frozen answer stands where `guard` does not trust the adapted one."""

    def __post_init__(self) -> None:
        require(self.views >= 1, "views", self.views, "at least 1")
        require(0 < self.min_crop_area <= 1, "min_crop_area", self.min_crop_area, "in (0, 1]")
        require(self.bank_size >= 1, "bank_size", self.bank_size, "at least 1")
        require(
            self.prompt_rows >= 2 and self.prompt_rows % 2 == 0,
            "prompt_rows",
            self.prompt_rows,
            "even and at least 2 (half keys, half values)",
        )
        require(
            not self.published or 1 <= self.retrieved <= self.bank_size,
            "retrieved",
            self.retrieved,
            f"between 1 and bank_size ({self.bank_size})",
        )
        require(self.query_levels >= 1, "query_levels", self.query_levels, "at least 1")
        require(self.steps >= 0, "steps", self.steps, "0 or more")
        require(
            not self.picks_views or int(self.confident_share * self.views) >= 1,
            "confident_share",
            self.confident_share,
            f"large enough to choose at least one of {self.views} views",
        )
        require(self.confident_share <= 1, "confident_share", self.confident_share, "at most 1")
        require(self.half_life > 0, "half_life", self.half_life, "positive")
        require(self.new_domain > 0, "new_domain", self.new_domain, "positive")
        require(0 <= self.frozen_share <= 1, "frozen_share", self.frozen_share, "in [0, 1]")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "positive")
        require(
            0 <= self.weight_decay * self.learning_rate < 1,
            "weight_decay",
            self.weight_decay,
            "0 or more, and below 1 / learning_rate",
        )

    @property
    def adapts(self) -> bool:
        """Whether this preset's answers are others than the frozen model's on the image itself."""
        return self.steps > 0 or self.algorithm not in _BY_STEPS

    @property
    def published(self) -> bool:
        """Whether it is one of the published methods, which start from a bank drawn at random."""
        return self.algorithm in _PUBLISHED

    def bank_seed(self, seed: int) -> int | None:
        """What a bank starts from (`bank_state.initial_state`) in a run with `seed`."""
        return seed if self.published else None

    def fitted(self, classes: int, width: int) -> MethodConfig:
        """With as many prompt rows of so much width as the bank needs for so many classes."""
        if self.algorithm != "cameras":
            return self
        numbers = 11 * classes + width + _CAMERA_NUMBERS
        return dataclasses.replace(self, prompt_rows=2 * math.ceil(numbers / width / 2))

    @property
    def guarded(self) -> bool:
        """Whether the frozen answer stands where a guard does not trust the adapted one."""
        return self.guard and self.algorithm == "domains"

    @property
    def served(self) -> bool:
        """Whether single frames can be answered by its bank."""
        return self.algorithm not in ("tpt", "zero")

    @property
    def retrievals(self) -> int | None:
        """Entries that adapting to one frame retrieves, repeats counted; None where usage counts
        something else."""
        if self.algorithm != "mint":
            return None
        return self.steps * self.views * self.query_levels * self.retrieved

    @property
    def picks_views(self) -> bool:
        """Whether confident views are chosen among several."""
        return self.published and (self.steps > 0 or self.algorithm not in _BY_STEPS)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MethodConfig:
        """The preset that `run.json` or a checkpoint tells of (`as_dict`); what it says beyond the
        fields here is left out."""
        known = {field.name for field in dataclasses.fields(cls)} & set(values)
        fields = {name: values[name] for name in known}
        return cls(**{**fields, "templates": tuple(fields.get("templates", ()))})

    @property
    def confident_views(self) -> int:
        """Number of views that enter the entropy term, or vote."""
        return int(self.confident_share * self.views)


ENSEMBLE = (
    "a photo of a {}.",
    "a blurry photo of a {}.",
    "a dark photo of a {}.",
    "a bright photo of a {}.",
    "a cropped photo of a {}.",
    "a close-up photo of a {}.",
    "a black and white photo of a {}.",
)
"""Of CLIP's prompts for ImageNet those that speak of how a picture was taken."""

PRESETS: dict[str, MethodConfig] = {
    preset.name: preset
    for preset in (
        MethodConfig(name="frozen", views=1, steps=0),
        MethodConfig(name="ensemble", views=1, steps=0, templates=ENSEMBLE),
        MethodConfig(name="tpt", algorithm="tpt", steps=1),
        MethodConfig(name="zero", algorithm="zero", steps=0, confident_share=0.3),
        MethodConfig(name="paper"),
        MethodConfig(name="realtime", algorithm="domains", views=1, steps=0, bank_size=32),
        MethodConfig(name="cameras", algorithm="cameras", views=1, steps=0, bank_size=65),
    )
}
"""`realtime`, `paper` and `frozen` are for labelling; with the others they are compared."""


def preset(name: str) -> MethodConfig:
    """The preset called `name`, of this package or of one that is installed beside it.

    Raises `ConfigError` naming the presets that exist.
    """
    if name in PRESETS:
        return PRESETS[name]
    others = installed_presets()
    require(name in others, "preset", name, "one of " + ", ".join([*PRESETS, *others]))
    return others[name]


def installed_presets() -> dict[str, MethodConfig]:
    """The presets of other packages (`METHODS_GROUP`), by name."""
    kinds = [entry.load() for entry in entry_points(group=METHODS_GROUP)]
    return {preset.name: preset for kind in kinds for preset in kind.presets}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which CLIP: open_clip names, or a local folder or file; where it runs, in which precision."""

    model: str
    """A model name that open_clip knows (`ViT-B-16`), a folder with a configuration and weights, or
    `bundled` (see `BUNDLED`)."""
    weights: str | None = None
    """A pretrained tag that open_clip knows (`openai`), or a local weights file."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`."""
    dtype: Dtype = "auto"
    """Precision of the encoder; keys, prompts, context and optimiser stay in float32."""

    @property
    def folder(self) -> Path | None:
        """Where the model's files are; None for a model of open_clip's."""
        folder = BUNDLED_FOLDER if self.model == BUNDLED else Path(self.model)
        return folder if folder.is_dir() else None


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run of the pipeline, complete."""

    # Addresses may carry a signature: no repr shows them.
    input: str = dataclasses.field(repr=False)
    output: str
    labels: str = dataclasses.field(repr=False)
    model: ModelConfig
    method: MethodConfig = PRESETS["paper"]
    num_labelers: int = 1
    bank_scope: BankScope = "shared"
    adapt: Adapt = "on"
    """`shadow`: the bank learns, the frozen answer stands and the adapted one is recorded beside
    it. `off`: no bank, the frozen answer alone."""
    adapt_budget: float | None = None
    """Largest share of a labeler's time that adapting may take; None for as much as it needs."""
    unit_size: int = 16
    """Frames in a unit: what is read, labelled, merged, committed and retried as a whole."""
    limit: int | None = None
    """Label only the first `limit` frames of the input."""
    relabel_suspect: bool = False
    """Label again what `suspects` finds, by the bank as it is, and nothing else."""
    seed: int = 0
    top_k: int = 5
    calibration: str | None = None
    """A file of `mint-stream calibrate`: temperature and least confidences."""
    min_confidence: float | None = None
    """Answers of less confidence are no labels; instead of the calibration's numbers."""
    checkpoint_every_s: float = 60.0
    follow: bool = False
    poll_s: float = 5.0
    max_reject_ratio: float = 0.5
    """A run stops when more than this share of its frames was rejected."""
    image_column: str | None = None
    id_column: str | None = None

    def __post_init__(self) -> None:
        require(self.num_labelers >= 1, "num-labelers", self.num_labelers, "at least 1")
        require(self.unit_size >= 1, "unit-size", self.unit_size, "at least 1")
        require(self.limit is None or self.limit >= 1, "limit", self.limit, "at least 1")
        require(self.top_k >= 1, "top-k", self.top_k, "at least 1")
        require(
            self.min_confidence is None or 0 <= self.min_confidence <= 1,
            "min-confidence",
            self.min_confidence,
            "in [0, 1]",
        )
        require(self.checkpoint_every_s > 0, "checkpoint-every", self.checkpoint_every_s, "> 0")
        require(self.poll_s > 0, "poll", self.poll_s, "> 0")
        require(
            0 < self.max_reject_ratio <= 1, "max-reject-ratio", self.max_reject_ratio, "in (0, 1]"
        )
        require(
            self.adapt_budget is None or 0 < self.adapt_budget <= 1,
            "adapt-budget",
            self.adapt_budget,
            "in (0, 1]",
        )
        require(
            self.bank_scope in ("shared", "camera"),
            "bank-scope",
            self.bank_scope,
            "shared or camera",
        )
        require(
            not (self.follow and self.limit is not None),
            "limit",
            self.limit,
            "left out with --follow, which ends only when it is stopped",
        )

        require(
            not self.relabel_suspect or (self.method.guarded and self.adapt == "on"),
            "relabel-suspect",
            self.relabel_suspect,
            "left out with a preset that no guard watches, and with --adapt other than on",
        )
        require(
            not (self.relabel_suspect and (self.follow or self.limit is not None)),
            "relabel-suspect",
            self.relabel_suspect,
            "given without --follow and --limit: it labels units again that are there",
        )

    @property
    def keeps_bank(self) -> bool:
        """Whether this run teaches a bank."""
        return self.method.adapts and self.adapt != "off"


def as_dict(config: Any) -> dict[str, Any]:
    """A dataclass of this module as plain JSON values: as it comes back from JSON."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values
