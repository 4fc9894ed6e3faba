"""`ray job submit` against a head of its own, as README and docs/cluster.md say it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from drivers import REPOSITORY, Driver, wait_until
from fault_proxy import FaultProxy
from metrics_scrape import OF_DOMAINS, names, scrape
from oracle import Output, check_bank, check_frames
from prometheus_server import PrometheusServer, panel_queries
from s3_server import S3Server, free_ports, use_environment
from tar_files import tar
from test_readme import commands, with_bundled

from mint_stream.config import PRESETS
from mint_stream.demo.feed import write_feed

FRAMES = 32
BROKEN = 6
TRAVELLED = "in this checkout alone"


@dataclass(frozen=True)
class Head:
    """A head that `ray start` started, and the environment of who speaks to it."""

    checkout: Path
    driver: Driver
    address: str
    environment: Mapping[str, str]
    metrics: str

    def ray(self, *arguments: str, within_s: float = 180) -> str:
        """What `ray ARGUMENTS` prints, started in the checkout."""
        return run(["ray", *arguments], self.checkout, self.environment, within_s)

    def ask(self, path: str) -> Any:
        """An answer of the dashboard."""
        token = self.environment["RAY_AUTH_TOKEN"]
        request = urllib.request.Request(f"{self.address}{path}")
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


def run(
    command: list[str], folder: Path, environment: Mapping[str, str], within_s: float = 180
) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout + done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone of what is tracked here, with what runs leave behind in one."""
    folder = tmp_path / "checkout"
    tracked = run(["git", "ls-files", "-co", "--exclude-standard"], REPOSITORY, os.environ)
    for name in tracked.splitlines():
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, folder / name)
    for name in ("quickstart/0.tar", ".venv/lib/torch.so", "labelled/labels/a.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(2**21))
    console = folder / "mint_stream" / "pipeline" / "progress.py"
    console.write_text(console.read_text().replace("loading the model.", f"{TRAVELLED}."))
    return folder


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3_server.port) as running:
        yield running


@pytest.fixture
def head(checkout: Path, s3_server: S3Server, proxy: FaultProxy, tmp_path: Path) -> Iterator[Head]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    gcs, dashboard, client, export, agent = free_ports(5)
    arguments = ["start", "--head", "--block", "--num-cpus=2", f"--port={gcs}"]
    arguments += [f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    arguments += [f"--metrics-export-port={export}", f"--dashboard-agent-listen-port={agent}"]
    arguments += ["--disable-usage-stats"]
    environment = {
        **s3_server.environment(proxy.endpoint),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-and-no-other",
        "RAY_metrics_report_interval_ms": "1000",
        "PYTHONPATH": "",
        "PATH": path,
    }
    driver = Driver(["-m", "ray.scripts.scripts", *arguments], environment=environment)
    address = f"http://127.0.0.1:{dashboard}"
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "RAY_"))}
    asking = {
        **bare,
        "PATH": path,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": environment["RAY_AUTH_TOKEN"],
    }
    with driver:
        driver.until(lambda: "Ray runtime started" in driver.out + driver.err, "the head is up")
        yield Head(checkout, driver, address, asking, f"127.0.0.1:{export}")


@pytest.fixture
def prometheus(head: Head, tmp_path: Path) -> Iterator[PrometheusServer | None]:
    """Beside the head; None where it is not installed (Debian: prometheus)."""
    if shutil.which("prometheus") is None:
        yield None
        return
    with PrometheusServer(tmp_path / "prometheus", head.driver.folder / "ray") as running:
        yield running


