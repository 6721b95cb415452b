"""The app's project: copied, and built by a Gradle that is a script here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdd_edge.errors import DependencyError, ExportError, UsageError
from rdd_edge.exporting.app import APK, build_app, copy_app


def gradle(folder: Path, script: str) -> None:
    for name, text in {"gradle": f"#!/bin/sh\n{script}\n", "java": "#!/bin/sh\n"}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def test_the_project_is_copied_whole_and_over_nothing(tmp_path: Path) -> None:
    out = copy_app("android", tmp_path / "app")
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"settings.gradle.kts", "gradle/libs.versions.toml", "app/src/main/AndroidManifest.xml"} <= names
    assert not [name for name in names if "build/" in name]
    with pytest.raises(UsageError, match="is not empty"):
        copy_app("android", out)
    with pytest.raises(UsageError, match="the jetson target has no app"):
        copy_app("jetson", tmp_path / "other")
    with pytest.raises(UsageError, match="there is no target 'toaster'"):
        copy_app("toaster", tmp_path / "other")


def test_the_project_of_ios_is_copied_and_left_to_xcode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = tmp_path / "targets" / "ios" / "harness"
    for name in ("App/HarnessApp.swift", "Core/Package.swift", "Harness.xcodeproj/project.pbxproj", "README.md",
                 "Core/.build/x", "Harness.xcodeproj/xcuserdata/me.plist"):  # fmt: skip
        (harness / name).parent.mkdir(parents=True, exist_ok=True)
        (harness / name).write_text(name)
    monkeypatch.setattr("rdd_edge.targets.__path__", [str(tmp_path / "targets")])
    out = copy_app("ios", tmp_path / "app")
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert names == {"App/HarnessApp.swift", "Core/Package.swift", "Harness.xcodeproj/project.pbxproj", "README.md"}
    with pytest.raises(UsageError, match=r"Xcode builds the ios app, .*: leave --build out"):
        build_app("ios", tmp_path / "built")
    assert not (tmp_path / "built").exists()


def test_the_build_is_gradles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANDROID_SDK_ROOT", raising=False)
    monkeypatch.delenv("ANDROID_HOME", raising=False)
    with pytest.raises(DependencyError, match="set ANDROID_HOME"):
        build_app("android", tmp_path / "app")
    monkeypatch.setenv("ANDROID_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DependencyError, match="needs Gradle"):
        build_app("android", tmp_path / "app")
    assert not (tmp_path / "app").exists()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    gradle(tmp_path, f'mkdir -p "$(dirname "$3/{APK}")" && echo "$@" > "$3/{APK}"')
    apk = build_app("android", tmp_path / "app")
    assert apk.read_text().split()[-1] == ":app:assembleRelease"
    gradle(tmp_path, "echo 'FAILURE: Build failed' >&2; echo '> SDK location not found \033[2J' >&2; exit 1")
    with pytest.raises(ExportError, match=r"> SDK location not found \?\[2J") as error:
        build_app("android", tmp_path / "again")
    assert str(error.value).isprintable()
