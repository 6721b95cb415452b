"""A benchmark run on another machine over ssh: copy the bundle there, run its harness, and fetch the result.

    ~/.cache/rdd-edge/bundles/<sha256>/    the bundle, kept for later runs
    ~/.cache/rdd-edge/runs/<random>/       plan.json and the run, removed once it is fetched

Keys, jump hosts and host keys are those of the user's OpenSSH configuration; an unknown host key is refused. The other
machine is not trusted: what it sends is bounded in size, cleaned of control characters, and accepted only if it is the
run of the bundle and the plan that were sent.
"""

from __future__ import annotations

import io
import secrets
import tarfile
from contextlib import suppress
from pathlib import Path

from ..bundle import Bundle, Plan
from ..console import reporter, show_stage
from ..errors import CorruptError, DeviceError, RddEdgeError, UsageError
from ..targets import load_target
from .connection import Destination
from .record import RunRecord
from .returned import most_archive_bytes, receive

HOME = ".cache/rdd-edge"  # relative, because a login starts in the user's home
# Each script is one login, because a handshake takes longer than the work. Names are arguments, not part of a script.
UNPACK = 'mkdir -p "$1" && tar -C "$1" -xf - && mv -T "$1" "$2"'
# Runs that a broken connection left behind are removed by the next run, a day later at the earliest.
RUN = (
    'mkdir -p "$1" && find "${1%/*}" -mindepth 1 -maxdepth 1 -mtime +0 -exec rm -rf {} + && cat > "$1/plan.json" && '
    'exec python3 -B "$2/harness/bench.py" --plan "$1/plan.json" --out "$1/out" --expect "$3" '
    '${4:+--runtime "$4"} ${5:+--min-psnr "$5"}'
)
FETCH = 'tar -C "$1/out" -cf - . && rm -rf "$1"'


def bench_over_ssh(
    bundle: Bundle, destination: Destination, out: Path, plan: Plan | None, runtime: str | None = None
) -> RunRecord:
    """Run a bundle on another machine and write the benchmark run to `out`, which is replaced as a whole or not at all.

    runtime: one that the bundle's harness offers; None for its default: TensorRT of a Jetson bundle, and ExecuTorch
    of an Android bundle, which any arm64 Linux board can run.
    Raises DeviceError where the machine cannot be reached or the connection breaks, CorruptError for a run that is not
    the one asked for, and the harness's own errors: ArtifactError where the machine's images are too far from
    the student's, unless the bundle's export allowed that.
    """
    if not (bundle.folder / "harness" / "bench.py").is_file():
        raise UsageError(
            f"{bundle.folder} has no harness to run on another machine: the {bundle.manifest.target} target has none, "
            "or the bundle was exported before it had one"
        )
    plan = plan or bundle.manifest.default_plan
    m = bundle.manifest
    least = "" if m.parity.low_allowed else f"{load_target(m.target).precision(m.precision).parity_db:g}"
    remote_bundle = f"{HOME}/bundles/{bundle.sha256}"
    remote_run = f"{HOME}/runs/{secrets.token_hex(16)}"
    _send_bundle(destination, bundle, remote_bundle)
    try:
        harness = ["sh", "-c", RUN, "sh", remote_run, remote_bundle, bundle.sha256, runtime or "", least]
        destination.run_harness(harness, plan.model_dump_json().encode())
        archive = destination.call(["sh", "-c", FETCH, "sh", remote_run], most=most_archive_bytes(bundle, plan))
    except CorruptError:
        destination.call(["rm", "-rf", remote_bundle, remote_run])  # the next run sends a copy that was damaged there
        raise
    except RddEdgeError:
        with suppress(DeviceError):  # a broken connection was reported already
            destination.call(["rm", "-rf", remote_run])
        raise
    record, test = receive(archive, out, bundle, plan, destination)
    reporter().note(f"{destination}: {test.psnr_db:.1f} dB from the student there, median of {test.samples} images")
    return record


def _send_bundle(destination: Destination, bundle: Bundle, folder: str) -> None:
    """Copy the bundle unless it is there; it appears under its name only once it is complete."""
    test = ["sh", "-c", 'test ! -f "$1/manifest.json" || echo there', "sh", folder]
    if destination.call(test).strip() == b"there":
        return
    show_stage("copy", 0)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("manifest.json", *bundle.manifest.files):
            tar.add(bundle.folder / name, name, recursive=False)
    destination.call(["sh", "-c", UNPACK, "sh", f"{folder}.{secrets.token_hex(8)}", folder], archive.getvalue())
