"""Hugging Face Hub ids as checkpoints: from a cache in the Hub's layout, from a local Hub, and without either."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import diffusers
import pytest
from commands import run
from huggingface_hub import constants
from networks import small_unet

from rdd_edge.diffusion import hub
from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.diffusion.external_teacher import read_foreign
from rdd_edge.diffusion.sampling import sample_images
from rdd_edge.errors import CorruptError, MissingError
from rdd_edge.exporting.pipeline import export_bundles

REVISION = "a" * 40


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hub, in offline mode."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def save_model(path: Path, layout: str = "flat") -> Path:
    """An ε-predicting model as on the Hub: all in one folder, or a pipeline of unet/ and scheduler/."""
    unet, scheduler = small_unet(seed=3), diffusers.DDPMScheduler(beta_schedule="linear")
    if layout == "pipeline":
        diffusers.DDPMPipeline(unet, scheduler).save_pretrained(path)
    else:
        unet.save_pretrained(path)
        scheduler.save_pretrained(path)
        (path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    return path


def add_to_cache(cache: Path, repo_id: str, model: Path) -> Path:
    """Lay a model out as huggingface_hub does: blobs, links to them in snapshots/, and the branch in refs/."""
    root = cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = root / "snapshots" / REVISION
    (root / "refs").mkdir(parents=True)
    (root / "blobs").mkdir()
    (root / "refs" / "main").write_text(REVISION)
    for file in (path for path in model.rglob("*") if path.is_file()):
        blob = root / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        link = snapshot / file.relative_to(model)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot


@pytest.mark.parametrize("layout", ["flat", "pipeline"])
def test_a_cached_model_is_sampled_and_serves_as_a_teacher(tmp_path: Path, cache: Path, layout: str) -> None:
    snapshot = add_to_cache(cache, "someone/ddpm-tiny", save_model(tmp_path / "model", layout))
    checkpoint = read_checkpoint(Path("someone/ddpm-tiny"))
    assert checkpoint.folder == (snapshot / "unet" if layout == "pipeline" else snapshot)
    assert checkpoint.name == "someone/ddpm-tiny"
    assert sample_images(checkpoint, 2, 2, 0).shape == (2, 8, 8, 1)
    assert read_foreign(Path("someone/ddpm-tiny")).schedule.prediction == "epsilon"


def test_commands_take_the_id(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_to_cache(cache, "someone/ddpm-tiny", save_model(tmp_path / "model", "pipeline"))
    assert run(monkeypatch, capsys, "sample", "someone/ddpm-tiny", "--steps", 2, "--n", 4, "--out", "grid.png")[0] == 0
    for command in (
        ("export", "someone/ddpm-tiny", "--target", "jetson", "--out", "bundles"),
        ("bench", "someone/ddpm-tiny", "--device", "server", "--out", "bench"),
    ):
        code, out, err = run(monkeypatch, capsys, *command)
        assert code == 2
        assert "distil it with rdd-edge distill --teacher" in (err or out)
    assert not Path("bundles").exists() and not Path("bench").exists()


def test_a_folder_comes_first(tmp_path: Path, cache: Path) -> None:
    add_to_cache(cache, "someone/ddpm-tiny", save_model(tmp_path / "model"))
    save_model(tmp_path / "someone" / "ddpm-tiny")
    assert read_checkpoint(Path("someone/ddpm-tiny")).folder == Path("someone/ddpm-tiny")


def test_offline_and_absent(cache: Path) -> None:
    with pytest.raises(MissingError) as raised:
        read_checkpoint(Path("someone/absent"))
    assert str(raised.value) == (
        f"there is no checkpoint someone/absent: it is not in the Hugging Face cache {cache}, and HF_HUB_OFFLINE "
        "forbids downloading it: unset HF_HUB_OFFLINE, or give a folder"
    )


def test_the_variables_of_huggingface_hub_hold(tmp_path: Path) -> None:
    """In a process of its own, since they are read on import."""
    snapshot = add_to_cache(tmp_path / "home" / "hub", "someone/ddpm-tiny", save_model(tmp_path / "model"))
    code = """
