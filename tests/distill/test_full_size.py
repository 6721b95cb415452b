"""Every stage of the CIFAR-10 preset at full size, a few steps each, from small parquet files."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import Silent

from rdd_edge.checkpoint import read_checkpoint
from rdd_edge.config import resolve
from rdd_edge.distill.run import distill, stage_names


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cifar10", "cifar10-edge"])
def test_every_stage_runs_at_full_size(tmp_path, monkeypatch, name):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    cells = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    (tmp_path / "data").mkdir()
    table = pyarrow.table({"img": cells, "label": [k % 10 for k in range(20)]})
    parquet.write_table(table, tmp_path / "data" / "train-00000-of-00001.parquet")
    settings = [f"{stage}.{key}={value}" for stage in ("teacher", "pd", "distillation")
                for key, value in (("steps", 2), ("batch", 2))]  # fmt: skip
    settings += ["extractor_training.epochs=1", "extractor_training.batch=4", "first_steps=16"]
    settings += ["memory.capacity=8", "memory.draw=2"]
    preset = resolve(name, data=str(tmp_path / "data"), settings=settings)
    out = tmp_path / "run"
    distill(preset, out, Silent(), device="cpu")
    assert all((out / stage).is_dir() for stage in stage_names(preset))
    assert read_checkpoint(out).image_shape == (3, 32, 32)
    last = (out / "logs" / "student-1.jsonl").read_text().splitlines()[-1]
    assert '"m_p2p": null' not in last
    from rdd_edge.distill.extractor import load_feature_network

    features = load_feature_network(out / "extractor")[1]
    assert features(torch.zeros(1, 3, 32, 32)).shape == (1, 1920, 4, 4)
