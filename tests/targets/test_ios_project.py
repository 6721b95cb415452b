"""The Xcode project of the iOS harness, written by hand: Xcode is the only program that reads all of it."""

from __future__ import annotations

import plistlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openstep_plist
import pytest

import rdd_edge

HARNESS = Path(rdd_edge.__file__).parent / "targets" / "ios" / "harness"
PROJECT = HARNESS / "Harness.xcodeproj" / "project.pbxproj"
Objects = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return openstep_plist.loads(PROJECT.read_text(), use_numbers=False)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def objects(project: dict[str, Any]) -> Objects:
    return project["objects"]  # type: ignore[no-any-return]


def of_kind(objects: Objects, isa: str) -> list[dict[str, Any]]:
    return [one for one in objects.values() if one["isa"] == isa]


def strings(value: Any) -> Iterator[str]:
    """All of them, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings(item)
    else:
        for item in value:
            yield from strings(item)


def settings(objects: Objects, owner: str) -> list[dict[str, Any]]:
    """The build settings of the project or of its target, for Debug and Release."""
    [one] = of_kind(objects, owner)
    lists = objects[one["buildConfigurationList"]]["buildConfigurations"]
    configurations = [objects[name] for name in lists]
    assert [configuration["name"] for configuration in configurations] == ["Debug", "Release"]
    return [configuration["buildSettings"] for configuration in configurations]


def test_every_reference_resolves_and_every_object_is_used(project: dict[str, Any], objects: Objects) -> None:
    assert (project["archiveVersion"], project["objectVersion"]) == ("1", "77")  # Xcode 16, the first with such groups
    written = re.findall(r"^\t\t(\w+)(?: /\* .* \*/)? = \{", PROJECT.read_text(), re.MULTILINE)
    assert sorted(written) == sorted(objects)  # none is written twice
    used = {text for text in strings(list(objects.values())) if re.fullmatch(r"[0-9A-F]{24}", text)}
    assert used | {project["rootObject"]} == set(objects)
    assert objects[project["rootObject"]]["isa"] == "PBXProject"


def test_comments_name_what_they_stand_beside(objects: Objects) -> None:
    lists = {one["buildConfigurationList"]: one for one in objects.values() if "buildConfigurationList" in one}

    def name(identifier: str) -> str:
        one = objects[identifier]
        if identifier in lists:
            return f'Build configuration list for {lists[identifier]["isa"]} "Harness"'
        kind = one["isa"].removeprefix("PBX").removesuffix("BuildPhase")
        package = f'XCLocalSwiftPackageReference "{one.get("relativePath")}"'
        plain = one.get("name") or one.get("path") or one.get("productName")
        return plain or {"PBXBuildFile": "HarnessCore in Frameworks", "PBXProject": "Project object"}.get(
            one["isa"], package if one["isa"].startswith("XCLocal") else kind
        )

    comments = set(re.findall(r"([0-9A-F]{24}) /\* (.*?) \*/", PROJECT.read_text()))
    assert len(comments) >= 15
    assert {(identifier, name(identifier)) for identifier, _ in comments} == comments


def test_the_app_is_the_folder_app_with_the_core_beside_it(objects: Objects) -> None:
    [target] = of_kind(objects, "PBXNativeTarget")
    assert target["productType"] == "com.apple.product-type.application"
    [folder] = [objects[name] for name in target["fileSystemSynchronizedGroups"]]
    assert (folder["path"], folder["sourceTree"]) == ("App", "<group>")
    assert "exceptions" not in folder  # no source file is left out
    sources = {path.name for path in (HARNESS / "App").iterdir()}
    assert len(sources) >= 5 and all(name.endswith(".swift") for name in sources)
    [package] = of_kind(objects, "XCLocalSwiftPackageReference")
    manifest = (HARNESS / package["relativePath"] / "Package.swift").read_text()
    [product] = [objects[name] for name in target["packageProductDependencies"]]
    assert f'.library(name: "{product["productName"]}"' in manifest
    [linked] = [name for phase in of_kind(objects, "PBXFrameworksBuildPhase") for name in phase["files"]]
    assert objects[objects[linked]["productRef"]] == product
    for file in of_kind(objects, "PBXFileReference"):
        assert file["sourceTree"] == "BUILT_PRODUCTS_DIR" or (HARNESS / file["path"]).is_file()


def test_the_tests_compile_the_same_sources() -> None:
    link = Path(__file__).parent.parent / "ios" / "app" / "Sources" / "HarnessApp"
    assert link.resolve() == (HARNESS / "App").resolve()
    imported = {
        name
        for path in (HARNESS / "App").iterdir()
        for name in re.findall(r"^(?:@\w+ )?import (\w+)", path.read_text(), re.MULTILINE)
    }
    package = (link.parent.parent / "Package.swift").read_text()
    assert {name for name in imported if f'"{name}"' not in package} == {"Darwin", "Foundation", "Observation"}


def test_it_is_the_app_that_the_python_side_expects(objects: Objects) -> None:
    convert = (HARNESS.parent / "convert.py").read_text()
    least = re.findall(r"minimum_deployment_target=ct\.target\.iOS(\d+)", convert)
    for shared, own in zip(settings(objects, "PBXProject"), settings(objects, "PBXNativeTarget"), strict=True):
        assert [shared["IPHONEOS_DEPLOYMENT_TARGET"]] == [f"{number}.0" for number in least]
        assert own["PRODUCT_BUNDLE_IDENTIFIER"] == "org.rddedge.harness"
        assert own["MARKETING_VERSION"] == "1"
        assert (
            own["CODE_SIGN_STYLE"] == "Automatic" and "DEVELOPMENT_TEAM" not in own | shared
        )  # whoever builds it signs
        assert shared["SWIFT_STRICT_CONCURRENCY"] == "complete"  # as the tests compile it
    versions = set(re.findall(r"\bMARKETING_VERSION = \"?([\w.]+)\"?;", PROJECT.read_text()))
    assert versions == {"1"}  # the driver takes the first


def test_documents_are_open_to_finder_and_to_the_files_app(objects: Objects) -> None:
    for own in settings(objects, "PBXNativeTarget"):
        assert own["GENERATE_INFOPLIST_FILE"] == "YES"
        keys = plistlib.loads((HARNESS / own["INFOPLIST_FILE"]).read_bytes())
        assert keys == {"UIFileSharingEnabled": True, "LSSupportsOpeningDocumentsInPlace": True}


def test_the_readme_has_every_argument_and_stage() -> None:
    readme = (HARNESS / "README.md").read_text()
    core = "".join(path.read_text() for path in (HARNESS / "Core").rglob("*.swift"))
    assert set(re.findall(r"^\| `(--[\w-]+)` \|", readme, re.MULTILINE)) == set(re.findall(r'"(--\w[\w-]*)"', core))
    [stages] = re.findall(r"with the stages\s((?:`\w+`(?:, | and |,\s)?)+)", readme)
    reported = re.findall(r'report\("(\w+)"', core)
    assert set(re.findall(r"`(\w+)`", stages)) >= set(reported) >= {"check", "publish"}
    kinds = re.findall(r'^    case \w+ = "(\w+Error)"', core, re.MULTILINE)
    assert sorted(kinds) == sorted(re.findall(r"^\| `(\w+Error)` \|", readme, re.MULTILINE))
    assert len(kinds) == 7