from pathlib import Path
from rdd_edge.diffusion.checkpoint import read_checkpoint
print(read_checkpoint(Path("someone/ddpm-tiny")).folder)
read_checkpoint(Path("someone/absent"))
"""
    environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == str(snapshot)
    assert f"not in the Hugging Face cache {tmp_path / 'home' / 'hub'}, and HF_HUB_OFFLINE" in done.stderr


def test_a_misspelt_folder_is_not_looked_for_on_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_download", lambda *_: pytest.fail("the network was asked"))
    (tmp_path / "runs").mkdir()
    with pytest.raises(MissingError, match="the folder runs has no digts, and the Hugging Face cache"):
        read_checkpoint(Path("runs/digts"))


class Hub(BaseHTTPRequestHandler):
    """The four answers of the Hub that a download needs, for `model`; every other repository is unknown."""

    model: Path
    downloaded: list[str]

    def do_GET(self) -> None:
        files = [path for path in self.model.rglob("*") if path.is_file()]
        names = [path.relative_to(self.model).as_posix() for path in files]
        repository = "/api/models/someone/ddpm-tiny"
        if self.path.split("?")[0] in (repository, f"{repository}/revision/main", f"{repository}/revision/{REVISION}"):
            self.answer(json.dumps({"id": "someone/ddpm-tiny", "sha": REVISION, "siblings": [
                {"rfilename": name} for name in names
            ]}).encode())  # fmt: skip
        elif self.path.startswith(f"{repository}/tree/"):
            self.answer(json.dumps([
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": "0" * 40}
                for name, path in zip(names, files, strict=True)
            ]).encode())  # fmt: skip
        elif "/resolve/" in self.path:
            name = self.path.split("?")[0].split(f"/resolve/{REVISION}/")[1]
            if self.command == "GET":
                self.downloaded.append(name)
            self.answer((self.model / name).read_bytes())
        else:
            self.answer(b"{}", 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET

    def answer(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        etag = hashlib.sha256(body).hexdigest()
        default = {"Content-Type": "application/json", "ETag": f'"{etag}"', "X-Repo-Commit": REVISION}
        for key, value in {**default, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    handler = type("LocalHub", (Hub,), {"model": tmp_path / "model", "downloaded": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    online(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}")
    yield handler
    server.shutdown()
    server.server_close()


def online(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.mark.parametrize("layout", ["flat", "pipeline"])
def test_only_what_is_needed_is_downloaded_and_only_once(local_hub: type[Hub], layout: str) -> None:
    save_model(local_hub.model, layout)
    (local_hub.model / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    first = read_checkpoint(Path("someone/ddpm-tiny"))
    assert not [name for name in local_hub.downloaded if name.endswith(".bin")]
    count = len(local_hub.downloaded)
    assert count in (3, 4)
    assert read_checkpoint(Path("someone/ddpm-tiny")) == first
    assert len(local_hub.downloaded) == count
    first.load()


def test_another_kind_of_model_is_refused_before_its_weights_are_downloaded(local_hub: type[Hub]) -> None:
    config = save_model(local_hub.model) / "config.json"
    config.write_text(config.read_text().replace("UNet2DModel", "UNet2DConditionModel"))
    with pytest.raises(CorruptError, match="someone/ddpm-tiny on the Hugging Face Hub is neither a UNet2DModel nor"):
        read_checkpoint(Path("someone/ddpm-tiny"))
    assert not [name for name in local_hub.downloaded if name.endswith(".safetensors")]


def test_a_model_of_pickles_alone(local_hub: type[Hub]) -> None:
    (save_model(local_hub.model) / hub.WEIGHTS).unlink()
    with pytest.raises(MissingError, match=f"on the Hugging Face Hub has no {hub.WEIGHTS}"):
        read_checkpoint(Path("someone/ddpm-tiny"))


def test_a_repository_that_does_not_exist(local_hub: type[Hub]) -> None:
    with pytest.raises(MissingError, match=r"there is no folder someone/absent, .* \(there is no such model, or it is"):
        read_checkpoint(Path("someone/absent"))


def test_a_hub_that_refuses_and_one_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "SECONDS", 1)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        online(monkeypatch, f"http://127.0.0.1:{listening.getsockname()[1]}")
        for reason in ("refused", "timed out"):
            began = time.monotonic()
            with pytest.raises(
                MissingError, match=f"cannot be downloaded from the Hugging Face Hub .*{reason}"
            ) as raised:
                read_checkpoint(Path("someone/absent"))
            assert len(str(raised.value).splitlines()) == 1
            assert time.monotonic() - began < 10
            listening.listen()


def test_a_model_of_several_sampling_steps_is_not_exported(tmp_path: Path) -> None:
    from rdd_edge.diffusion.saving import save_checkpoint
    from rdd_edge.errors import UsageError

    for steps, said in ((None, "teacher of any number of"), (8, "teacher of 8")):
        save_checkpoint(tmp_path / "t", small_unet(), role="teacher", method="ddpm", sampling_steps=steps)
        with pytest.raises(UsageError, match=f"is a {said} sampling steps: give a one-step student"):
            export_bundles(tmp_path / "t", ("jetson",), "fp32", tmp_path / "out")
