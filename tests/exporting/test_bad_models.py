"""Models and checkpoints that cannot be exported: one sentence that names what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from rdd_edge.bundle import read_bundle
from rdd_edge.diffusion.checkpoint import CARD, read_checkpoint
from rdd_edge.errors import CorruptError, ExportError, UsageError
from rdd_edge.exporting.pipeline import export_bundles


class Spectrum(torch.nn.Module):
    """An operator that no backend takes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.fft.fft2(self.conv(z)).real.clamp(-1, 1)


@pytest.mark.parametrize(("target", "named"), [("android", "fft_c2c"), ("ios", "fft_fft2"), ("jetson", "DFT")])
def test_an_operator_that_a_backend_cannot_take_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_checkpoint: Path, target: str, named: str
) -> None:
    """Through the whole export, the network's graph replaced by one with a Fourier transform."""
    with torch.no_grad():
        program = torch.export.export(Spectrum().eval(), (torch.zeros(1, 1, 8, 8),), strict=False)
    monkeypatch.setattr("rdd_edge.exporting.pipeline.export_program", lambda *_: program)
    with pytest.raises(ExportError, match=named) as raised:
        export_bundles(tiny_checkpoint, (target,), "fp32", tmp_path / "out")
    assert len(str(raised.value).splitlines()) == 1
    assert not list((tmp_path / "out").iterdir())


def test_a_checkpoint_whose_image_size_is_open(tmp_path: Path, tiny_checkpoint: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint, tmp_path / "open")
    (folder / CARD).unlink()  # it has the configuration's hash
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sample_size": None}))
    with pytest.raises(UsageError, match="leaves the size of the images open"):
        _ = read_checkpoint(folder).image_shape


def test_a_bundle_of_another_version_of_the_schema(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (bundle,) = export_bundles(tiny_checkpoint, ("jetson",), "fp32", tmp_path)
    path = bundle.folder / "manifest.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(CorruptError, match="another version of the schema: read it with the rdd-edge that wrote it"):
        read_bundle(bundle.folder)
