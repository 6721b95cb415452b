"""`rdd-edge bench`: execute a bundle's artifact, or a student in PyTorch, and write the benchmark run.

The run's folder (its files are listed in `run`) appears whole or not at all.
"""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydantic import ValidationError

from ..bundle import MANIFEST, QUICK, Bundle, Manifest, Plan, read_bundle
from ..diffusion.checkpoint import Checkpoint, read_checkpoint
from ..errors import ArtifactError, MissingError, UsageError
from ..files import new_folder, write_model
from ..portable.run_folder import check_out
from ..reading.documents import first_fault, read_model
from ..targets.base import ExportSpec
from .adb import ADB
from .android import bench_over_adb
from .connection import SSH, Destination
from .devicectl import IOS
from .ios import bench_over_devicectl
from .isolation import Request, in_child
from .record import MEASURED, SERVER, RunRecord, this_machine
from .run import PLAN, RECORD, SAMPLES
from .ssh import bench_over_ssh

HOST = "host"


def bench(
    source: Path,
    device: str,
    out: Path,
    plan: Plan | None = None,
    runtime: str | None = None,
    apk: Path | None = None,
    prediction: str | None = None,
    timestep: int | None = None,
) -> RunRecord:
    """Run a bundle on "host" or an ssh://, adb:// or ios:// device, or a checkpoint (or training run) on "server".

    out: folder of the benchmark run; an existing benchmark run there is replaced.
    plan: by default the bundle's own, or Plan's defaults on the server.
    runtime: over ssh, "tensorrt" or "onnxruntime"; by default the harness chooses.
    apk: over adb, the harness app to install where the device has another one.
    prediction, timestep: of a foreign one-step student on the server, as in `one_step_student`.
    Raises UsageError where device and source do not fit, ArtifactError where the artifact does not run.
    """
    check_out(out)
    if device != SERVER and not source.exists():  # a checkpoint may be a shipped model's name
        raise MissingError(f"there is no bundle or checkpoint {source}")
    is_bundle = (source / MANIFEST).is_file()
    if runtime and not device.startswith(SSH):
        raise UsageError(f"--runtime {runtime} goes with {SSH}…: on the {device} each artifact has one runtime")
    if apk and not device.startswith(ADB):
        raise UsageError(f"--apk goes with {ADB}: the {device} needs no app")
    if device == SERVER:
        if is_bundle:
            raise UsageError(f"{source} is a bundle and the server runs checkpoints: use --device {HOST}")
        from ..diffusion.foreign_student import one_step_student

        return _bench_student(one_step_student(read_checkpoint(source), prediction, timestep), out, plan or Plan())
    if prediction is not None or timestep is not None:
        raise UsageError(f"--prediction and --timestep are for a checkpoint on the {SERVER}: a bundle contains them")
    if device != HOST and not device.startswith((SSH, ADB, IOS)):
        raise UsageError(
            f"there is no device {device!r}: choose {HOST}, {SSH}user@host[:port], {ADB}[serial] or {IOS}[udid] for a "
            f"bundle, or {SERVER} for a checkpoint"
        )
    if not is_bundle:
        raise UsageError(f"{source} is not a bundle: export it first, or use --device {SERVER} for a checkpoint")
    if device == HOST:
        return _bench_bundle(read_bundle(source), out, plan)
    if device.startswith(ADB):
        return bench_over_adb(read_bundle(source), device, out, plan, apk)
    if device.startswith(IOS):
        return bench_over_devicectl(read_bundle(source), device, out, plan)
    return bench_over_ssh(read_bundle(source), Destination.parse(device), out, plan, runtime)


def default_plan(source: Path, *, quick: bool = False) -> Plan:
    """The plan of a bundle, or Plan's defaults for a checkpoint.

    quick: with the number of runs and the time of MLPerf's quick mode.
    """
    is_bundle = (source / MANIFEST).is_file()
    plan = read_model(source / MANIFEST, Manifest).default_plan if is_bundle else Plan()
    return plan.changed(runs=QUICK.runs, seconds=QUICK.seconds, starts=QUICK.starts) if quick else plan


