"""Who runs which operator of a .pte: what the saved file says, and what ExecuTorch's tracer measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdd_edge.targets.android import target
from rdd_edge.targets.android.outside import delegates


@pytest.fixture(scope="module")
def naive(make_case: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A network lowered without any rewrite: XNNPACK takes no group normalisation."""
    case = make_case(())
    return case, target.lower(case.program, case.spec("fp32"), tmp_path_factory.mktemp("naive"))


def test_operators_outside_the_backend_are_named_with_their_number(naive: Any) -> None:
    case, artifact = naive
    norms = sum(
        node.target.__name__ == "group_norm.default" for node in case.program.graph.nodes if callable(node.target)
    )
    assert norms > 0 and artifact.outside["aten::native_group_norm.out"] == norms


def test_with_its_rewrites_nothing_is_left_outside(make_case: Callable[..., Any], tmp_path: Path) -> None:
    case = make_case(target.precision("fp32").rewrites)
    assert target.lower(case.program, case.spec("fp32"), tmp_path).outside == {}


def test_a_profile_tells_kernels_of_the_backend_from_portable_ones(naive: Any) -> None:
    case, artifact = naive
    runner = target.runner(artifact.path, case.spec("fp32"), 1)
    found = runner.profile(case.z[:1], None, 2)
    by_backend = {backend: [o for o in found if o.backend == backend] for backend in ("XnnpackBackend", "portable")}
    assert sum(map(len, by_backend.values())) == len(found)
    assert any("Convolution" in operator.kind for operator in by_backend["XnnpackBackend"])
    norms = [operator for operator in by_backend["portable"] if operator.kind == "native_group_norm.out"]
    assert len(norms) == artifact.outside["aten::native_group_norm.out"]
    assert len({operator.name for operator in found}) == len(found)
    assert sum(operator.milliseconds for operator in found) > 0


@pytest.mark.parametrize("changes", [{}, {"num_class_embeds": 10, "seed": 1}], ids=["plain", "classes"])
def test_vulkan_takes_the_whole_graph_and_is_not_run_here(
    make_case: Callable[..., Any], tmp_path: Path, changes: dict[str, Any]
) -> None:
    case, sizes = make_case(target.precision("vulkan-fp32").rewrites, **changes), {}
    for precision in ("vulkan-fp32", "vulkan-fp16"):
        artifact = target.lower(case.program, case.spec(precision), tmp_path / precision)
        assert artifact.outside == {}
        assert set(delegates(artifact.path.read_bytes()).values()) == {"VulkanBackend"}
        assert target.runner(artifact.path, case.spec(precision), 1) is None
        assert "no Vulkan" in target.cannot_run(precision)
        sizes[precision] = artifact.path.stat().st_size
    assert sizes["vulkan-fp16"] < 0.6 * sizes["vulkan-fp32"]
