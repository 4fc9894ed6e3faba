"""Load on a service, and which processes it costs CPU time on the cores that all of them share."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp
import numpy as np
import psutil

HERE = "this process"
_ROLES = {"ServeReplica": "replica", "ProxyActor": "proxy", "haproxy": "proxy"}
_REST = "rest of Ray"


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a stretch of load was answered, and what it cost."""

    images: int
    seconds: float
    latencies_ms: Sequence[float]
    failed: int = 0
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    """CPU time by process: `HERE` (the load generator, or the labeler called directly), ..."""

    @property
    def images_s(self) -> float:
        """Images answered a second."""
        return self.images / self.seconds

    def percentile(self, share: float) -> float:
        """Of the latencies, ms."""
        return float(np.percentile(self.latencies_ms or [float("nan")], share))

    def cpu_ms(self, who: str) -> float:
        """CPU time of `who` for each image, ms."""
        return 1e3 * self.cpu_s.get(who, 0.0) / max(1, self.images)


class CpuMeter:
    """CPU seconds of this process and of those below it, since this was made."""

    def __init__(self) -> None:
        self._before = _cpu_s()

    def spent(self) -> dict[str, float]:
        """By role: this process, `replica`, `proxy`, the rest of Ray."""
        found: defaultdict[str, float] = defaultdict(float)
        for pid, (role, seconds) in _cpu_s().items():
            found[role] += seconds - self._before.get(pid, (role, 0.0))[1]
        return dict(found)


def post_images(
    url: str,
    images: Sequence[bytes],
    *,
    seconds: float,
    clients: int,
    images_each: int = 1,
    path: str = "/v1/label",
) -> Load:
    """`clients` that send their next request as soon as the last is answered."""
    return asyncio.run(_post(url + path, images, seconds, clients, images_each))


async def _post(
    url: str, images: Sequence[bytes], seconds: float, clients: int, images_each: int
) -> Load:
    latencies, answered, failed = list[float](), 0, 0

    async def ask(post: Callable[[int], Awaitable[int]], number: int, until: float) -> None:
        nonlocal answered, failed
        while (began := time.perf_counter()) < until:
            number += images_each
            if await post(number) == 200:
                answered += images_each
                latencies.append((time.perf_counter() - began) * 1e3)
            else:
                failed += 1

    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connections) as session:

        async def post(number: int) -> int:
            chosen = [images[(number + n) % len(images)] for n in range(images_each)]
            headers = {"Content-Type": "image/jpeg"} if images_each == 1 else {}
            data = chosen[0] if images_each == 1 else _form(chosen)
            async with session.post(url, data=data, headers=headers) as answer:
                await answer.read()
                return answer.status

        for number in range(3):
            await post(number)
        meter, started = CpuMeter(), time.perf_counter()
        await asyncio.gather(*(ask(post, n * 7, started + seconds) for n in range(clients)))
        took = time.perf_counter() - started
    return Load(
        images=answered, seconds=took, latencies_ms=latencies, failed=failed, cpu_s=meter.spent()
    )


def _form(images: Sequence[bytes]) -> aiohttp.FormData:
    form = aiohttp.FormData()
    for image in images:
        form.add_field("image", image, filename="image.jpg")
    return form


def _cpu_s() -> dict[int, tuple[str, float]]:
    """Role and CPU seconds of each process."""
    me, found = psutil.Process(), {}
    for process in (me, *me.children(recursive=True)):
        try:
            times, command = process.cpu_times(), " ".join(process.cmdline())
        except psutil.Error:
            continue
        role = next((role for word, role in _ROLES.items() if word in command), _REST)
        found[process.pid] = (HERE if process == me else role, times.user + times.system)
    return found