def spec_of(bundle: Bundle) -> ExportSpec:
    """The function that a bundle's artifact computes."""
    m = bundle.manifest
    n, c, h, w = m.input.shape
    classes = None if m.label is None or m.label.high is None else int(m.label.high) + 1
    return ExportSpec(m.precision, (n, c, h, w), classes)


def _bench_bundle(bundle: Bundle, out: Path, plan: Plan | None) -> RunRecord:
    m, plan = bundle.manifest, plan or bundle.manifest.default_plan
    artifact, spec = str(bundle.artifact.resolve()), spec_of(bundle)
    request = Request(target=m.target, artifact=artifact, spec=spec, threads=plan.threads, plan=plan)
    return _run(request, out, bundle.artifact_bytes, m.checkpoint_sha256, bundle.sha256)


def _bench_student(checkpoint: Checkpoint, out: Path, plan: Plan) -> RunRecord:
    spec = ExportSpec("fp32", (1, *checkpoint.image_shape), checkpoint.classes, checkpoint.conversion)
    folder = str(checkpoint.folder.resolve())
    request = Request(target=SERVER, artifact=folder, spec=spec, threads=plan.threads, plan=plan)
    return _run(request, out, checkpoint.weights.stat().st_size, checkpoint.sha256, None, checkpoint.class_names)


def _measured(request: Request, work: Path) -> dict[str, Any]:
    """The record's fields that only a process which ran the artifact knows.

    The timed runs are spread over several processes, because its memory layout makes a process faster or slower for
    its whole life. The first one's files lie in `work`; its fields are the record's, but for the times of all.
    """
    assert request.plan is not None
    timing, starts = request.plan.performance.share(), request.plan.performance.starts
    share = request.plan.model_copy(update={"performance": timing})
    outcome = in_child(request.model_copy(update={"plan": share}), work)
    if outcome.status == "none":  # nothing on this machine can run the artifact
        return {**dict.fromkeys(MEASURED), "missing": dict.fromkeys(MEASURED, outcome.message)}
    measured = {"threads": request.threads, **outcome.measured}
    if measured["latency_ms"] is None:
        return measured
    again = request.model_copy(update={"plan": share.changed(samples=0), "profiled": False})
    for _ in range(starts - 1):
        with TemporaryDirectory(prefix="rdd-edge-") as name:
            more = in_child(again, Path(name)).measured
        measured["latency_ms"] += more["latency_ms"]
        for direction, times in (measured["transfers"] or {}).items():
            times += more["transfers"][direction]
        if measured["peak_memory_bytes"] is not None:
            measured["peak_memory_bytes"] = max(measured["peak_memory_bytes"], more["peak_memory_bytes"])
    return {**measured, "starts": starts}


def _run(
    request: Request,
    out: Path,
    artifact_bytes: int,
    checkpoint_sha256: str,
    bundle_sha256: str | None,
    class_names: tuple[str, ...] | None = None,
) -> RunRecord:
    """Execute the request in child processes and write the run."""
    assert request.plan is not None
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with new_folder(out.absolute()) as folder:
        work = folder / "work"
        work.mkdir()
        measured = _measured(request, work)
        for name in SAMPLES:
            if measured["samples"] and (work / name).stat().st_size:
                (work / name).replace(folder / name)
        shutil.rmtree(work)
        fields = {
            "target": request.target,
            "precision": request.spec.precision,
            "bundle_sha256": bundle_sha256,
            "checkpoint_sha256": checkpoint_sha256,
            "checkpoint": request.artifact if request.target == SERVER else None,
            "class_names": class_names,
            "where": "host",
            "device": this_machine(),
            "batch": request.spec.input_shape[0],
            "started_at": started,
            "artifact_bytes": artifact_bytes,
        }
        try:
            record = RunRecord.model_validate({**fields, **measured})
        except ValidationError as error:
            raise ArtifactError(f"the record of {request.artifact} is not valid: {first_fault(error)}") from None
        write_model(folder / PLAN, request.plan)
        write_model(folder / RECORD, record)
    return record
