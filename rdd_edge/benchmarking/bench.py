"""Bench runs on this machine: a bundle in its target's own runtime, or the student itself in PyTorch.

A bench run is a folder of plan.json, record.json and samples (see results). It is there whole or not at all.
"""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path

from ..bundle import MANIFEST, QUICK, Bundle, Manifest, Plan, read_bundle
from ..diffusion.checkpoint import Checkpoint, read_checkpoint
from ..errors import MissingError, UsageError
from ..files import new_folder, read_model, write_model
from ..targets.base import ExportSpec
from .facts import Facts
from .record import RunRecord, this_machine
from .ssh import SSH, Destination, bench_over_ssh
from .worker import SERVER, Request, in_child

__all__ = ["HOST", "RECORD", "bench", "default_plan", "spec_of"]

HOST = "host"
PLAN, RECORD = "plan.json", "record.json"
SAMPLES = ("samples.u8", "samples.f32")


def bench(
    source: Path,
    device: str,
    out: Path,
    plan: Plan | None = None,
    runtime: str | None = None,
) -> RunRecord:
    """Run a bundle on "host" or an ssh:// device, or a checkpoint (a training run's student) on "server".

    The bench run is written to `out`.

    plan: None for the bundle's default, or Plan's own on the server.  runtime: over ssh, another than the board's own.
    Raises UsageError where device and source do not fit, ArtifactError where the artifact does not run.
    """
    _check_out(out)
    if device != SERVER and not source.exists():  # a checkpoint may be a shipped model's name
        raise MissingError(f"there is no bundle or checkpoint {source}")
    is_bundle = (source / MANIFEST).is_file()
    if runtime and not device.startswith(SSH):
        raise UsageError(f"--runtime {runtime} goes with {SSH}…: the {device} has one runtime for each artifact")
    if device == HOST:
        if not is_bundle:
            raise UsageError(f"the host runs bundles and {source} is none: export it first, or take --device {SERVER}")
        return _bench_bundle(read_bundle(source), out, plan)
    if device == SERVER:
        if is_bundle:
            raise UsageError(f"the server runs checkpoints and {source} is a bundle: take --device {HOST}")
        return _bench_student(read_checkpoint(source), out, plan or Plan())
    if device.startswith(SSH):
        if not is_bundle:
            raise UsageError(f"{device} runs bundles and {source} is none: export it first")
        return bench_over_ssh(read_bundle(source), Destination.parse(device), out, plan, runtime)
    raise UsageError(
        f"there is no device {device!r}: choose {HOST} or {SSH}user@host[:port] for a bundle, {SERVER} for a checkpoint"
    )


def default_plan(source: Path, *, quick: bool = False) -> Plan:
    """The plan of a run that is told nothing: the bundle's own, or Plan's where the source is a checkpoint.

    quick: timed by MLPerf's quick mode.
    """
    is_bundle = (source / MANIFEST).is_file()
    plan = read_model(source / MANIFEST, Manifest).default_plan if is_bundle else Plan()
    return plan.changed(runs=QUICK.runs, seconds=QUICK.seconds) if quick else plan


def spec_of(bundle: Bundle) -> ExportSpec:
    """The function a bundle's artifact computes."""
    m = bundle.manifest
    n, c, h, w = m.input.shape
    classes = None if m.label is None or m.label.high is None else int(m.label.high) + 1
    return ExportSpec(m.precision, (n, c, h, w), classes)


def _check_out(out: Path) -> None:
    """A folder that is not a bench run is not ours to replace."""
    if out.exists() and not (out / RECORD).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"{out} is there and is not a bench run: choose another --out")


def _bench_bundle(bundle: Bundle, out: Path, plan: Plan | None) -> RunRecord:
    m, spec, plan = bundle.manifest, spec_of(bundle), plan or bundle.manifest.default_plan
    artifact = bundle.artifact.resolve()
    request = Request(job="bench", target=m.target, artifact=str(artifact), spec=spec, threads=plan.threads, plan=plan)
    about: dict[str, object] = {
        "target": m.target,
        "precision": m.precision,
        "bundle_sha256": bundle.sha256,
        "checkpoint_sha256": m.checkpoint_sha256,
        "checkpoint": None,
        "artifact_bytes": bundle.artifact_bytes,
    }
    return _run(request, plan, about, out)


def _bench_student(checkpoint: Checkpoint, out: Path, plan: Plan) -> RunRecord:
    checkpoint.require_one_step()
    spec = ExportSpec("fp32", (1, *checkpoint.image_shape), checkpoint.classes)
    folder = checkpoint.folder.resolve()
    request = Request(job="bench", target=SERVER, artifact=str(folder), spec=spec, threads=plan.threads, plan=plan)
    about: dict[str, object] = {
        "target": SERVER,
        "precision": "fp32",
        "bundle_sha256": None,
        "checkpoint_sha256": checkpoint.sha256,
        "checkpoint": str(folder),
        "artifact_bytes": checkpoint.weights.stat().st_size,
    }
    return _run(request, plan, about, out)


def _run(request: Request, plan: Plan, about: dict[str, object], out: Path) -> RunRecord:
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    out = out.resolve()
    with new_folder(out) as folder:
        work = folder / "work"
        work.mkdir()
        outcome = in_child(request, work)
        facts = _no_facts(outcome.message) if outcome.status == "none" else read_model(work / "facts.json", Facts)
        for name in SAMPLES:
            if facts.samples and (work / name).stat().st_size:
                (work / name).replace(folder / name)
        shutil.rmtree(work)
        record = RunRecord.model_validate(
            {
                **about,
                **facts.model_dump(),
                "where": "host",
                "device": this_machine(),
                "threads": request.threads if facts.runtime else None,
                "batch": request.spec.input_shape[0],
                "started_at": started,
            }
        )
        write_model(folder / PLAN, plan)
        write_model(folder / RECORD, record)
    return record


def _no_facts(reason: str) -> Facts:
    """Where nothing here can run the artifact: every fact null, each with the reason."""
    nulls = dict.fromkeys(name for name in Facts.model_fields if name != "missing")
    return Facts.model_validate({**nulls, "missing": dict.fromkeys([*nulls, "threads"], reason)})
