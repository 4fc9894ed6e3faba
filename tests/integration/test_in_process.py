"""A run in one process writes what the pipeline on Ray writes, without Ray."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from oracle import Output, check_frames, check_same, check_verified
from places import Place
from tiny import METHOD, put, put_tars, tar

from mint_stream.config import PRESETS, ConfigError
from mint_stream.pipeline.in_process import run_in_process


def command(place: Place, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "mint_stream", "label", "--in-process", "--unit-size", "4"),
        *("--input", place.input, "--output", place.output, "--labels", str(place.assets.labels)),
        *("--model", str(place.assets.model), "--device", "cpu", "--dtype", "float32", *more),
    ]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("method", [METHOD, PRESETS["realtime"]], ids=["mint", "realtime"])
def test_labels_and_bank_are_those_of_the_pipeline(place: Place, method: object) -> None:
    put_tars(place.input, shards=2, frames=14, cameras=("north", "south"))
    put(place.input, {"bad.tar": tar([("x.png", b"no image")])})
    on_ray = place.run(method=method)
    here = f"{place.root}/here"
    alone = run_in_process(place.config(output=here, method=method))
    assert (alone.frames, alone.units, alone.rejects) == (28, on_ray.units, {"decode": 1})
    check_same(Output.read(here), Output.read(place.output))
    check_verified(here)


def test_the_command_loads_no_ray_and_goes_on_after_a_stop(local: Place) -> None:
    ids = put_tars(local.input, shards=3, frames=16)
    code = (
        "import sys; from mint_stream.cli.main import main; status = main(sys.argv[1:]); "
        "print('ray' in sys.modules); sys.exit(status)"
    )
    options = command(local, "--preset", "realtime", "--limit", "20", "--quiet")[3:]
    first = subprocess.run(
        [sys.executable, "-c", code, *options], capture_output=True, text=True, check=False
    )
    assert (first.returncode, first.stdout.splitlines()[-1]) == (0, "False"), first.stderr
    rest = subprocess.run(
        command(local, "--preset", "realtime"), capture_output=True, text=True, check=False
    )
    assert rest.returncode == 0, rest.stderr
    assert "28 frames in 7 units, 20 were done before" in " ".join(rest.stdout.split())
    check_frames(Output.read(local.output), ids)


def test_a_request_to_stop_ends_it_after_the_unit_under_way(local: Place) -> None:
    ids = put_tars(local.input, shards=4, frames=100)
    process = subprocess.Popen(
        command(local, "--log-json"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if json.loads(line).get("msg", json.loads(line).get("message")) == "labelled":
            process.send_signal(signal.SIGTERM)
            break
    _, told = process.communicate()
    assert process.returncode == 0, told
    labelled = sum(table.num_rows for table in Output.read(local.output).labels.values())
    assert 0 < labelled < 400
    check_verified(local.output)
    again = subprocess.run(command(local, "--quiet"), check=False)
    assert again.returncode == 0
    check_frames(Output.read(local.output), ids)


@pytest.mark.parametrize("changes", [{"follow": True}, {"num_labelers": 2}])
def test_what_needs_ray_is_refused(local: Place, changes: dict[str, object]) -> None:
    put_tars(local.input, shards=1, frames=1)
    with pytest.raises(ConfigError, match="Ray"):
        run_in_process(local.config(**changes))
