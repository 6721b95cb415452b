"""Classes for images without labels: how far each is rotated (Gidaris et al. 2018, RotNet).

A classifier that tells the rotations apart has to recognise what the images show, and its features serve the losses and
the evaluation in place of those of a classifier of labels.
"""

from __future__ import annotations

from torch import Tensor

from ..data import ImageSet
from .batches import ImageBatches
from .config import ClassifierTraining

FEWEST_CLASSES = 2


def rotations(image_shape: tuple[int, int, int]) -> int:
    """The number of rotations that keep an image (C, H, W) in shape: by 0, 90, 180 and 270 degrees, or by 0 and 180."""
    return 4 if image_shape[1] == image_shape[2] else 2


def classifier_classes(data: ImageSet) -> int:
    """Classes of the extractor and the judge: those of the data, or rotations where it has fewer than two."""
    labelled = data.labels is not None and data.classes is not None and len(data.classes) >= FEWEST_CLASSES
    return len(data.classes or ()) if labelled else rotations(data.image_shape)


class RotatedBatches(ImageBatches):
    """Each image in each of its rotations: row i is image i // r rotated by the class i mod r, of r classes."""

    def __init__(self, batches: ImageBatches, classes: int) -> None:
        self.__dict__.update(batches.__dict__)  # shares the images, which may lie on the device
        self.rotations, self.count = classes, batches.count * classes

    def images(self, index: Tensor) -> Tensor:
        x, quarters = super().images(index // self.rotations), (index % self.rotations) * (4 // self.rotations)
        for quarter in sorted(set(quarters.tolist())):
            rows = self.context.upload((quarters == quarter).nonzero()[:, 0])
            x[rows] = x[rows].rot90(quarter, (2, 3))
        return x

    def labels(self, index: Tensor) -> Tensor:
        return self.context.upload(index % self.rotations)


def without_mirrors(training: ClassifierTraining) -> ClassifierTraining:
    """The training without what would change an image's rotation: a mirrored quarter turn is that to the other side."""
    return training.model_copy(update={"flip": False, "auto_augment": False})
