"""From arguments to a Serve application; what cannot work is refused before a replica starts."""

from __future__ import annotations

import os
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig

from mint_stream.bank.server import BankConfig, bank_config
from mint_stream.clip.class_list import load_class_list
from mint_stream.clip.model_files import model_identity, vision_shape
from mint_stream.clip.name_length import check_name_length
from mint_stream.config import ConfigError
from mint_stream.serving.banks.live import BankKeeper
from mint_stream.serving.exposure import check_exposure
from mint_stream.serving.http.problems import RETRY_AFTER_S
from mint_stream.serving.http.token import TOKEN_VARIABLE
from mint_stream.serving.replica import Replica
from mint_stream.serving.service import ServicePlan
from mint_stream.serving.settings import Settings, read_settings
from mint_stream.store.store import PREFLIGHT, Store

MAX_ONGOING = 64
"""Requests in one replica; enough to fill batches while others are read and decoded."""
MAX_QUEUED = 256
"""Requests that wait at each proxy for a replica; more are answered 503 with Retry-After."""
ONE_LOOP = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}
"""Serve's loop and ours in one thread: a hop less for each message. Nothing in ours blocks: images
are decoded, and the model works, in threads of their own."""
REPLICA = "Labeler"
KEEPER = "BankKeeper"


def build_app(arguments: dict[str, Any]) -> Application:
    """The application that `serve run` and `serve deploy` start; arguments as in `Settings`.

    Raises `ConfigError` or `StorageError` with one line that names the argument and the remedy.
    """
    settings = read_settings(arguments)
    check_exposure()
    plan = plan_service(settings)
    replica = serve.deployment(serve.ingress()(Replica)).options(
        name=REPLICA,
        num_replicas=settings.replicas,
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_QUEUED,
        backpressure_config=BackpressureConfig(retry_after_s=RETRY_AFTER_S),
        ray_actor_options=_resources(settings),
        graceful_shutdown_timeout_s=settings.timeout_s + 5,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5,
        # The envelope writes one line for each request, with what this one would not know.
        logging_config={"enable_access_log": False},
    )
    bound: Application = replica.bind(plan, _keeper(plan), _threads(settings))
    return bound


def plan_service(settings: Settings) -> ServicePlan:
    """Check what can be checked before a model is loaded. Raises `ConfigError`, `StorageError`."""
    if settings.require_token and not os.environ.get(TOKEN_VARIABLE):
        raise ConfigError(
            f"require_token is set, and the environment has no {TOKEN_VARIABLE}: export it where "
            "Ray is started, so that every replica has it"
        )
    classes = load_class_list(settings.labels, retry=PREFLIGHT)
    width, _ = vision_shape(settings.clip)
    check_name_length(classes, settings.clip, settings.method.templates)
    if settings.bank_root is not None:
        store = Store(settings.bank_root, retry=PREFLIGHT)
        store.check_writable() if settings.adapt != "off" else store.check_readable()
    return ServicePlan(
        settings=settings,
        classes=classes,
        model_hash=model_identity(settings.clip),
        width=width,
    )


def taught_bank(plan: ServicePlan) -> BankConfig:
    """The bank that requests teach: the one that a pipeline with these settings would continue."""
    settings = plan.settings
    assert settings.bank_root is not None
    return bank_config(
        plan.method,
        store=Store(settings.bank_root),
        width=plan.width,
        model_hash=plan.model_hash,
        scope=settings.bank_scope,
        seed=settings.seed,
        checkpoint_every_s=settings.checkpoint_every_s,
        settle_s=0.0,
    )


def _keeper(plan: ServicePlan) -> Application | None:
    settings = plan.settings
    if settings.adapt == "off" or settings.bank_actor:
        return None
    keeper: Application = (
        serve.deployment(BankKeeper)
        .options(
            name=KEEPER,
            num_replicas=1,
            max_ongoing_requests=1000,
            ray_actor_options={"num_cpus": 0},
        )
        .bind(taught_bank(plan))
    )
    return keeper


def _resources(settings: Settings) -> dict[str, Any]:
    # Half a CPU each at most, so that the proxy and a pipeline find room beside them.
    cpus = min(0.5, (os.cpu_count() or 1) / 2 / settings.replicas)
    gpus = {"num_gpus": settings.num_gpus} if settings.num_gpus else {}
    return {"num_cpus": cpus, **gpus, "runtime_env": {"env_vars": ONE_LOOP}}


def _threads(settings: Settings) -> int | None:
    if settings.threads is not None:
        return settings.threads
    return None if settings.num_gpus else max(1, (os.cpu_count() or 1) // settings.replicas)
