"""The service beside the labeler that it wraps, called directly, on the same images in one run."""

from __future__ import annotations

import io
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
import torch
from PIL import Image
from ray import serve
from ray.serve.config import HTTPOptions
from rich.console import Console
from rich.table import Table

from mint_stream.bank import checkpoint
from mint_stream.benchmark.load import HERE, CpuMeter, Load, post_images
from mint_stream.config import BUNDLED, as_dict
from mint_stream.demo.feed import stream_feed
from mint_stream.method import bank_state
from mint_stream.method.bank_state import Banks, BankState
from mint_stream.serving.answers import Answers
from mint_stream.serving.application import ONE_LOOP, build_app, plan_service
from mint_stream.serving.http.intake import decode_upload
from mint_stream.serving.questions import Question
from mint_stream.serving.replica import min_short_side, open_answers, settle_threads
from mint_stream.serving.service import ServicePlan
from mint_stream.serving.settings import read_settings
from mint_stream.store.store import Store

MOST_OVERHEAD = 0.25
"""Share of the labeler's throughput that the service may cost at saturation."""
MOST_IDLE_MS = 15.0
"""Median time that the service may add to one image when nothing else is asked."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What is measured: the bundled CLIP, a bank, one replica, on this machine."""

    seconds: float = 10.0
    """For each measurement."""
    rounds: int = 3
    """Direct and served take turns this often; medians are compared."""
    clients: int = 32
    """Requests under way at saturation, with one image each."""
    batch: int = 32
    """Images in a request to /v1/labels:batch."""
    side: int = 0
    """Side of the images, pixels; 0 takes the feed's own size."""


def compare(options: ServeOptions, console: Console) -> bool:
    """Measure both in turn, print them side by side; whether the bounds hold."""
    images = _images(options.side)
    with tempfile.TemporaryDirectory() as folder:
        plan = _plan_with_bank(folder)
        answers = open_answers(plan, threads=os.cpu_count())
        threads = settle_threads(answers.reader, os.cpu_count() or 1)
        answers.start()
        url = _start(plan)
        try:
            rounds = [_round(options, answers, plan, images, url) for _ in range(options.rounds)]
        finally:
            serve.shutdown()
            ray.shutdown()
    console.print(
        f"the labeler called directly has {threads} thread(s) of torch, the faster choice"
    )
    return _report(options, rounds, console)


@dataclass(frozen=True, kw_only=True)
class _Round:
    direct_idle: Load
    empty_idle: Load
    served_idle: Load
    direct: Load
    empty: Load
    single: Load
    batched: Load


