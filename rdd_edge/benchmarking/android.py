"""A benchmark run on an Android device: the harness app runs the bundle there, and its run is fetched.

    /data/local/tmp/rdd-edge/                     adb's own folder, which apps can read
        bundles/<sha256>/    the bundle, kept for later runs
        plans/adb-<random>   plan.json of one run
    /sdcard/Android/media/org.rddedge.harness/    the app's own folder, which adb can read
        runs/adb-<random>/   the run, or error.json; removed once it was fetched

Not below Android/data, where some phones refuse adb ("fchown failed", "secure_mkdirs failed": ecmdroid/ecmdroid#7,
mrrfv/open-android-backup#30): androidx.benchmark's Outputs.kt takes Android/media for that reason.

The app's log shows the progress and nothing else: the outcome is what the app leaves in the run's folder. Some phones
hide the logs of apps (rovo89/XposedInstaller#415, XposedBridge#176): there the time on the processor that the app has
spent shows that it is at work.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Generator
from contextlib import closing, suppress
from pathlib import Path

from .. import targets
from ..bundle import Bundle, Plan
from ..console import reporter, show_stage
from ..errors import ArtifactError, CorruptError, DeviceError, MissingError, RddEdgeError, UsageError, printable
from ..files import sha256_of
from .adb import MOST_OUTPUT_BYTES, Android, serial_of
from .harness_app import MOST_ERROR_BYTES, STALL_SECONDS, Progress, least_psnr, read_failure
from .processes import last_line, lines_of
from .record import RunRecord
from .returned import most_archive_bytes, receive

TARGET = "android"
PACKAGE = "org.rddedge.harness"
ACTIVITY = f"{PACKAGE}/.BenchmarkActivity"
INBOX = "/data/local/tmp/rdd-edge"
HOME = f"/sdcard/Android/media/{PACKAGE}"
TAG = "rdd-edge"
POLL_SECONDS = 5.0  # without a line of the log, before a command asks for the app: each one disturbs what is timed
# Scripts with the arguments INBOX, HOME, the run's name and one more, which are never part of them. The app is another
# user, and has to be able to read what they write.
PREPARE = (
    'umask 022; mkdir -p "$1/bundles" "$1/plans" && '
    'rm -rf "$1"/*/adb-* "$2"/runs/adb-* "$2"/runs/.adb-* && printf %s "$4" > "$1/plans/$3"'
)
CLEAN = 'rm -rf "$1/bundles/$4" "$1/plans/$3" "$2/runs/$3" "$2/runs/.$3".*'
KNOWN = '[ ! -f "$1/bundles/$4/manifest.json" ] || echo there'
PLACE = 'cd "$1/bundles" && rm -rf "$4" && mv "$3" "$4"'
STATE = (  # The process first: it may end as soon as the run is there. Another process is idle: the system started it.
    f'pid=$(pidof {PACKAGE}); if [ -e "$2/runs/$3" ]; then echo finished; '
    'elif [ "$pid" ] && [ "$pid" = "${4:-$pid}" ]; then echo running; cut -d " " -f 14,15 "/proc/$pid/stat"; '
    "else echo dead; fi"
)
ERROR = '[ ! -f "$2/runs/$3/error.json" ] || head -c "$4" "$2/runs/$3/error.json"'
FETCH = 'tar -C "$2/runs/$3" -cf - . 2>/dev/null'
HINTS = "dumpsys battery; settings get global airplane_mode_on; getprop sys.boot.reason"


def bench_over_adb(bundle: Bundle, url: str, out: Path, plan: Plan | None, apk: Path | None = None) -> RunRecord:
    """Run a bundle on an Android device and write the benchmark run to `out`, as a whole or not at all.

    url: adb://[serial].  apk: the harness app, installed where the device has another one.
    Raises DeviceError where the device cannot be used or is lost, CorruptError for a run that is not the one asked
    for, and the errors of the app.
    """
    if bundle.manifest.target != TARGET:
        raise UsageError(f"{bundle.folder} is for {bundle.manifest.target}, and adb:// devices run {TARGET} bundles")
    phone, plan = Android(serial_of(url)), plan or bundle.manifest.default_plan
    _install(phone, apk)
    _give_hints(phone)
    name = f"adb-{secrets.token_hex(8)}"
    try:
        _run(phone, PREPARE, name, plan.model_dump_json())
        _send(phone, bundle, name)
        _raise_failure(phone, name, _follow(phone, name, _start(phone, bundle, name)))
        archive = _run(phone, FETCH, name, most=most_archive_bytes(bundle, plan))
        record, test = receive(archive, out, bundle, plan, phone)
    except BaseException as error:  # Ctrl-C too
        with suppress(RddEdgeError):  # a device that was lost has been reported already
            phone.shell("am", "force-stop", PACKAGE)
            _clean(phone, name, bundle.sha256 if isinstance(error, CorruptError) else "")
        raise
    reporter().note(f"{phone}: {test.psnr_db:.1f} dB from the student on the device, median of {test.samples} images")
    _clean(phone, name)
    return record


def _run(phone: Android, script: str, name: str, argument: str = "", most: int = MOST_OUTPUT_BYTES) -> bytes:
    """The output of one of the scripts above."""
    return phone.shell("sh", "-c", script, "sh", INBOX, HOME, name, argument, most=most)


def _clean(phone: Android, name: str, bundle: str = "") -> None:
    """Remove a run from the device, and a bundle that was not copied or kept as it should be."""
    _run(phone, CLEAN, name, bundle or name)


def _version() -> str:
    """Of the app that belongs to this rdd-edge."""
    build = Path(targets.__path__[0]) / TARGET / "harness/app/build.gradle.kts"
    match = re.search(r'versionName = "([\w.]+)"', build.read_text())
    assert match
    return match[1]


def _install(phone: Android, apk: Path | None) -> None:
    """Install the APK unless the device has the same file, and refuse another version than this rdd-edge's."""
    if apk is not None:
        if not apk.is_file():
            raise MissingError(f"there is no {apk}")
        script = 'path=$(pm path "$1") && sha256sum "${path#package:}" || true'
        if phone.shell("sh", "-c", script, "sh", PACKAGE)[:64] != sha256_of(apk).encode():
            show_stage("install", 0)
            phone.install(apk)
    how = "build it with `rdd-edge harness android --build --out DIR`, and give --apk FILE"
    found = re.search(rb"^\s*versionName=([\w.]{1,40})\s*$", phone.shell("dumpsys", "package", PACKAGE), re.MULTILINE)
    if found is None:
        raise DeviceError(f"the harness app is not installed on {phone}: {how}")
    if found[1].decode() != _version():
        raise DeviceError(f"{phone} has version {found[1].decode()} of the harness app, not {_version()}: {how}")


