"""Torch takes seconds to import: of a run's processes only the labelers do it."""

from __future__ import annotations

from drivers import Driver
from oracle import Output, check_frames
from places import Place
from tiny import put_tars

DRIVER = """
import sys
from mint_stream.cli import label as command
from mint_stream.pipeline import run as pipeline

class Watched(pipeline.Run):
    def execute(self):
        assert "torch" not in sys.modules, "checking a run brought torch along"
        return super().execute()

pipeline.Run = Watched
code = command.main(sys.argv[1:])
assert "torch" not in sys.modules, "watching a run brought torch along"
sys.exit(code)
"""


def test_the_driver_does_not_import_torch(local: Place) -> None:
    ids = put_tars(local.input, shards=1, frames=4)
    arguments = [
        *("--input", local.input, "--output", local.output),
        *("--labels", str(local.assets.labels), "--model", str(local.assets.model)),
    ]
    with Driver(["-c", DRIVER, *arguments]) as driver:
        assert driver.wait() == 0, driver.err
    check_frames(Output.read(local.output), ids)