def _round(
    options: ServeOptions, answers: Answers, plan: ServicePlan, images: list[bytes], url: str
) -> _Round:
    def post(clients: int, **more: Any) -> Load:
        return post_images(url, images, seconds=options.seconds, clients=clients, **more)

    several = max(2, options.clients // options.batch * 4)
    return _Round(
        direct_idle=_direct(answers, plan, images, options.seconds / 2, batch=1),
        empty_idle=post(1, path="/empty"),
        served_idle=post(1),
        direct=_direct(answers, plan, images, options.seconds, batch=plan.settings.max_batch),
        empty=post(options.clients, path="/empty"),
        single=post(options.clients),
        batched=post(several, images_each=options.batch, path="/v1/labels:batch"),
    )


def _direct(
    answers: Answers, plan: ServicePlan, images: list[bytes], seconds: float, *, batch: int
) -> Load:
    """From image files to answers without a service: the next batch is decoded meanwhile."""
    shortest, latencies, done = min_short_side(answers.reader), list[float](), 0

    def question(data: bytes) -> Question:
        picture = decode_upload(data, plan.settings, shortest)
        view = answers.reader.view(picture.rgb_HW3)
        return Question(frame="", camera=None, top_k=5, picture=picture, view_1CHW=view)

    def questions(first: int) -> list[Question]:
        return [question(images[(first + n) % len(images)]) for n in range(batch)]

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as decoder:
        answers.answer(decoder.submit(questions, 0).result())
        meter, started, ahead = CpuMeter(), time.perf_counter(), decoder.submit(questions, 0)
        while time.perf_counter() - started < seconds:
            began = time.perf_counter()
            if batch == 1:
                ready = questions(done)
            else:
                ready, ahead = ahead.result(), decoder.submit(questions, done + batch)
            answers.answer(ready)
            latencies.append((time.perf_counter() - began) * 1e3)
            done += batch
        took = time.perf_counter() - started
    return Load(images=done, seconds=took, latencies_ms=latencies, cpu_s=meter.spent())


def _images(side: int) -> list[bytes]:
    """JPEG files of the demonstration's feed."""
    found = []
    for item in stream_feed(frames=64):
        image = Image.fromarray(item.frame)
        file = io.BytesIO()
        (image.resize((side, side)) if side else image).save(file, "JPEG", quality=90)
        found.append(file.getvalue())
    return found


def _plan_with_bank(folder: str) -> ServicePlan:
    """The bundled CLIP and a bank in which every entry was used; what it says does not matter."""
    settings = {"bank": f"{folder}/bank", "max_images_batch": 64, "max_waiting": 512}
    settings |= {"model": BUNDLED, "preset": "paper"}  # whose bank costs a second pass
    plan = plan_service(read_settings(settings))
    method = plan.settings.method
    start = bank_state.initial_state(
        entries=method.bank_size, prompt_rows=method.prompt_rows, width=plan.width, seed=0
    )
    used = BankState(start.keys_KD, start.prompts_KPD, start.usage_K + 1, start.last_seq_K + 1)
    identity = {"model": plan.model_hash, "method": as_dict(method), "scope": "shared", "seed": 0}
    banks = Banks(start, {"shared": used}, seq=1)
    checkpoint.save(Store(folder), banks, covered=(), number=1, identity=identity)
    return plan


class _Empty:
    """Takes an image and answers at once: what is left is the cost of HTTP and Serve alone."""

    async def __call__(self, request: Any) -> str:
        return f"{len(await request.body())}"


def _start(plan: ServicePlan) -> str:
    """One replica on a free port of this machine, and an empty application beside it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    empty: Any = serve.deployment(_Empty).options(
        max_ongoing_requests=64,
        ray_actor_options={"num_cpus": 0, "runtime_env": {"env_vars": ONE_LOOP}},
        logging_config={"enable_access_log": False},
    )
    serve.run(empty.bind(), name="empty", route_prefix="/empty")
    serve.run(build_app(plan.settings.model_dump(exclude_unset=True)), name="benchmark")
    return f"http://127.0.0.1:{port}"


def _cpu_s(load: Load) -> float:
    """CPU time for an image, of all processes together."""
    return sum(load.cpu_s.values()) / max(1, load.images)


_ROWS: dict[str, Callable[[_Round], Load]] = {
    "idle: labeler called directly": lambda r: r.direct_idle,
    "idle: Serve, empty application": lambda r: r.empty_idle,
    "idle: /v1/label": lambda r: r.served_idle,
    "labeler called directly": lambda r: r.direct,
    "Serve, empty application": lambda r: r.empty,
    "/v1/label, {clients} clients": lambda r: r.single,
    "/v1/labels:batch of {batch}": lambda r: r.batched,
}


def _report(options: ServeOptions, rounds: Sequence[_Round], console: Console) -> bool:
    def middle(value: Callable[[_Round], float]) -> float:
        return statistics.median(value(round_) for round_ in rounds)

    table = Table(
        title=f"one replica, the bundled CLIP, {os.cpu_count()} cores, {len(rounds)} rounds"
    )
    names = ("", "images/s", "p50 ms", "p95 ms", "p99 ms", "failed")
    cpu = ("this process", "proxy", "replica", "rest of Ray")
    for column in (*names, *cpu):
        table.add_column(column, justify="left" if not column else "right")
    for name, get in _ROWS.items():
        loads = [get(round_) for round_ in rounds]
        table.add_row(
            name.format(clients=options.clients, batch=options.batch),
            f"{statistics.median(load.images_s for load in loads):.1f}",
            *(
                f"{statistics.median(load.percentile(share) for load in loads):.1f}"
                for share in (50, 95, 99)
            ),
            str(sum(load.failed for load in loads)),
            *(f"{statistics.median(load.cpu_ms(who) for load in loads):.2f}" for who in cpu),
        )
    console.print(table)
    console.print(
        "Last columns: CPU time for an image, ms. This process is the load generator, and the "
        "labeler where it is called directly; all share the cores."
    )
    single = middle(lambda r: 1 - r.single.images_s / r.direct.images_s)
    batched = middle(lambda r: 1 - r.batched.images_s / r.direct.images_s)
    more_batched = middle(lambda r: 1 - _cpu_s(r.direct) / _cpu_s(r.batched))
    more_single = middle(lambda r: 1 - _cpu_s(r.direct) / _cpu_s(r.single))
    cores = os.cpu_count() or 1
    most = middle(lambda r: cores / (_cpu_s(r.direct) + _cpu_s(r.empty)) / r.direct.images_s)
    idle = middle(lambda r: r.served_idle.percentile(50) - r.direct_idle.percentile(50))
    empty = middle(lambda r: r.empty_idle.percentile(50))
    client = middle(lambda r: r.single.cpu_s[HERE] / r.single.seconds)
    console.print(
        f"overhead at saturation: {batched:.0%} with {options.batch} images a request (at most "
        f"{MOST_OVERHEAD:.0%}), {single:.0%} with one; when idle {idle:.1f} ms in the median (at "
        f"most {MOST_IDLE_MS:g} ms)\n"
        f"in CPU time for an image, which other work on this machine changes least: "
        f"{more_batched:.0%} and {more_single:.0%}\n"
        f"of that, HTTP and an empty Serve application: {max(0.0, 1 - most):.0%} with one image a "
        f"request if all {cores} cores were busy all the time, {empty:.1f} ms when idle; the load "
        f"generator took {client:.2f} of {cores} cores"
    )
    # Like with like: many images a call on both sides. What one image a request costs beyond that
    # is HTTP itself, and is shown.
    return batched <= MOST_OVERHEAD and idle <= MOST_IDLE_MS
