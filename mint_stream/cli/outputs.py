"""The parts of `mint-stream` that look into an output, check it, or make something of it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from mint_stream.config import ConfigError, require
from mint_stream.output.lease import LeaseHeld
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store

Format = Literal["label-studio", "fiftyone", "coco", "csv"]
Order = Literal["confidence", "disagreement", "random"]


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """What is in an output: units, labels by class and camera, rejects, bank checkpoints."""

    output: tyro.conf.Positional[str]
    """A folder or an URL."""
    json: bool = False
    """Everything, as JSON."""

    def run(self, console: Console) -> int:
        """Print it."""
        from mint_stream.upkeep.contents import describe
        from mint_stream.upkeep.tables import print_contents

        contents = describe(self.output)
        _print_json(contents.as_dict()) if self.json else print_contents(contents, console)
        return 0


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Whether an output is what it must be: exit code 0, or 1 with a line for each finding."""

    output: tyro.conf.Positional[str]
    """A folder or an URL, into which no run is writing now."""
    input: str | None = None
    """What was labelled: then each of its frames must be there, once, and no other."""
    image_column: str | None = None
    """As it was given to the run."""
    id_column: str | None = None
    """As it was given to the run."""
    json: bool = False
    """The findings as JSON."""

    def run(self, console: Console) -> int:
        """Print what was found."""
        from mint_stream.upkeep.tables import print_verdict
        from mint_stream.upkeep.verify.verify import verify

        verdict = verify(
            self.output,
            input_url=self.input,
            image_column=self.image_column,
            id_column=self.id_column,
        )
        _print_json(verdict.as_dict()) if self.json else print_verdict(verdict, console)
        return 0 if verdict.clean else 1


@dataclass(frozen=True, kw_only=True)
class Diff:
    """How two outputs differ: exit code 0 if they say the same, 1 if not."""

    output_a: tyro.conf.Positional[str]
    """A folder or an URL."""
    output_b: tyro.conf.Positional[str]
    """Another one over the same input."""
    json: bool = False
    """Everything, as JSON."""

    def run(self, console: Console) -> int:
        """Print it."""
        from mint_stream.upkeep.compare import compare
        from mint_stream.upkeep.tables import print_diff

        diff = compare(self.output_a, self.output_b)
        _print_json(diff.as_dict()) if self.json else print_diff(diff, console)
        return 0 if diff.same else 1


@dataclass(frozen=True, kw_only=True)
class Report:
    """A page about an output: labels by camera and day, confidence, drift, guard, rejects.

    One file that loads nothing; pictures of sample frames with --input.
    """

    output: tyro.conf.Positional[str]
    """A folder or an URL."""
    to: str = "report.html"
    """The file to write, local or an URL."""
    input: str | None = None
    """What was labelled: sample frames are read again from there."""
    truth: bool = False
    """Hold the labels against what --input itself says: sidecars, columns, folder names."""
    image_column: str | None = None
    """As it was given to the run."""
    id_column: str | None = None
    """As it was given to the run."""

    def run(self, console: Console) -> int:
        """Write it, and say where it is."""
        from mint_stream.input.pictures import read_pictures
        from mint_stream.input.truth import read_truth
        from mint_stream.reports.report import view_run, write_report

        require(self.input is not None or not self.truth, "truth", True, "given with --input")
        columns = {"image_column": self.image_column, "id_column": self.id_column}
        view = view_run(self.output)
        require(
            view.labels.num_rows > 0, "output", self.output, "an output with at least one label"
        )
        pictures = truth = None
        if self.input is not None:
            pictures = functools.partial(read_pictures, self.input, **columns)
            truth = read_truth(self.input, **columns) if self.truth else None
        write_report(self.to, [view], truth=truth, pictures=pictures)
        console.print(f"{view.labels.num_rows:,} frames in", self.to, soft_wrap=True)
        return 0