def test_a_job_is_submitted_followed_stopped_and_finished(
    head: Head,
    proxy: FaultProxy,
    prometheus: PrometheusServer | None,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = s3_server.client()
    client.create_bucket(Bucket="jobs")
    feed = write_feed(tmp_path / "feed", frames=FRAMES, seed=3)
    for path in (*feed.shards, feed.labels):
        client.put_object(Bucket="jobs", Key=f"feed/{path.name}", Body=path.read_bytes())
    broken = tar(*((f"{n}.jpg", b"no image") for n in range(BROKEN)))
    client.put_object(Bucket="jobs", Key="feed/z-broken.tar", Body=broken)
    submit = command_of_the_readme(head.address)

    # Without a token: refused, before anything is uploaded.
    stranger = {**head.environment, "RAY_AUTH_TOKEN": "another"}
    refused = subprocess.run(
        ["ray", "job", "list", "--address", head.address],
        env=stranger,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0

    submit = submit.replace("ray job submit", "ray job submit --no-wait --submission-id night", 1)
    assert "night" in submitted(submit, head)

    def labelled() -> int:
        listed = client.list_objects_v2(Bucket="jobs", Prefix="labelled/labels/")
        return int(listed["KeyCount"])

    wait_until(lambda: labelled() >= 1 or not running(head, "night"), "the job labels")
    assert running(head, "night"), head.ray("job", "logs", "--address", head.address, "night")
    check_package(head.driver.folder)
    check_operators(head)
    said = head.ray("job", "stop", "--address", head.address, "night")
    assert "was stopped" in said
    logs = head.ray("job", "logs", "--address", head.address, "night")
    assert TRAVELLED in logs, "the code came from somewhere else"
    assert "Stopping: finishing the units in flight" in logs
    assert "stop requested; run again to continue" in logs, "it was killed before it had drained"

    use_environment(monkeypatch, s3_server.environment())
    first = Output.read("s3://jobs/labelled")
    assert 0 < len(first.frames) < FRAMES
    kept = client.list_objects_v2(Bucket="jobs", Prefix="labelled/lease")
    assert kept["KeyCount"] == 0, "the lease was not given up"

    proxy.inject("slow_down", method="PUT", path="labels/", times=2)
    again = command_of_the_readme(head.address).replace(
        "ray job submit", "ray job submit --submission-id morning", 1
    )
    said = submitted(again, head)
    assert "succeeded" in said
    assert f"{len(first.frames)} frames are done already" in said, "its log is followed"
    output = Output.read("s3://jobs/labelled")
    check_frames(output, output.frames)
    assert len(output.frames) == FRAMES + BROKEN
    check_bank(output, PRESETS["paper"], width=128)  # of the bundled CLIP
    assert s3_server.secret_key not in logs + said
    check_rights(proxy)
    wait_until(lambda: "ray_mint_frames_total" in names(scrape(head.metrics)), "its metrics")
    if prometheus is not None:
        check_metrics_in_view(prometheus)


def check_metrics_in_view(prometheus: PrometheusServer) -> None:
    """Every panel of the dashboard drew something, and the planted trouble raised its alert."""

    def empty() -> list[str]:
        return [
            title
            for title, query in panel_queries()
            if not any(name in query for name in OF_DOMAINS) and not prometheus.shown(query)
        ]

    wait_until(lambda: not empty(), "every panel has been drawn")
    wait_until(lambda: "MintManyRejects" in prometheus.fired(), "the rejects are told of")


def submitted(command: str, head: Head) -> str:
    """What the command prints; again while the head is so young that it has no agent for jobs."""
    for _ in range(30):
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=head.checkout,
            env=dict(head.environment),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        said = done.stdout + done.stderr
        if "No available agent" not in said:
            break
    assert done.returncode == 0, said[-5000:]
    return said


def command_of_the_readme(address: str) -> str:
    """Its addresses replaced by those of the test; one labeler, small units, a slow preset.

    Few checkpoints: the log is kept whole, so that the bank can be held against it.
    """
    text = with_bundled(commands("### On a Ray cluster"))
    assert "--num-labelers 4" in text
    text = text.replace("--num-labelers 4", "--unit-size 4 --preset paper --checkpoint-every 900")
    text = re.sub(r"--address \S+", f"--address {address}", text)
    return text.replace("s3://cameras/", "s3://jobs/")


def running(head: Head, job: str) -> bool:
    return any(
        found["submission_id"] == job and found["status"] in ("PENDING", "RUNNING")
        for found in head.ask("/api/jobs/")
    )


def check_package(folder: Path) -> None:
    """What the head has unpacked of the working directory."""
    below = folder / "ray" / "session_latest" / "runtime_resources" / "working_dir_files"
    (package,) = (path for path in below.glob("_ray_pkg_*") if path.is_dir())
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    there = {path.relative_to(package).parts[0] for path in files}
    assert there == {"mint_stream", "pipelines", "pyproject.toml"}
    assert sum(path.stat().st_size for path in files) < 6 * 2**20, "the bundled CLIP has four"


def check_operators(head: Head) -> None:
    """The dashboard's page of Ray Data names the stages by what they do."""
    (job,) = (j for j in head.ask("/api/jobs/") if j["submission_id"] == "night")
    (dataset,) = head.ask(f"/api/data/datasets/{job['job_id']}")["datasets"]
    assert dataset["dataset"].startswith("label_")
    operators = " ".join(operator["name"] for operator in dataset["operators"])
    for stage in ("Discover", "read_units", "LabelUnits", "commit_units"):
        assert stage in operators, operators


def check_rights(proxy: FaultProxy) -> None:
    """Each request is allowed by infra/aws/policy-store.json, and each right was used."""
    policy = json.loads((REPOSITORY / "infra" / "aws" / "policy-store.json").read_text())
    text = json.dumps(policy["Statement"]).replace(":::cameras", ":::jobs")
    used: set[tuple[str, str]] = set()
    refused: set[str] = set()
    for passed in proxy.requests:
        address = urlsplit(passed.path)
        bucket, _, key = address.path.lstrip("/").partition("/")
        query = parse_qs(address.query)
        if key:
            action = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject"}.get(
                passed.method, "DeleteObject"
            )
        else:
            action = "ListBucket"
        prefix = query.get("prefix", [""])[0]
        target = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")
        allowed = [
            (statement["Sid"], action)
            for statement in json.loads(text)
            if f"s3:{action}" in many(statement["Action"])
            and any(fnmatchcase(target, pattern) for pattern in many(statement["Resource"]))
            and (key or allows_prefix(statement, prefix))
        ]
        if not allowed:
            refused.add(f"{passed.method} {passed.path}")
        used.update(allowed)
    assert not refused, "requests for which there is no right"
    assert used == {
        ("ListInputAndOutput", "ListBucket"),
        ("ReadInput", "GetObject"),
        ("WriteOutput", "GetObject"),
        ("WriteOutput", "PutObject"),
        ("WriteOutput", "DeleteObject"),
    }


def many(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def allows_prefix(statement: dict[str, Any], prefix: str) -> bool:
    patterns = statement["Condition"]["StringLike"]["s3:prefix"]
    return any(fnmatchcase(prefix, pattern) for pattern in patterns)
