"""The README's words, run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.fs
import pytest
from s3_server import S3Server

from mint_stream.demo.feed import write_feed
from mint_stream.output.read import read_labels
from mint_stream.upkeep.verify.verify import verify

ROOT = Path(__file__).resolve().parents[2]


MODEL = "--model ViT-B-16 --weights laion2b_s34b_b88k"


def with_bundled(text: str) -> str:
    """The same with the CLIP that ships with the package: that of the README is downloaded."""
    assert MODEL in text
    return text.replace(MODEL, "--model bundled")


def commands(heading: str) -> str:
    """The first block of shell commands under `heading` in the README."""
    text = (ROOT / "README.md").read_text()
    _, _, after = text.partition(f"{heading}\n")
    assert after, f"README has no heading {heading!r}"
    block = re.search(r"```bash\n(.*?)```", after, re.DOTALL)
    assert block is not None
    return block.group(1)


def test_the_object_storage_section_runs_word_for_word(
    s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = with_bundled(commands("### Object storage"))
    exports = re.findall(r"\b(AWS_[A-Z_]+)=", text)
    environment = s3_server.environment()
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"} <= set(exports)
    # The values of a real machine in place of the README's: nothing else is changed.
    for name in exports:
        text = re.sub(rf"\b{name}=\S+", f"{name}='{environment[name]}'", text)

    feed = write_feed(tmp_path / "feed", frames=16, seed=3)
    client = s3_server.client()
    client.create_bucket(Bucket="cameras")
    for path in (*feed.shards, feed.labels):
        client.put_object(Bucket="cameras", Key=f"feed/{path.name}", Body=path.read_bytes())

    bare = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    bare["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{bare['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", text], cwd=ROOT, env=bare, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    for secret in (s3_server.access_key, s3_server.secret_key):
        assert secret not in done.stdout + done.stderr

    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert verify("s3://cameras/labelled", input_url="s3://cameras/feed").findings == ()
    labels = read_labels("s3://cameras/labelled")
    assert labels.num_rows == len(set(labels["frame"].to_pylist())) == 16
    assert all(frame.startswith("s3://cameras/feed/") for frame in labels["frame"].to_pylist())
    filesystem, root = pyarrow.fs.FileSystem.from_uri("s3://cameras/labelled")
    written = filesystem.get_file_info(pyarrow.fs.FileSelector(root, recursive=True))
    for info in written:
        if info.type == pyarrow.fs.FileType.File:
            data = filesystem.open_input_file(info.path).readall()
            assert s3_server.secret_key.encode() not in data, f"{info.path} holds a secret"