@dataclass(frozen=True, kw_only=True)
class Export:
    """Frames for people to review, the most doubtful first, for the tool they review with.

    Answers to the most doubtful frames correct them; to calibrate, or to measure how often labels
    are right, take frames at random (--first random), 100 at least and 30 of each class.
    """

    output: tyro.conf.Positional[str]
    """A folder or an URL."""
    format: Format
    """label-studio, coco and csv are files, fiftyone is a folder."""
    to: str
    """The file or folder to write, local or an URL."""
    first: Order = "confidence"
    """confidence: the lowest first. disagreement: where the answer is not the frozen model's.
    random: whatever the answer is, and the same each time."""
    limit: int = 100
    """Most frames."""
    all: bool = False
    """Every frame, whatever the limit."""
    per_class: int | None = None
    """Most frames of each label."""
    per_camera: int | None = None
    """Most frames of each camera."""
    input: str | None = None
    """What was labelled: images are embedded (label-studio) or copied (fiftyone) from there."""
    image_url: str | None = None
    """Where the tool finds an image instead: a template with {frame}, {shard}, {member}, {camera}.
    Without --input and this, the frame id of a loose image."""
    image_column: str | None = None
    """As it was given to the run."""
    id_column: str | None = None
    """As it was given to the run."""

    def run(self, console: Console) -> int:
        """Write it, and say what was written."""
        from mint_stream.input.pictures import read_pictures
        from mint_stream.output.read import read_labels
        from mint_stream.output.settings import read_settings
        from mint_stream.upkeep.export import export
        from mint_stream.upkeep.review import choose

        rows = choose(
            read_labels(self.output),
            first=self.first,
            per_class=self.per_class,
            per_camera=self.per_camera,
            limit=None if self.all else self.limit,
        )
        classes = read_settings(Store(self.output)).get("classes")
        if not classes:
            raise ConfigError(f"{self.output} has no run.json with classes: it is no output")
        pictures = None
        if self.input is not None and self.format in ("label-studio", "fiftyone"):
            columns = {"image_column": self.image_column, "id_column": self.id_column}
            pictures = read_pictures(self.input, rows, **columns)
        written = export(
            rows,
            self.to,
            self.format,
            classes=classes,
            pictures=pictures,
            image_url=self.image_url,
        )
        console.print(f"{rows.num_rows:,} frames in", *written, soft_wrap=True)
        if self.first != "random" and not self.all:
            console.print(
                "these are no fair sample: to calibrate or to measure, export with --first random",
                soft_wrap=True,
            )
        return 0


@dataclass(frozen=True, kw_only=True)
class ImportReview:
    """What people answered, as truth for an evaluation: Parquet with columns frame and label."""

    file: tyro.conf.Positional[str]
    """An export of Label Studio (JSON, JSON-MIN, CSV), FiftyOne's labels.json with attributes,
    COCO-style JSON, or the CSV of `export` with its column `truth` filled in, as a spreadsheet
    saves it."""
    output: str
    """What the frames were exported from: answers must be to its frames, by its classes."""
    to: str
    """The Parquet file to write, local or an URL."""

    def run(self, console: Console) -> int:
        """Write it, and say how much it is."""
        from mint_stream.upkeep.review_import import import_review

        table = import_review(self.file, self.to, self.output)
        console.print(f"{table.num_rows:,} answers in", self.to, soft_wrap=True)
        return 0


@dataclass(frozen=True, kw_only=True)
class Calibrate:
    """Fit confidences to an output whose truth is known, for `label_stream.py --calibration`.

    A temperature, and for each class the least calibrated confidence at which its labels are right
    as often as --precision asks. Says how well that does on stretches that it was not fitted on.
    Needs the truth of 100 frames at least, chosen at random, and of 30 labels for a class to have
    a confidence of its own.
    """

    output: tyro.conf.Positional[str]
    """A folder or an URL."""
    to: str
    """The JSON file to write, local or an URL."""
    input: str | None = None
    """What was labelled, with the truth in sidecars, Parquet columns or folder names."""
    truth: str | None = None
    """Parquet file with the columns frame and label instead, as import-review writes it."""
    precision: float = 0.9
    """Share of the labels that should be right."""

    def run(self, console: Console) -> int:
        """Fit, write, and say how good it is."""
        from mint_stream.evaluation.calibrate import calibrate, how_many
        from mint_stream.input.truth import read_any_truth
        from mint_stream.labeler.calibration_file import write_calibration
        from mint_stream.upkeep.tables import print_calibration

        require(0 < self.precision < 1, "precision", self.precision, "between 0 and 1")
        if self.input is None and self.truth is None:
            raise ConfigError(f"neither input nor truth is given. {how_many(self.output)}")
        truth = read_any_truth(self.input, self.truth)
        calibration, tested = calibrate(self.output, truth, precision=self.precision)
        facts = {"for_precision": self.precision, "tested": dataclasses.asdict(tested)}
        write_calibration(calibration, facts, self.to)
        print_calibration(calibration, tested, self.to, console)
        return 0


