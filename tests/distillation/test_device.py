"""Every stage's unlogged step on a device that is not the host, without such a device.

PyTorch's meta device computes shapes only. As on CUDA an operation on tensors of both devices fails; a read of a value,
for which CUDA would wait, fails as well.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from processes import stage
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rdd_edge.distillation.compute_context import ComputeContext
from rdd_edge.distillation.stages.base import DiffusionStage, Stage

NAMES = ("extractor", "teacher", "rdd", "conversion", "sfddm", "refined")  # rdd has the terms of pd and rcfd
DEVICE = torch.device("meta")
MAKES_FROM_VALUES = (torch.tensor, torch.as_tensor, Tensor.new_tensor)


pytestmark = pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")


@dataclass(frozen=True)
class OtherDevice(ComputeContext):
    """As on CUDA, `upload` copies without waiting; pinned memory is what the meta device lacks."""

    def upload(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=True)


class NoWaiting(TorchDispatchMode):
    """Refuses operations on tensors of two devices and copies that wait; the meta device itself refuses reads."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        devices = {tensor.device.type for tensor in tensors if tensor.dim()}  # a host scalar is an argument of a kernel
        made = (kwargs or {}).get("device")
        copies = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if copies and devices | {made.type if made else DEVICE.type} == {"cpu", DEVICE.type}:
            waits = not ((kwargs or {}).get("non_blocking") or args[2:3] == (True,))
            assert not waits, f"{func} waits for the device"
        else:
            assert len(devices) < 2, f"{func} takes tensors of {devices}"
        return func(*args, **(kwargs or {}))


class NoValues(TorchFunctionMode):
    """Refuses tensors made on the device of values of the host, which CUDA copies there and waits."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func in MAKES_FROM_VALUES:
            assert result.device != DEVICE, f"{func.__name__} copies from the host, and waits"
        return result


@pytest.fixture(autouse=True)
def fused_adam(monkeypatch):
    """Let Adam be fused on the meta device: its kernel gives shapes as others do."""
    module = sys.modules["torch.optim.optimizer"]  # torch.optim hides it
    monkeypatch.setattr(module, "_get_fused_kernels_supported_devices", lambda: ["meta", "cpu"])


def take_steps(one: Stage, first: int) -> None:
    with NoValues(), NoWaiting():
        for index in range(first, first + 2):
            assert one.step(index, log=False) is None


@pytest.mark.parametrize("name", NAMES)
def test_a_step_stays_on_its_device_and_does_not_wait(name):
    host, device = (stage(name, context, 6) for context in (ComputeContext(torch.device("cpu")), OtherDevice(DEVICE)))
    take_steps(device, 0)
    for index in range(3):  # until the pixel queue is full
        host.step(index, log=False)
    device.load({key: value.clone() for key, value in host.state().items()})
    take_steps(device, 3)


class Overlooked(BaseException):
    """The step went on after a fault."""


FAULTS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda loss: loss.item(),
    "bool": lambda loss: bool(loss > 0),
    "cpu": lambda loss: loss.cpu(),
    "tolist": lambda loss: loss.tolist(),
    "a value": lambda loss: loss * loss.new_tensor([2.0]),
    "another device": lambda loss: loss + torch.ones(3),
    "an index": lambda loss: loss.expand(2)[torch.tensor([1])],
    "a copy": lambda loss: loss + torch.ones(3).to(loss.device),
    "a copy in place": lambda loss: torch.empty(3, device=loss.device).copy_(torch.ones(3)),
}


@pytest.fixture(scope="module")
def teacher() -> Stage:
    return stage("teacher", OtherDevice(DEVICE), 6)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_step_is_found(fault, teacher, monkeypatch):
    def faulty(self: DiffusionStage, loss: Tensor, index: int) -> Tensor:
        FAULTS[fault](loss)
        raise Overlooked

    monkeypatch.setattr(DiffusionStage, "update", faulty)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        take_steps(teacher, 0)
