"""The real images and the extractor of an evaluation: by default those of the run, or the packed judge."""

from __future__ import annotations

from pathlib import Path

from ..data import ImageSet, load_images
from ..errors import CorruptError, UsageError
from ..files import sha256_of
from ..metrics.extractors import Extractor, load_extractor
from ..metrics.inception import load_inception
from ..reading.documents import read_model


def evaluation_sources(
    checkpoint: Path | None, data: str | None, extractor: Path | str | None
) -> tuple[ImageSet, Extractor]:
    """Real images and extractor.

    checkpoint: a training run or a folder in one, whose run.json provides defaults for `data` and `extractor`; or a
    packed model, which has its judge in a folder judge/.
    extractor: folder of an extractor, "inception" or "inception:FILE" for the original network of FID, or
    "resnet20:FILE" for a classifier of CIFAR-10; by default the run's judge, which no loss has seen, or else its
    extractor. It runs on CUDA where available.
    Raises UsageError where there is no default, or for an extractor of images of another shape.
    """
    from ..distillation.run_folder import RUN_FILE, RunFile

    run = None
    if checkpoint is not None:
        run = next((path for path in (checkpoint, checkpoint.resolve().parent) if (path / RUN_FILE).is_file()), None)
    if run is None:
        if extractor is None and checkpoint is not None and (checkpoint / "judge").is_dir():
            extractor = checkpoint / "judge"
        if data is None or extractor is None:
            needed = "--data" if extractor else "--extractor" if data else "--data and --extractor"
            raise UsageError(f"{checkpoint or 'the reference'} is not part of a training run: give {needed}")
    run_file = read_model(run / RUN_FILE, RunFile) if run is not None else None
    if extractor is None:
        assert run is not None and run_file is not None
        if run_file.preset.refines and not run_file.preset.judge:
            raise UsageError(
                f"{run} has no judge, and its critics learned on its extractor: give --extractor, such as inception"
            )
        extractor = run / ("judge" if run_file.preset.judge else "extractor")
    size = run_file.preset.image_size if run_file else None
    if data is None:
        assert run_file is not None
        data = run_file.data
    if run is not None and run_file is not None and Path(extractor).parent == run:
        _check_recorded(Path(extractor), run_file.classifiers_sha256.get(Path(extractor).name))
    images = load_images(data, size)
    return images, _load(str(extractor), images)


def _check_recorded(extractor: Path, sha256: str | None) -> None:
    """Raise CorruptError where a run's classifier is not the one whose weights its run.json records."""
    from ..metrics.classifiers import WEIGHTS

    if sha256 is not None and sha256_of(extractor / WEIGHTS) != sha256:
        raise CorruptError(f"{extractor} is not the classifier that the run.json beside it records: train it again")


def _load(extractor: str, images: ImageSet) -> Extractor:
    import torch

    from ..metrics.networks import ExtractorConfig
    from ..metrics.resnet20 import FILE, load_resnet20

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name, _, file = extractor.partition(":")
    if name == "inception" and not Path(extractor).is_dir():
        if images.image_shape[0] not in (1, 3):
            raise UsageError(f"FID needs images of 1 or 3 channels and {images.name} has {images.image_shape[0]}")
        return load_inception(Path(file) if file else None, device)
    if name == "resnet20" and not Path(extractor).is_dir():
        if images.image_shape[0] != 3:
            raise UsageError(f"resnet20 needs images of 3 channels and {images.name} has {images.image_shape[0]}")
        return load_resnet20(Path(file or FILE), device)
    loaded = load_extractor(Path(extractor), device)
    shape = read_model(Path(extractor) / "config.json", ExtractorConfig).image_shape
    if shape != images.image_shape:
        raise UsageError(
            f"the extractor {extractor} is for images of {shape} (channels, height, width) and {images.name} has "
            f"{images.image_shape}: choose another --extractor"
        )
    return loaded