@dataclass(frozen=True, kw_only=True)
class Compact:
    """Copy the many small files of an output into few, by day and camera, for fast reading.

    Unit files stay, the record of what is committed, unless they are to be removed. A run may go on
    meanwhile.
    """

    output: tyro.conf.Positional[str]
    """A folder or an URL."""
    remove_units: bool = False
    """Then remove the small files that were copied: the copy is the record from now on, for runs
    and all readers but those of labels/*.parquet. Not while a run is writing."""

    def run(self, console: Console) -> int:
        """Do it, and say where the files are."""
        from mint_stream.upkeep.compaction import compact
        from mint_stream.upkeep.removal import remove_units

        removal = remove_units(self.output) if self.remove_units else None
        done = removal.compaction if removal else None
        if not self.remove_units:
            done = compact(self.output)
        if done is None:
            console.print("nothing is committed here yet")
            return 0
        what = "wrote" if done.written else "nothing new since"
        files = len(done.generation.files)
        text = (
            f"{what} generation {done.generation.number}: {done.units:,} units in {files:,} files"
        )
        console.print(text, soft_wrap=True)
        if removal is not None:
            console.print(f"removed {removal.removed:,} small files: it is the record now")
        console.print(Store(self.output).uri(done.generation.folder), soft_wrap=True)
        return 0


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Bring the bank back to an earlier state. No run may be writing; labels stay as they are."""

    output: tyro.conf.Positional[str]
    """A folder or an URL."""
    to: Annotated[int, tyro.conf.arg(metavar="SEQ")]
    """Seq of a checkpoint that `inspect` lists; 0 for the bank's start."""
    scope: str | None = None
    """Only the bank of this camera, where each has its own."""

    def run(self, console: Console) -> int:
        """Do it, and say what the bank is now."""
        from mint_stream.upkeep.rollback import rollback

        done = rollback(self.output, self.to, self.scope)
        console.print(
            f"the bank of {', '.join(done.scopes)} is what it was at seq {done.to:,}; it goes on "
            f"counting from {done.seq:,}",
            soft_wrap=True,
        )
        return 0


COMMANDS: dict[str, Any] = {
    "inspect": Inspect,
    "verify": Verify,
    "diff": Diff,
    "report": Report,
    "export": Export,
    "import-review": ImportReview,
    "calibrate": Calibrate,
    "compact": Compact,
    "rollback": Rollback,
}


_EXAMPLES = {
    "inspect": "labelled --json",
    "verify": "labelled --input feed",
    "diff": "labelled labelled-again",
    "report": "labelled --input feed --to report.html",
    "export": "labelled --format csv --to review.csv",
    "import-review": "review.csv --to truth.parquet",
    "calibrate": "labelled --truth truth.parquet --to calibration.json",
    "compact": "labelled",
    "rollback": "labelled --to 4200",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that stands first: 0 well, 1 something was found, 2 it could not be done."""
    name, *rest = sys.argv[1:] if arguments is None else arguments
    kind = COMMANDS[name]
    options = tyro.cli(
        kind,
        prog=f"mint-stream {name}",
        description=f"{inspect.getdoc(kind)}\n\nExample: mint-stream {name} {_EXAMPLES[name]}",
        args=rest,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return int(options.run(Console(highlight=False)))
    except (ConfigError, StorageError, LeaseHeld) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps(values, indent=1, default=str))
