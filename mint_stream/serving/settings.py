"""What a service is made of: the arguments of `build_app`. Unknown ones are refused.

    serve run mint_stream.serving:build_app model=ViT-B-16 weights=laion2b_s34b_b88k \
        labels=labels.txt bank=s3://cameras/labelled/bank

Secrets are no settings: the token that clients must send is in the environment (`http.token`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mint_stream.clip.device import check_in_actor, device_index
from mint_stream.config import (
    BUNDLED,
    BUNDLED_LABELS,
    WHICH_MODEL,
    BankScope,
    ConfigError,
    Dtype,
    MethodConfig,
    ModelConfig,
    preset,
    require,
)

AUTO = "auto"
"""In place of the name of a bank server: the one that `bank` tells of."""

Adapt = Literal["off", "shadow", "on"]


def _yaml_switch(value: Any) -> Any:
    # YAML reads a bare `off` and `on` as truth values.
    return {False: "off", True: "on"}.get(value, value) if isinstance(value, bool) else value


class Settings(BaseModel):
    """The arguments of `build_app`, checked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """A model name of open_clip, a folder with its configuration and weights, or `bundled`."""
    labels: str = str(BUNDLED_LABELS)
    """Class list: text, one class a line, or YAML; a path or any fsspec URL. Default: that of the
    bundled CLIP; another model needs its own."""
    weights: str | None = None
    device: str = "auto"
    dtype: Dtype = "auto"
    preset: str = "realtime"
    """That of the run whose bank is served."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of torch in each replica; default: the CPUs, shared among `replicas`."""

    bank: str | None = None
    """A run's output, or the `bank` folder in it: its newest checkpoint answers, and is watched."""
    bank_actor: str | None = None
    """Name of the live bank server of a pipeline on the same cluster; goes before `bank`. `auto`:
    that of the run that labels into `bank` now, and of the next one after it."""
    bank_namespace: str = "mint_stream"
    bank_scope: BankScope = "shared"
    """Of the live or own bank server; a checkpoint says it itself."""
    bank_poll_s: float = Field(5.0, gt=0)
    adapt: Annotated[Adapt, BeforeValidator(_yaml_switch)] = "off"
    """off: requests teach nothing. on: they adapt the bank, and the adapted answer stands.
    shadow: they adapt it, the frozen answer stands, the adapted one is recorded beside."""
    adapt_budget: float | None = Field(None, gt=0, le=1)
    """Largest share of a replica's working time that adapting may take; None for as much as it
    needs. Images for which there is no time get the frozen answer."""
    max_cameras: int = Field(64, ge=1)
    """That have a bank of their own (`adapt` with `bank_scope: camera`): the banks are kept in
    memory and in every checkpoint, and whoever sends requests names the cameras."""
    seed: int = 0
    """Of the random views and of the bank's start, with `adapt`."""
    checkpoint_every_s: float = Field(60.0, gt=0)
    """Between checkpoints of the bank that requests teach (`adapt` with `bank`)."""

    replicas: int = Field(1, ge=1)
    num_gpus: float = Field(0.0, ge=0)
    """Of each replica; a fraction lets several share one GPU."""

    max_batch: int = Field(16, ge=1)
    """Images in one pass of the model."""
    max_waiting: int = Field(128, ge=1)
    """Images that a replica holds at a time; more are answered 503 with Retry-After."""
    max_body_mb: float = Field(64.0, gt=0)
    max_image_mb: float = Field(16.0, gt=0)
    max_megapixels: float = Field(50.0, gt=0)
    max_images: int = Field(16, ge=1)
    """In one request to /v1/label."""
    max_images_batch: int = Field(64, ge=1)
    """In one request to /v1/labels:batch."""
    timeout_s: float = Field(30.0, gt=0)
    """From the request's first byte to its answer."""
    body_timeout_s: float = Field(15.0, gt=0)
    """For a request's body to arrive; less where others wait to send theirs."""
    require_token: bool = False
    """Refuse to start unless the environment holds a token."""

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        require(
            self.model == BUNDLED or self.labels != str(BUNDLED_LABELS),
            "labels",
            "the bundled CLIP's",
            f"given with model {self.model!r}",
        )
        check_in_actor(self.device) if self.num_gpus else device_index(self.device)
        method = self.method
        require(
            method.served,
            "preset",
            self.preset,
            "one that answers by a bank, or frozen: tpt and zero are there to be compared with",
        )
        frozen = not method.adapts
        for field, value in (("bank", self.bank), ("bank_actor", self.bank_actor)):
            require(not (frozen and value), field, value, f"left out with preset {method.name!r}")
        require(
            self.adapt != "off" or self.adapt_budget is None,
            "adapt_budget",
            self.adapt_budget,
            "left out with adapt off",
        )
        require(
            self.bank_actor != AUTO or self.bank is not None,
            "bank_actor",
            self.bank_actor,
            "given with `bank`, where runs say what their bank server is called",
        )
        if self.adapt != "off":
            require(method.adapts, "adapt", self.adapt, f"off with preset {method.name!r}")
            require(
                bool(self.bank or self.bank_actor),
                "adapt",
                self.adapt,
                "off without a bank; name `bank` (where to keep what is learned) or `bank_actor`",
            )
        require(
            self.max_images <= self.max_waiting >= self.max_images_batch,
            "max_waiting",
            self.max_waiting,
            "at least max_images and max_images_batch, or such a request could never be answered",
        )
        return self

    @property
    def method(self) -> MethodConfig:
        """The preset. Raises `ConfigError` if there is none of that name."""
        return preset(self.preset)

    @property
    def clip(self) -> ModelConfig:
        """Which CLIP."""
        return ModelConfig(
            model=self.model, weights=self.weights, device=self.device, dtype=self.dtype
        )

    @property
    def bank_root(self) -> str | None:
        """The output that `bank` belongs to."""
        if self.bank is None:
            return None
        return self.bank.rstrip("/").removesuffix("/bank")


def read_settings(arguments: Mapping[str, Any]) -> Settings:
    """The settings in the arguments of `build_app`.

    Raises `ConfigError` with one line: each argument that cannot be, its value, what is allowed.
    """
    try:
        return Settings.model_validate(dict(arguments))
    except ValidationError as error:
        raise ConfigError("; ".join(_said(dict(item)) for item in error.errors())) from None


def _said(item: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = ", ".join(sorted(Settings.model_fields))
        return f"{name} is not an argument of build_app; there are {known}"
    if item["type"] == "missing":
        return f"{name} is missing; it must be {WHICH_MODEL}"
    if item["type"] == "value_error":
        return str(item["ctx"]["error"])
    return f"{name} is {item['input']!r}: {item['msg'].lower()}"
