"""What another machine sends back: bounded in size, and accepted only if it is the run that was asked for."""

from __future__ import annotations

import io
import math
import os
import shutil
import stat
from pathlib import Path

from ..bundle import Bundle, Plan
from ..errors import CorruptError, MissingError
from ..files import new_folder
from ..reading.archives import tar_members
from ..reading.documents import MOST_BYTES, read_model
from ..schema import Count, Decibels, Frozen, Number, Text, Version1
from .record import RunRecord
from .run import PLAN, RECORD, SAMPLES, SELFTEST, BenchRun, read_bench_run

MOST_SELFTEST_BYTES = 4096
TAR_BYTES = 1 << 16  # headers and padding of a few files, generously


class Failure(Frozen):
    """error.json, which an app leaves in place of a run."""

    schema_version: Version1
    kind: Text  # name of a class in rdd_edge.errors
    sentence: Text


class SelfTest(Frozen):
    """selftest.json: the artifact's images on the device against the student's."""

    schema_version: Version1
    noise_max_difference: Number
    psnr_db: Decibels
    worst_psnr_db: Decibels
    threshold_db: Decibels | None
    samples: Count


def most_bytes(bundle: Bundle, plan: Plan) -> dict[str, int]:
    """The largest size of each file of the run, by name."""
    values = math.prod(bundle.manifest.input.shape[1:])
    samples, floats = plan.accuracy.samples, min(plan.accuracy.samples, plan.accuracy.floats)
    sizes = (samples * values, 4 * floats * values)
    most = {PLAN: MOST_BYTES, RECORD: MOST_BYTES, SELFTEST: MOST_SELFTEST_BYTES}
    return {**most, **dict(zip(SAMPLES, sizes, strict=True))}


def most_archive_bytes(bundle: Bundle, plan: Plan) -> int:
    """The largest size of the tar of the run."""
    return sum(most_bytes(bundle, plan).values()) + TAR_BYTES


def receive(archive: bytes, out: Path, bundle: Bundle, plan: Plan, sender: object) -> tuple[RunRecord, SelfTest]:
    """Write the run in an archive to the folder `out`, which is replaced as a whole or not at all.

    Raises CorruptError where it is not a run of this bundle and this plan.
    """
    with new_folder(out.absolute()) as folder:
        unpack(archive, folder, most_bytes(bundle, plan), sender)
        return check_run(folder, bundle, plan, sender)


def unpack(archive: bytes, folder: Path, most: dict[str, int], sender: object) -> None:
    """Write the files of an uncompressed tar into `folder`; each must be a regular file named in `most`, and no larger.

    Raises CorruptError for anything else, and for a truncated archive.
    """
    for member in tar_members(io.BytesIO(archive), f"the benchmark run from {sender}", len(archive)):
        name = member.name.removeprefix("./")
        if member.is_folder and name in (".", ""):
            continue
        _check_file(name, member.is_file, member.size, most, sender)
        (folder / name).write_bytes(member.read())


def receive_folder(source: Path, out: Path, bundle: Bundle, plan: Plan, sender: object) -> tuple[RunRecord, SelfTest]:
    """As `receive`, for a run that lies in the folder `source`, where `check_files` has passed."""
    with new_folder(out.absolute()) as folder:
        for name in check_files(source, most_bytes(bundle, plan), sender):
            shutil.copyfile(source / name, folder / name, follow_symlinks=False)
        return check_run(folder, bundle, plan, sender)


def check_files(folder: Path, most: dict[str, int], sender: object) -> list[str]:
    """The names in a folder that another machine has filled: regular files that `most` names, and none of them larger.

    Raises CorruptError for anything else, a link among it.
    """
    names = sorted(os.listdir(folder))
    for name in names:
        found = (folder / name).lstat()
        _check_file(name, stat.S_ISREG(found.st_mode), found.st_size, most, sender)
    return names


def _check_file(name: str, is_file: bool, size: int, most: dict[str, int], sender: object) -> None:
    if name not in most or not is_file:
        raise CorruptError(f"{sender} sent back {name[:80]!r}, which is not part of a benchmark run")
    if size > most[name]:
        raise CorruptError(f"{sender} sent back {name} with {size} bytes; the plan allows {most[name]}")


def check_run(folder: Path, bundle: Bundle, plan: Plan, sender: object) -> tuple[RunRecord, SelfTest]:
    """Record and self-test of the run in `folder`. Raises CorruptError as `receive` does."""
    try:
        run, test = read_bench_run(folder), read_model(folder / SELFTEST, SelfTest)
    except (CorruptError, MissingError) as error:
        reason = str(error).replace(f"{folder}/", "")
        raise CorruptError(f"the benchmark run from {sender} is not valid: {reason}") from None
    if run.record.bundle_sha256 != bundle.sha256 or run.plan != plan:
        raise CorruptError(f"{sender} sent back the run of another bundle or plan")
    if name := _foreign(run, bundle):
        raise CorruptError(
            f"{sender} sent back a record whose {name} is not that of the bundle and plan that were sent"
        )
    return run.record, test


def _foreign(run: BenchRun, bundle: Bundle) -> str | None:
    """The first field of a record that contradicts the bundle or the plan."""
    record, m = run.record, bundle.manifest
    samples = record.samples
    fields = {
        "target": record.target == m.target,
        "precision": record.precision == m.precision,
        "checkpoint_sha256": record.checkpoint_sha256 == m.checkpoint_sha256,
        "where": record.where != "host",
        "batch": record.batch == m.input.shape[0],
        "threads": record.threads in (None, run.plan.threads),
        "artifact_bytes": record.artifact_bytes in (None, bundle.artifact_bytes),
        "latency_ms": record.latency_ms is None or len(record.latency_ms) >= run.plan.performance.runs,
        "samples": samples is None or (samples.channels, samples.height, samples.width) == m.input.shape[1:],
    }
    return next((name for name, fits in fields.items() if not fits), None)
