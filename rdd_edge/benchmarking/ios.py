"""A benchmark run on an iPhone or iPad: the harness app runs the bundle there, and its run is fetched.

    Documents/driver/    in the app's container
        bundle-<random>/     the bundle
        plan.json            of one run
        run-<random>/        the run, or error.json

devicectl can copy to an app's container but not delete there: the app removes what earlier runs left when one starts. A
new name for each run, since a copy into an existing folder would mix two bundles.

The app's console shows the progress; the outcome is what the app leaves in the run's folder.
"""

from __future__ import annotations

import re
import secrets
from collections import deque
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import targets
from ..bundle import Bundle, Plan
from ..console import reporter, show_stage
from ..errors import ArtifactError, DeviceError, RddEdgeError, UsageError, printable
from ..reading.documents import read_content
from .devicectl import udid_of
from .harness_app import ERROR, MOST_ERROR_BYTES, STALL_SECONDS, Progress, least_psnr, read_failure
from .iphone import Iphone
from .processes import lines_of
from .record import RunRecord
from .returned import SelfTest, check_files, most_bytes, receive_folder

TARGET, BACKEND = "ios", "coreml"
PROJECT = "Harness.xcodeproj/project.pbxproj"
HOME = "Documents"
PREFIX = "rdd-edge: "  # of the app's lines on the console, among those of the system
POLL_SECONDS = 5.0  # without a line of the console, before the time since the last one is looked at
LINES_SHOWN = 3  # of the console, where the app crashed


def bench_over_devicectl(bundle: Bundle, url: str, out: Path, plan: Plan | None) -> RunRecord:
    """Run a bundle on an iPhone or iPad and write the benchmark run to `out`, as a whole or not at all.

    url: ios://[udid].
    Raises DependencyError without Xcode, DeviceError where the device cannot be used or is lost, CorruptError for a run
    that is not the one asked for, and the errors of the app.
    """
    if bundle.manifest.target != TARGET:
        raise UsageError(f"{bundle.folder} is for {bundle.manifest.target}, and ios:// devices run {TARGET} bundles")
    if (backend := bundle.manifest.needs.backend) != BACKEND:
        raise UsageError(f"{bundle.folder} is for {backend}, and the harness app has {BACKEND} alone")
    phone, plan = Iphone(udid_of(url)), plan or bundle.manifest.default_plan
    _require_app(phone)
    name = secrets.token_hex(8)
    _send(phone, bundle, plan, name)
    show_stage("start", 0)
    failure = _follow(phone, _arguments(bundle, name))
    record, test = _collect(phone, name, failure, out, bundle, plan)
    reporter().note(f"{phone}: {test.psnr_db:.1f} dB from the student on the device, median of {test.samples} images")
    return record


def _version() -> str:
    """Of the app that belongs to this rdd-edge."""
    project = (Path(targets.__path__[0]) / TARGET / "harness" / PROJECT).read_text()
    match = re.search(r"\bMARKETING_VERSION = \"?([\w.]+)\"?;", project)
    assert match
    return match[1]


def _require_app(phone: Iphone) -> None:
    """Refuse a device without the app, or with another version of it than this rdd-edge's."""
    how = "copy its project with `rdd-edge harness ios --out DIR`, and run it on the device from Xcode"
    found = phone.installed_version()
    if found is None:
        raise DeviceError(f"the harness app is not installed on {phone}: {how}")
    if found != _version():
        raise DeviceError(f"{phone} has version {found} of the harness app, not {_version()}: {how}")


def _send(phone: Iphone, bundle: Bundle, plan: Plan, name: str) -> None:
    show_stage("copy", 0)
    with TemporaryDirectory(prefix="rdd-edge-") as folder:
        path = Path(folder) / "plan.json"
        path.write_text(plan.model_dump_json())
        phone.send(bundle.folder.resolve(), f"{HOME}/driver/bundle-{name}")
        phone.send(path, f"{HOME}/driver/plan.json")


def _arguments(bundle: Bundle, name: str) -> list[str]:
    """The app's launch arguments; its paths are relative to Documents."""
    options = {
        "bundle": f"driver/bundle-{name}", "bundle-sha256": bundle.sha256, "plan": "driver/plan.json",
        "out": f"driver/run-{name}", "stall-seconds": f"{STALL_SECONDS:g}",
    }  # fmt: skip
    if least := least_psnr(bundle):
        options["min-psnr-db"] = least
    return [word for key, value in options.items() for word in (f"--{key}", value)]


def _follow(phone: Iphone, arguments: Iterable[str]) -> RddEdgeError | None:
    """Start the app, report its progress, and end it. Returns the failure that it reported, if any."""
    progress, console, started = Progress(phone, STALL_SECONDS), deque[str](maxlen=LINES_SHOWN), False
    try:
        with closing(phone.follow_app(*arguments, wait=POLL_SECONDS)) as parts:
            for line in lines_of(parts):
                if line and not line.startswith(PREFIX):
                    console.append(line)
                elif line:
                    started = True
                    if progress.take(line.removeprefix(PREFIX)):
                        return progress.failure
                progress.check()
    except DeviceError:
        if not started:
            raise
    phone.check()
    last = printable("; ".join(console), 500) or "it printed no reason; the system may have ended it for lack of memory"
    raise ArtifactError(f"the harness app on {phone} ended in stage {reporter().stage}: {last}")


def _collect(
    phone: Iphone, name: str, failure: RddEdgeError | None, out: Path, bundle: Bundle, plan: Plan
) -> tuple[RunRecord, SelfTest]:
    """Fetch the run, and write it to `out`. Raises what error.json says, or the console where the app left none."""
    most = {**most_bytes(bundle, plan), ERROR: MOST_ERROR_BYTES}
    with TemporaryDirectory(prefix="rdd-edge-") as temporary:
        folder = Path(temporary)
        try:
            phone.fetch(f"{HOME}/driver/run-{name}", folder, sum(most.values()))
        except RddEdgeError as error:
            raise failure or error from None
        nested = folder / f"run-{name}"  # whether devicectl copies a folder or what is in it is not documented
        folder = nested if nested.is_dir() and not nested.is_symlink() else folder
        if ERROR in check_files(folder, most, phone):
            raise read_failure(read_content(folder / ERROR, MOST_ERROR_BYTES), phone)
        if failure is not None:
            raise failure
        return receive_folder(folder, out, bundle, plan, phone)
