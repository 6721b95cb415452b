"""The app that runs a target's bundles on a device: its project as source, or of Android built with Gradle."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .. import targets
from ..console import show_stage
from ..errors import DependencyError, ExportError, UsageError, printable
from ..files import new_folder

APK = "app/build/outputs/apk/release/app-release.apk"
GRADLE, XCODE = "settings.gradle.kts", "Harness.xcodeproj"  # by which a project is known
LEFT_OUT = shutil.ignore_patterns("build", ".gradle", ".build", "DerivedData", "xcuserdata", ".swiftpm", ".DS_Store")


def copy_app(target: str, out: Path) -> Path:
    """Write the project of the target's app to the new folder `out`. Raises UsageError where the target has no app."""
    source = _project(target)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: choose another --out")
    with new_folder(out.absolute()) as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=LEFT_OUT)
    return out


def _project(target: str) -> Path:
    sources = [Path(folder) / target / "harness" for folder in targets.__path__]
    if source := next((path for path in sources for name in (GRADLE, XCODE) if (path / name).exists()), None):
        return source
    targets.load_target(target)  # its own sentence for a target that does not exist
    carried = any((path / "bench.py").is_file() for path in sources)
    raise UsageError(
        f"the {target} target has no app to build{': its bundles carry their harness' if carried else ' yet'}"
    )


def build_app(target: str, out: Path) -> Path:
    """Copy the project and build its APK with Gradle, which fetches plugins and libraries from Google and Maven.

    Raises UsageError for iOS, whose apps have to be signed, DependencyError where Gradle or the Android SDK is missing,
    ExportError where the build fails.
    """
    if (_project(target) / XCODE).exists():
        raise UsageError(
            f"Xcode builds the {target} app, and signs it for your team: leave --build out, open {XCODE} in {out} with "
            "Xcode, choose the team, and run it on the device"
        )
    sdk = os.environ.get("ANDROID_HOME") or os.environ.get("ANDROID_SDK_ROOT")
    if not sdk or not Path(sdk).is_dir():
        raise DependencyError(
            "building the app needs an Android SDK, which Android Studio installs: set ANDROID_HOME to its folder, or "
            "copy the project with --out alone and open it in Android Studio"
        )
    if shutil.which("gradle") is None or shutil.which("java") is None:
        raise DependencyError("building the app needs Gradle 8.13 or newer and JDK 17 on the PATH")
    copy_app(target, out)
    show_stage("gradle", 0)
    command = ["gradle", "--console=plain", "--project-dir", str(out), ":app:assembleRelease"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not (out / APK).is_file():
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        cause = next((line for line in lines if line.startswith(("> ", "e: "))), lines[-1] if lines else "no output")
        raise ExportError(f"Gradle cannot build the app in {out}: {printable(cause, 300)}")
    return out / APK
