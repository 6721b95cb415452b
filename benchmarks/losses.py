"""Time and extra peak memory of the relation losses, compared with a plain implementation of their equations.

    python benchmarks/losses.py                       # N = 256, A = 64, C = 1920: the plain form takes 8 GiB
    python benchmarks/losses.py --images 64 --losses is_p2p

Both forms run forward and backward in one process on the same maps. Extra peak memory is the rise of the process's own
peak (VmHWM, or the allocator's on CUDA) above the memory held before the call, so all copies, buffers and gradients
count. Ours runs first, so that memory left by the plain form cannot hide it. `--rounds` alternates the forms and prints
the fastest round of each.

Gradients are compared by the norm of their difference relative to the gradient's norm. q - p is a small difference of
nearly equal probabilities, so both forms have about five digits in float32; each is therefore also compared with
float64 (for IS_P2P with our blocks in float64, which tests/distillation/test_losses.py compares with the plain form).
"""

from __future__ import annotations

import argparse
import gc
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rdd_edge.distillation.losses.functional import ii_p2p_loss, is_p2p_loss, m_p2p_loss

GIB = 2**30
Loss = Callable[[Tensor, Tensor], Tensor]


def unit(maps: Tensor) -> Tensor:
    """(N, C, h, w) → (N, A, C)."""
    return F.normalize(maps.flatten(2).transpose(1, 2), dim=-1)


def plain_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """Eq. 5 with PyTorch's kl_div, the mean over rows."""
    rows = student.numel() // student.shape[-1]
    log_q, p = F.log_softmax(student, -1), F.softmax(teacher, -1)
    return F.kl_div(log_q, p, reduction="sum") / rows


def plain_is(student: Tensor, teacher: Tensor) -> Tensor:
    """Eq. 7, all N² pairs at once: (N, A, N, A), the softmax over the last."""
    n, a = len(student), student[0, 0].numel()
    s, t = unit(student).flatten(0, 1), unit(teacher).flatten(0, 1)
    return plain_kl((t @ t.T).view(n, a, n, a), (s @ s.T).view(n, a, n, a))


def plain_ii(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = unit(student), unit(teacher)
    return plain_kl(t @ t.transpose(1, 2), s @ s.transpose(1, 2))


def plain_m(contrast: Tensor) -> Loss:
    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        e = contrast.T.to(student.dtype)
        return plain_kl(unit(teacher) @ e / 0.1, unit(student) @ e / 0.1)

    return loss


def reset_peak(device: str) -> int:
    """Reset the peak; returns the bytes held now."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM to the current size
    return peak(device)


def peak(device: str) -> int:
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return int(match[1]) * 1024


def measure(loss: Loss, student: Tensor, teacher: Tensor) -> tuple[float, float, Tensor, Tensor]:
    """Seconds, extra peak bytes, value and gradient of one forward and backward pass."""
    device = student.device.type
    before = reset_peak(device)
    start = time.perf_counter()
    value = loss(student, teacher)
    (gradient,) = torch.autograd.grad(value, student)
    extra = peak(device) - before  # synchronises
    return time.perf_counter() - start, extra, value.detach(), gradient


def distance(a: Tensor, b: Tensor) -> float:
    """‖a - b‖/‖b‖, row by row, to avoid a float64 copy of the whole."""
    apart = sum(float((x.double() - y.double()).square().sum()) for x, y in zip(a, b, strict=True))
    return (apart / sum(float(y.double().square().sum()) for y in b)) ** 0.5


def float64_gradient(loss: Loss, student: Tensor, teacher: Tensor) -> Tensor:
    precise = student.detach().double().requires_grad_()
    return torch.autograd.grad(loss(precise, teacher.double()), precise)[0]


def compare(name: str, ours: Loss, plain: Loss, student: Tensor, teacher: Tensor, rounds: int) -> None:
    few = student[:2].detach().requires_grad_(), teacher[:2]
    measure(ours, *few), measure(plain, *few)  # the first call loads libraries
    our_results, plain_results = [], []
    for _ in range(rounds):
        *result, gradient = measure(ours, student, teacher)
        *plain_result, plain_gradient = measure(plain, student, teacher)
        our_results.append(result)
        plain_results.append(plain_result)
        apart = distance(gradient, plain_gradient)
        if len(our_results) < rounds:
            del gradient, plain_gradient
    exact = float64_gradient(ours if name == "is_p2p" else plain, student, teacher)
    errors = distance(gradient, exact), distance(plain_gradient, exact)
    del gradient, plain_gradient, exact
    seconds, plain_seconds = min(r[0] for r in our_results), min(r[0] for r in plain_results)
    memory, plain_memory = our_results[0][1], plain_results[0][1]
    print(f"{name}: value {our_results[0][2]:.6e}, plain {plain_results[0][2]:.6e}")
    print(f"  gradient      {errors[0]:8.1e} off  plain {errors[1]:8.1e} off float64's; {apart:.1e} from each other")
    print(f"  time          {seconds:8.2f} s    plain {plain_seconds:8.2f} s    ratio {seconds / plain_seconds:.2f}")
    print(
        f"  extra memory  {memory / GIB:8.3f} GiB  plain {plain_memory / GIB:8.3f} GiB  "
        f"ratio {memory / max(plain_memory, 1):.3f} (1/{plain_memory / max(memory, 1):.1f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="N")
    parser.add_argument("--side", type=int, default=8, help="side of the feature map; A is its square")
    parser.add_argument("--channels", type=int, default=1920, help="C")
    parser.add_argument("--contrast", type=int, default=2048, help="V")
    parser.add_argument("--losses", default="is_p2p,ii_p2p,m_p2p")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = torch.Generator().manual_seed(0)
    shape = arguments.images, arguments.channels, arguments.side, arguments.side
    student = torch.randn(shape, generator=rng).relu_().to(arguments.device).requires_grad_()
    teacher = torch.randn(shape, generator=rng).relu_().to(arguments.device)
    contrast = F.normalize(torch.rand(arguments.contrast, arguments.channels, generator=rng)).to(arguments.device)
    forms: dict[str, tuple[Loss, Loss]] = {
        "is_p2p": (lambda s, t: is_p2p_loss(s, t, 1.0), plain_is),
        "ii_p2p": (lambda s, t: ii_p2p_loss(s, t, 1.0), plain_ii),
        "m_p2p": (lambda s, t: m_p2p_loss(s, t, contrast, 0.1), plain_m(contrast)),
    }
    print(f"N {arguments.images}, A {arguments.side**2}, C {arguments.channels}, float32, {arguments.device}")
    for name in arguments.losses.split(","):
        compare(name, *forms[name], student, teacher, arguments.rounds)


if __name__ == "__main__":
    main()
