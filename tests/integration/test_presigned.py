"""A presigned input, end to end: labelled, and its signature left nowhere."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from plain_run import run_plainly
from tiny import CLASSES, put_tars, write_assets
from web_server import Signed, web_server

from mint_stream import read_labels
from mint_stream.cli.label import main
from mint_stream.config import PRESETS
from mint_stream.input.pictures import read_pictures
from mint_stream.store.store import Store

SIGNATURE = "X-Amz-Credential=AK%2F2026&X-Amz-Signature=5ec2e7%2Bf"
SECRETS = (b"X-Amz", b"5ec2e7", b"AK%2F2026")


def test_a_presigned_shard_is_labelled_and_its_signature_stands_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("asyncio").setLevel(logging.INFO)
    feed, output = tmp_path / "feed", str(tmp_path / "out")
    put_tars(str(feed), shards=2, frames=4)
    (feed / "labels.txt").write_text("\n".join(CLASSES))
    assets = write_assets(tmp_path)
    with web_server(feed, Signed, SIGNATURE) as web:
        url = f"{web}/00{{0,1}}.tar?{SIGNATURE}"
        config = replace(
            assets.config(url, output, method=PRESETS["realtime"]),
            labels=f"{web}/labels.txt?{SIGNATURE}",
        )
        assert run_plainly(config) == 2
        labels = read_labels(output)
        assert set(labels["shard"].to_pylist()) == {f"{web}/000.tar", f"{web}/001.tar"}
        assert run_plainly(config) == 0
        assert len(read_pictures(url, labels)) == labels.num_rows == 8
        wrong = url.replace("5ec2e7", "wrong5ec2e7")
        arguments = ["--input", wrong, "--output", output, "--labels", config.labels]
        model = ["--model", config.model.model, "--device", "cpu"]
        assert main([*arguments, *model]) == 2
    said = capfd.readouterr()
    assert "403" in said.err
    places = {"log": caplog.text, "out": said.out, "err": said.err, "repr": repr(config)}
    found = {name: text.encode() for name, text in places.items()}
    found |= {info.name: Store(output).read(info.name) for info in Store(output).list()}
    assert "run.json" in found
    for name, content in found.items():
        assert not any(secret in content for secret in SECRETS), name
