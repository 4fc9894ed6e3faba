"""`serve deploy`, `serve run`, curl and the client as they are written, on a Ray of their own."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import image_files
import pytest
import yaml
from drivers import REPOSITORY, Driver
from tiny import Assets

LOOPBACK = "http://127.0.0.1"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/readyz").status_code == 200
    except httpx2.HTTPError:
        return False


def test_the_written_commands_start_a_service_that_answers_the_written_clients(
    assets: Assets, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    (tmp_path / "frame.jpg").write_bytes(image_files.jpeg())
    section = (REPOSITORY / "README.md").read_text().partition("### Serve single frames")[2]
    written = re.search(r"```bash\n(serve run .*?)\n(curl .*?)\n```", section, re.DOTALL)
    assert written is not None
    run, curl = written[1].partition("#")[0], written[2]
    client = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert client is not None
    deploy = (REPOSITORY / "infra" / "serve.yaml").read_text()
    command = deploy.splitlines()[0].removeprefix("# ")
    http, port, dashboard = free_port(), free_port(), free_port()
    config = tmp_path / "serve.yaml"
    # What the file names is downloaded, or in a store: the package's own in its place.
    own = yaml.safe_load(deploy.replace("port: 8000", f"port: {http}"))
    for name in ("weights", "labels"):
        del own["applications"][0]["args"][name]
    own["applications"][0]["args"]["model"] = "bundled"
    config.write_text(yaml.safe_dump(own))
    (tmp_path / "token").write_text(secrets.token_hex(32))
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
    }
    address = {
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_DASHBOARD_ADDRESS": f"{LOOPBACK}:{dashboard}",
    }
    start = [
        *("-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=4"),
        *(f"--dashboard-port={dashboard}", "--include-dashboard=true"),
    ]
    with Driver(start, environment=environment) as head:
        head.until(lambda: listens(dashboard), "Ray's dashboard")
        done = shell(command.replace("infra/serve.yaml", str(config)), {**environment, **address})
        assert done.returncode == 0, done.stdout + done.stderr
        url = f"{LOOPBACK}:{http}"
        head.until(lambda: ready(url), "what was deployed")
        about = httpx2.get(f"{url}/v1/info").json()
        found = ask(curl, f"{url}/v1/label", tmp_path)
        assert found["label"] in about["classes"]
        said = [found[name] for name in ("label", "confidence", "source_label", "bank_seq")]
        assert run_client(client[1], url, tmp_path) == " ".join(map(str, said))
        assert (about["model"], about["bank_seq"]) == ("bundled", None)

        words = run.replace("model=bundled", f"model={assets.model} labels={assets.labels}")
        assert words != run
        _, *serve_run = words.split()
        other = ["-m", "ray.serve.scripts", *serve_run, "--name=other", "--route-prefix=/other"]
        with Driver(other, environment={**environment, **address}) as running:
            url = f"{url}/other"
            running.until(lambda: ready(url), "what `serve run` starts")
            label = ask(curl, f"{url}/v1/label", tmp_path)
            assert label["label"] in assets.labels.read_text().split()


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def shell(line: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euc", line],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def run_client(program: str, url: str, folder: Path) -> str:
    """What the README's client prints, with another port."""
    program = program.replace(f"{LOOPBACK}:8000", url)
    assert url in program
    return subprocess.check_output(
        [sys.executable, "-c", program], cwd=folder, text=True, timeout=60
    ).strip()


def ask(curl: str, url: str, folder: Path) -> dict[str, Any]:
    """The README's line with another port: nothing else is changed."""
    line = curl.replace(f"{LOOPBACK}:8000/v1/label", url)
    assert line != curl
    done = subprocess.run(
        ["bash", "-euc", line], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert "label" in found, found
    return found
