"""Where an evaluation's real images and extractor come from when the user does not say: the run's own run.json."""

from __future__ import annotations

from pathlib import Path

from ..data import ImageSet, load_images
from ..errors import UsageError
from ..files import read_model
from ..metrics.extractors import Extractor, load_extractor
from ..metrics.inception import load_inception

__all__ = ["evaluation_sources"]


def evaluation_sources(
    checkpoint: Path | None, data: str | None, extractor: Path | str | None
) -> tuple[ImageSet, Extractor]:
    """Real images and extractor.

    checkpoint: a run, or a folder in one; its run.json gives what `data` and `extractor` leave out. The extractor is
    then the run's judge, which no loss has seen, where it has one. "inception" or "inception:FILE" is the original
    network of FID, "resnet20:FILE" an independent classifier of CIFAR-10. It computes on CUDA where there is one.
    Raises UsageError where nothing says which, or for an extractor of other images.
    """
    from ..distillation.run import RUN_FILE, RunFile

    run = None
    if checkpoint is not None:
        run = next((path for path in (checkpoint, checkpoint.resolve().parent) if (path / RUN_FILE).is_file()), None)
    if run is None and (data is None or extractor is None):
        raise UsageError(f"{checkpoint or 'the reference'} lies in no training run: give --data and --extractor")
    told = read_model(run / RUN_FILE, RunFile) if run is not None else None
    if extractor is None:
        assert run is not None and told is not None
        extractor = run / ("judge" if told.preset.judge else "extractor")
    size = told.preset.image_size if told else None
    if data is None:
        assert told is not None
        data = told.data
    images = load_images(data, size)
    return images, _load(str(extractor), images)


def _load(extractor: str, images: ImageSet) -> Extractor:
    """On CUDA where there is one."""
    import torch

    from ..metrics.classifiers import ExtractorConfig
    from ..metrics.resnet20 import FILE, load_resnet20

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name, _, file = extractor.partition(":")
    if name == "inception" and not Path(extractor).is_dir():
        if images.image_shape[0] not in (1, 3):
            raise UsageError(f"FID is of images of 1 or 3 channels, and {images.name} has {images.image_shape[0]}")
        return load_inception(Path(file) if file else None, device)
    if name == "resnet20" and not Path(extractor).is_dir():
        if images.image_shape[0] != 3:
            raise UsageError(f"resnet20 is for images of 3 channels and {images.name} has {images.image_shape[0]}")
        return load_resnet20(Path(file or FILE), device)
    loaded = load_extractor(Path(extractor), device)
    shape = read_model(Path(extractor) / "config.json", ExtractorConfig).image_shape
    if shape != images.image_shape:
        raise UsageError(
            f"the extractor {extractor} is for images of {shape} (channels, height, width) and {images.name} has "
            f"{images.image_shape}: give another --extractor"
        )
    return loaded
