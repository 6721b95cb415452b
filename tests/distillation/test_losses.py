"""Each loss against a plain loop over its equation, written from the paper and sharing no code with the package."""

import math

import pytest
import torch

from rdd_edge.distillation.losses.functional import cfd_loss, ii_p2p_loss, is_p2p_loss, m_p2p_loss, pd_loss
from rdd_edge.distillation.losses.pairwise_kl import mean_pair_kl


def maps(*shape: int, seed: int) -> torch.Tensor:
    """Like a feature map after ReLU: not negative, some pixels small."""
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draws, dtype=torch.float64).clamp(min=0) + 0.01


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(v - top) for v in row]
    return [p / sum(powers) for p in powers]


def kl(q: list[float], p: list[float]) -> float:
    """Eq. 5: KL(q ‖ p)."""
    return sum(a * math.log(a / b) for a, b in zip(q, p, strict=True))


def pixels(feature_map: torch.Tensor) -> list[list[float]]:
    """F (A, C), each row of length 1."""
    rows = feature_map.flatten(1).T.tolist()
    return [[v / math.sqrt(sum(w * w for w in row)) for v in row] for row in rows]


def dots(rows: list[list[float]], others: list[list[float]], tau: float) -> list[list[float]]:
    return [[sum(a * b for a, b in zip(x, y, strict=True)) / tau for y in others] for x in rows]


def row_kl(teacher: list[list[float]], student: list[list[float]]) -> float:
    """Eq. 6's mean over rows."""
    return sum(kl(softmax(t), softmax(s)) for t, s in zip(teacher, student, strict=True)) / len(teacher)


STUDENT, TEACHER = maps(3, 5, 2, 3, seed=1), maps(3, 5, 2, 3, seed=2)


def test_pd_is_equation_2():
    s, t, weight = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3), torch.tensor([1.0, 2.0, 5.0, 1.0])
    expected = 0.0
    for n in range(4):
        differences = [(a - b) ** 2 for a, b in zip(s[n].flatten().tolist(), t[n].flatten().tolist(), strict=True)]
        expected += weight[n].item() * sum(differences) / len(differences) / 4
    torch.testing.assert_close(pd_loss(s, t, weight), torch.tensor(expected))


def test_cfd_is_equation_4_with_only_the_teacher_softened():
    tau, expected = 0.9, 0.0
    for n in range(3):
        t = [sum(channel) / 6 / tau for channel in TEACHER[n].flatten(1).tolist()]
        s = [sum(channel) / 6 for channel in STUDENT[n].flatten(1).tolist()]
        expected += kl(softmax(t), softmax(s)) / 3
    torch.testing.assert_close(cfd_loss(STUDENT, TEACHER, tau).item(), expected)


def test_ii_p2p_is_equation_6():
    tau = 0.7
    each = [
        row_kl(dots(pixels(t), pixels(t), tau), dots(pixels(s), pixels(s), tau))
        for s, t in zip(STUDENT, TEACHER, strict=True)
    ]
    torch.testing.assert_close(ii_p2p_loss(STUDENT, TEACHER, tau).item(), sum(each) / 3)


def loop_is_p2p(student: torch.Tensor, teacher: torch.Tensor, tau: float) -> float:
    """Eq. 7: all ordered pairs (i, j), each with its own softmax over the pixels of image j."""
    n, total = len(student), 0.0
    s, t = [pixels(m) for m in student], [pixels(m) for m in teacher]
    for i in range(n):
        for j in range(n):
            total += row_kl(dots(t[i], t[j], tau), dots(s[i], s[j], tau))
    return total / n**2


def test_is_p2p_is_equation_7():
    torch.testing.assert_close(is_p2p_loss(STUDENT, TEACHER, 0.8).item(), loop_is_p2p(STUDENT, TEACHER, 0.8))


def test_m_p2p_is_equation_9():
    contrast = torch.nn.functional.normalize(maps(7, 5, seed=3), dim=1)
    e, tau = contrast.tolist(), 0.1
    each = [row_kl(dots(pixels(t), e, tau), dots(pixels(s), e, tau)) for s, t in zip(STUDENT, TEACHER, strict=True)]
    torch.testing.assert_close(m_p2p_loss(STUDENT, TEACHER, contrast, tau).item(), sum(each) / 3)


