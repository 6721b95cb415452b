"""The stage that trains a classifier by SGD with augmentation, and keeps the epoch that is best on held-out images."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ...distributed import current
from ...metrics.classifiers import save_classifier
from ...metrics.networks import Classifier, ExtractorConfig
from ..augmentation import augment
from ..batches import ImageBatches
from ..collectives import all_sum, sum_gradients, synchronize_batch_norm
from ..compute_context import generator
from ..config import ClassifierTraining
from ..losses.functional import at_least_float32
from ..state import optimizer_tensors, prefixed, restore_optimizer, select
from .base import Values


class ClassifierStage:
    """Trains one classifier with cross-entropy."""

    def __init__(
        self, name: str, config: ExtractorConfig, training: ClassifierTraining, data: ImageBatches, seed: int
    ) -> None:
        self.name, self.training, self.data, self.seed = name, training, data, seed
        torch.manual_seed(int(generator(seed, name, -1).initial_seed()))
        self.model = data.context.prepare(Classifier(config))
        synchronize_batch_norm(self.model)
        self.best = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.best_accuracy = torch.tensor(-1.0)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), training.rate, momentum=0.9, weight_decay=training.decay, nesterov=True
        )
        order = torch.randperm(data.count, generator=generator(seed, f"{name}/split", 0))
        count = max(1, round(data.count * training.held_out))
        self.held_out, self.train = order[:count], order[count:]
        self.epoch_steps = max(1, len(self.train) // training.batch)
        self.steps = self.epoch_steps * training.epochs

    def step(self, index: int, log: bool) -> Values | None:
        epoch, position = divmod(index, self.epoch_steps)
        order = self.train[torch.randperm(len(self.train), generator=generator(self.seed, f"{self.name}/epoch", epoch))]
        rows = order[position * self.training.batch : (position + 1) * self.training.batch]
        context, local = self.data.context, self.data.local(rows)
        x = augment(self.data.images(local), self.training, generator(self.seed, self.name, index), context, len(rows))
        for group in self.optimizer.param_groups:
            group["lr"] = self.training.rate * 0.5 * (1 + math.cos(math.pi * index / self.steps))
        self.model.train()
        with context.autocast():
            logits = self.model(x)
        loss = F.cross_entropy(at_least_float32(logits), self.data.labels(local)) * current().fraction(len(rows))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        sum_gradients(self.model.parameters())
        self.optimizer.step()
        if position == self.epoch_steps - 1:
            self._keep_best()
        return {"loss": all_sum(loss.detach()), "held_out_accuracy": self.best_accuracy} if log else None

    @torch.no_grad()
    def _keep_best(self) -> None:
        self.model.eval()
        # Not the compiled network: compiling for these batch sizes would take longer than it saves.
        correct = [
            (self.model.forward(self.data.images(rows)).argmax(1) == self.data.labels(rows)).float()
            for rows in torch.split(self.data.local(self.held_out), 512)
        ]
        accuracy = (all_sum(torch.cat(correct).sum()) / len(self.held_out)).cpu()
        if accuracy >= self.best_accuracy:  # on a tie the later one, which has trained longer
            self.best_accuracy = accuracy
            self.best = {key: value.clone() for key, value in self.model.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        return {
            **prefixed("model", self.model.state_dict()),
            **prefixed("best", self.best),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
            "best_accuracy": self.best_accuracy,
        }

    def load(self, state: dict[str, Tensor]) -> None:
        self.model.load_state_dict(select("model", state))
        self.best = {key: value.to(self.data.device) for key, value in select("best", state).items()}
        restore_optimizer(self.optimizer, select("optimizer", state))
        self.best_accuracy = state["best_accuracy"]

    def finish(self, path: Path) -> None:
        self.model.load_state_dict(self.best)
        save_classifier(path, self.model.cpu())