def _give_hints(phone: Android) -> None:
    """Print once what would make the figures steadier; nothing is enforced."""
    text = phone.shell("sh", "-c", HINTS).decode(errors="replace")
    battery = dict(re.findall(r"^  (\w+): (\d{1,4})$", text, re.MULTILINE))
    hints = []
    if int(battery.get("temperature", 0)) >= 350:
        hints.append(f"let it cool down (its battery is at {int(battery['temperature']) / 10:.0f} °C)")
    if int(battery.get("level", 100)) < 30:
        hints.append(f"charge it ({battery['level']} %)")
    if not re.search(r"^1$", text, re.MULTILINE):
        hints.append("turn on airplane mode")
    if "thermal" in text.rstrip().rpartition("\n")[2]:
        hints.append("mind that it last shut down because of heat")
    if hints:
        reporter().note(f"{phone}: for steadier figures, {', '.join(hints)}")


def _send(phone: Android, bundle: Bundle, name: str) -> None:
    """Copy the bundle unless it is there; it appears under its name only when it is complete."""
    if _run(phone, KNOWN, name, bundle.sha256):
        return
    show_stage("copy", 0)
    phone.push(bundle.folder, f"{INBOX}/bundles/{name}")
    _run(phone, PLACE, name, bundle.sha256)


def _start(phone: Android, bundle: Bundle, name: str) -> str:
    """Start the app. Returns its process id, or nothing where it has ended already."""
    extras = {
        "bundle": f"{INBOX}/bundles/{bundle.sha256}", "bundle_sha256": bundle.sha256, "plan": f"{INBOX}/plans/{name}",
        "out": f"runs/{name}", "stall_seconds": f"{STALL_SECONDS:g}",
    }  # fmt: skip
    if least := least_psnr(bundle):
        extras["min_psnr_db"] = least
    words = [word for key, value in extras.items() for word in ("--es", key, value)]
    show_stage("start", 0)
    phone.shell("log", "-t", TAG, name)  # the lines before it are those of other runs
    started = phone.shell("am", "start", "-S", "-W", "-n", ACTIVITY, *words)
    if wrong := re.search(rb"^Error.*", started, re.MULTILINE):
        raise DeviceError(f"{phone} cannot start the harness app: {last_line(wrong[0], 300)}")
    return phone.shell("sh", "-c", 'pidof "$1" || true', "sh", PACKAGE).decode(errors="replace").strip()


def _follow(phone: Android, name: str, pid: str) -> RddEdgeError | None:
    """Report the app's progress until it has ended. Returns the failure that its log reports, if any."""
    progress, spent = Progress(phone, STALL_SECONDS), b""
    with closing(_log_lines(phone, name)) as lines:
        for line in lines:
            if line is None:
                state, _, processor_time = _run(phone, STATE, name, pid).strip().partition(b"\n")
                if state == b"dead":
                    stage = reporter().stage
                    raise ArtifactError(f"the harness app on {phone} died in stage {stage}: {_crash(phone, pid)}")
                if state == b"finished":
                    return None
                if processor_time != spent:
                    progress.see_work()
                spent = processor_time
            elif progress.take(line):
                break
            progress.check()
    return progress.failure


def _log_lines(phone: Android, name: str) -> Generator[str | None, None, None]:
    """Lines of the app's log since this run began; None after each silence of POLL_SECONDS."""
    current = False
    with closing(phone.follow("logcat", "-v", "raw", "-T", "1000", "-s", f"{TAG}:I", wait=POLL_SECONDS)) as parts:
        for line in lines_of(parts):
            if current or line is None:
                yield line
            current = current or line == name


def _crash(phone: Android, pid: str) -> str:
    """What the crash log says of a process: a line that names it and the two after it."""
    log = phone.shell("logcat", "-b", "crash", "-d", "-v", "raw", "-t", "500").decode(errors="replace").splitlines()
    named = [at for at, line in enumerate(log) if re.search(rf"\bpid:? {re.escape(pid)}\b", line, re.IGNORECASE)]
    if not pid or not named:
        return "the system ended it and logged no crash, perhaps for lack of memory: close other apps"
    return printable("; ".join(line.strip() for line in log[named[-1] : named[-1] + 3]), 500)


def _raise_failure(phone: Android, name: str, logged: RddEdgeError | None) -> None:
    """Raise what error.json says, or the log where the app could not write that file."""
    if text := _run(phone, ERROR, name, str(MOST_ERROR_BYTES)):
        raise read_failure(text, phone)
    if logged is not None:
        raise logged