def plain_is_p2p(student: torch.Tensor, teacher: torch.Tensor, tau: float) -> torch.Tensor:
    """Eq. 7 holding all pairs at once, with autograd's own gradient."""
    s = torch.nn.functional.normalize(student.flatten(2).transpose(1, 2), dim=-1)
    t = torch.nn.functional.normalize(teacher.flatten(2).transpose(1, 2), dim=-1)
    log_q = torch.log_softmax(torch.einsum("iac,jbc->ijab", s, s) / tau, dim=-1)
    log_p = torch.log_softmax(torch.einsum("iac,jbc->ijab", t, t) / tau, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


def test_is_p2p_in_blocks_has_the_plain_forms_gradient():
    student, teacher = maps(6, 4, 3, 3, seed=4).requires_grad_(), maps(6, 4, 3, 3, seed=5)
    (expected,) = torch.autograd.grad(plain_is_p2p(student, teacher, 0.5), student)
    (found,) = torch.autograd.grad(is_p2p_loss(student, teacher, 0.5), student)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("block", [1, 6 * 9 * 9 * 2, 1 << 22])
def test_the_block_size_changes_nothing(block):
    student, teacher = maps(6, 4, 3, 3, seed=6).requires_grad_(), maps(6, 4, 3, 3, seed=7)
    value = mean_pair_kl(student, teacher, 1.0, block)
    (gradient,) = torch.autograd.grad(value, student)
    whole = mean_pair_kl(student, teacher, 1.0, 1 << 30)
    torch.testing.assert_close(value, whole)
    torch.testing.assert_close(gradient, torch.autograd.grad(whole, student)[0])


LOSSES = {
    "pd": lambda s, t: pd_loss(s, t, torch.ones(len(s))),
    "cfd": lambda s, t: cfd_loss(s, t, 0.9),
    "ii_p2p": lambda s, t: ii_p2p_loss(s, t, 1.0),
    "is_p2p": lambda s, t: is_p2p_loss(s, t, 1.0),
    "m_p2p": lambda s, t: m_p2p_loss(s, t, torch.eye(5, dtype=s.dtype)[:3], 0.1),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_teacher_never_gets_a_gradient_and_the_student_does(name):
    student, teacher = STUDENT.float().clone().requires_grad_(), TEACHER.float().clone().requires_grad_()
    LOSSES[name](student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_that_equals_its_teacher_has_no_loss(name):
    tau_one = {"cfd": lambda s, t: cfd_loss(s, t, 1.0)}
    value = {**LOSSES, **tau_one}[name](STUDENT, STUDENT.clone())
    torch.testing.assert_close(value, torch.zeros_like(value), rtol=0, atol=1e-7)


def test_the_shares_of_the_processes_add_up():
    student, teacher = maps(7, 4, 3, 3, seed=8).requires_grad_(), maps(7, 4, 3, 3, seed=9)
    parts = [mean_pair_kl(student, teacher, 0.5, 2 * 7 * 81, (rank, 3)) for rank in range(3)]
    whole = plain_is_p2p(student, teacher, 0.5)
    assert all(part > 0 for part in parts)
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(torch.autograd.grad(sum(parts), student), torch.autograd.grad(whole, student))


def test_the_maps_order_in_memory_and_their_length_do_not_matter():
    student, teacher = STUDENT.clone(), TEACHER.clone()
    rows = student.to(memory_format=torch.channels_last)
    torch.testing.assert_close(is_p2p_loss(rows, 3 * teacher, 0.8), is_p2p_loss(student, teacher, 0.8))
    assert torch.equal(rows, STUDENT)  # channels-last rows are the map itself, and it must not be written to


def test_half_precision_maps_are_compared_in_float32():
    half_s, half_t = STUDENT.bfloat16(), TEACHER.bfloat16()
    assert is_p2p_loss(half_s, half_t, 1.0).dtype == torch.float32
    torch.testing.assert_close(is_p2p_loss(half_s, half_t, 1.0), is_p2p_loss(half_s.float(), half_t.float(), 1.0))
