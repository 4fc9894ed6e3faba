"""The service beside the labeler that it wraps, called directly, on the same images in one run."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import aiohttp
import numpy as np
import ray
from PIL import Image
from ray import serve
from ray.serve.config import HTTPOptions
from rich.console import Console
from rich.table import Table

from mint_stream import bank_state, checkpoint
from mint_stream.bank_state import Banks, BankState
from mint_stream.config import as_dict
from mint_stream.demo.feed import stream_feed
from mint_stream.serving import build_app
from mint_stream.serving.answers import Answers
from mint_stream.serving.application import plan_service
from mint_stream.serving.intake import decode_upload
from mint_stream.serving.questions import Question
from mint_stream.serving.replica import min_short_side, open_answers
from mint_stream.serving.service import ServicePlan
from mint_stream.serving.settings import read_settings
from mint_stream.storage import Store

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


@dataclass(frozen=True)
class Load:
    """What a stretch of load was answered."""

    images_s: float
    latencies_ms: Sequence[float]
    failed: int

    def percentile(self, share: float) -> float:
        """Of the latencies, ms."""
        return float(np.percentile(self.latencies_ms, share))


def compare(options: ServeOptions, console: Console) -> bool:
    """Measure both in turn, print them side by side; whether the bounds hold."""
    images = _images(options.side)
    with tempfile.TemporaryDirectory() as folder:
        plan = _plan_with_bank(folder)
        answers = open_answers(plan, threads=os.cpu_count())
        answers.start()
        url = _start(plan)
        try:
            rounds = [_round(options, answers, plan, images, url) for _ in range(options.rounds)]
        finally:
            serve.shutdown()
            ray.shutdown()
    return _report(options, rounds, console)


@dataclass(frozen=True)
class _Round:
    direct_idle: Load
    served_idle: Load
    direct: Load
    single: Load
    batched: Load


def _round(
    options: ServeOptions, answers: Answers, plan: ServicePlan, images: list[bytes], url: str
) -> _Round:
    def load(clients: int, images_each: int) -> Load:
        return asyncio.run(_load(url, images, options.seconds, clients, images_each))

    return _Round(
        direct_idle=_direct(answers, plan, images, options.seconds / 2, batch=1),
        served_idle=load(1, 1),
        direct=_direct(answers, plan, images, options.seconds, batch=plan.settings.max_batch),
        single=load(options.clients, 1),
        batched=load(max(2, options.clients // options.batch * 4), options.batch),
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

    answers.answer(questions(0))
    if batch == 1:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            began = time.perf_counter()
            answers.answer(questions(done))
            latencies.append((time.perf_counter() - began) * 1e3)
            done += 1
        return Load(done / seconds, latencies, 0)
    with ThreadPoolExecutor(1) as decoder:
        started, next_ = time.perf_counter(), decoder.submit(questions, 0)
        while time.perf_counter() - started < seconds:
            ready, next_ = next_.result(), decoder.submit(questions, done + batch)
            began = time.perf_counter()
            answers.answer(ready)
            latencies.append((time.perf_counter() - began) * 1e3)
            done += batch
        took = time.perf_counter() - started
    return Load(done / took, latencies, 0)


async def _load(
    url: str, images: list[bytes], seconds: float, clients: int, images_each: int
) -> Load:
    """`clients` that send the next request as soon as the last is answered."""
    latencies, answered, failed = list[float](), 0, 0

    async def ask(post: Callable[[int], Awaitable[int]], number: int, until: float) -> None:
        nonlocal answered, failed
        while (began := time.perf_counter()) < until:
            number += images_each
            status = await post(number)
            if status == 200:
                answered += images_each
                latencies.append((time.perf_counter() - began) * 1e3)
            else:
                failed += 1

    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connections) as session:

        async def post(number: int) -> int:
            if images_each == 1:
                headers = {"Content-Type": "image/jpeg"}
                data: object = images[number % len(images)]
                path = "/v1/label"
            else:
                headers, path, form = {}, "/v1/labels:batch", aiohttp.FormData()
                for n in range(images_each):
                    form.add_field("image", images[(number + n) % len(images)], filename="i.jpg")
                data = form
            async with session.post(url + path, data=data, headers=headers) as answer:
                await answer.read()
                return answer.status

        for number in range(3):
            await post(number)
        started = time.perf_counter()
        await asyncio.gather(*(ask(post, n * 7, started + seconds) for n in range(clients)))
        took = time.perf_counter() - started
    return Load(answered / took, latencies or [float("nan")], failed)


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
    settings |= {"preset": "paper"}  # whose bank costs a second pass
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


def _start(plan: ServicePlan) -> str:
    """One replica on a free port of this machine."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    ray.init(address="local", include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    serve.run(build_app(plan.settings.model_dump(exclude_unset=True)), name="benchmark")
    return f"http://127.0.0.1:{port}"


def _report(options: ServeOptions, rounds: Sequence[_Round], console: Console) -> bool:
    def middle(value: Callable[[_Round], float]) -> float:
        return statistics.median(value(round_) for round_ in rounds)

    table = Table(
        title=f"one replica, the bundled CLIP, {os.cpu_count()} cores, {len(rounds)} rounds"
    )
    for column in ("", "images/s", "requests/s", "p50 ms", "p95 ms", "p99 ms", "failed"):
        table.add_column(column, justify="left" if not column else "right")

    def add(name: str, get: Callable[[_Round], Load], images_each: int | None) -> None:
        loads = [get(round_) for round_ in rounds]
        images_s = statistics.median(load.images_s for load in loads)
        latencies = [
            statistics.median(load.percentile(share) for load in loads) for share in (50, 95, 99)
        ]
        table.add_row(
            name,
            f"{images_s:.1f}",
            f"{images_s / images_each:.1f}" if images_each else "",
            *(f"{latency:.1f}" for latency in latencies),
            str(sum(load.failed for load in loads)),
        )

    add("idle: labeler called directly", lambda r: r.direct_idle, None)
    add("idle: /v1/label, 1 client", lambda r: r.served_idle, 1)
    add("saturated: labeler called directly", lambda r: r.direct, None)
    add(f"saturated: /v1/label, {options.clients} clients", lambda r: r.single, 1)
    add(f"saturated: /v1/labels:batch of {options.batch}", lambda r: r.batched, options.batch)
    console.print(table)
    single = middle(lambda r: 1 - r.single.images_s / r.direct.images_s)
    batched = middle(lambda r: 1 - r.batched.images_s / r.direct.images_s)
    idle = middle(lambda r: r.served_idle.percentile(50) - r.direct_idle.percentile(50))
    console.print(
        f"overhead at saturation: {single:.0%} with one image a request, {batched:.0%} with "
        f"{options.batch} (at most {MOST_OVERHEAD:.0%}); when idle {idle:.1f} ms in the median "
        f"(at most {MOST_IDLE_MS:g} ms)"
    )
    # Like with like: many images a call on both sides. What one image a request costs beyond that
    # is HTTP itself, and is shown.
    return batched <= MOST_OVERHEAD and idle <= MOST_IDLE_MS
