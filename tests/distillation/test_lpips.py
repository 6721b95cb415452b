"""PD+LPIPS: the distance beside its equation written out, and beside the lpips package's where that is installed."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tiny import tiny

from rdd_edge.diffusion.checkpoint import read_checkpoint
from rdd_edge.distillation.config import Lpips
from rdd_edge.distillation.losses.lpips import PerceptualDistance, load_lpips
from rdd_edge.distillation.presets import resolve
from rdd_edge.distillation.run import distill
from rdd_edge.errors import CorruptError, DependencyError, MissingError, UsageError

# Of torchvision's `features`: index of a convolution, its channels in and out, its kernel, stride and padding.
ALEX = {0: (3, 64, 11, 4, 2), 3: (64, 192, 5, 1, 2), 6: (192, 384, 3, 1, 1), 8: (384, 256, 3, 1, 1),
        10: (256, 256, 3, 1, 1)}  # fmt: skip
VGG = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256), 14: (256, 256),
       17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512), 26: (512, 512), 28: (512, 512)}  # fmt: skip
VGG_CONVOLUTIONS = {index: (*channels, 3, 1, 1) for index, channels in VGG.items()}
PLANS = {"alex": (ALEX, (2, 5), (3, 2)), "vgg": (VGG_CONVOLUTIONS, (4, 9, 16, 23), (2, 2))}
TAPS = {"alex": (0, 3, 6, 8, 10), "vgg": (2, 7, 14, 21, 28)}  # convolutions whose ReLU is tapped


def backbone(network: str) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    found = {"classifier.6.weight": torch.zeros(2, 2)}  # torchvision's files hold the classifier as well
    for index, (inside, out, kernel, _, _) in PLANS[network][0].items():
        weight = torch.randn(out, inside, kernel, kernel, generator=draws) * (2 / (inside * kernel**2)) ** 0.5
        found |= {f"features.{index}.weight": weight, f"features.{index}.bias": 0.1 * torch.randn(out, generator=draws)}
    return found


def learned(network: str) -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    widths = [PLANS[network][0][index][1] for index in TAPS[network]]
    return {f"lin{k}.model.1.weight": torch.rand(1, width, 1, 1, generator=draws) for k, width in enumerate(widths)}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed lpips that cannot be imported, as where torchvision is missing, with random learned weights."""
    weights = tmp_path / "site" / "lpips" / "weights" / "v0.1"
    weights.mkdir(parents=True)
    (weights.parents[1] / "__init__.py").write_text("raise ImportError('imported')\n")
    for network in PLANS:
        torch.save(learned(network), weights / f"{network}.pth")
        torch.save(backbone(network), tmp_path / f"{network}.pth")
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return tmp_path


def told(folder: Path, network: str = "alex", size: int = 32) -> Lpips:
    return Lpips(backbone=str(folder / f"{network}.pth"), network=network, size=size)


def plain(network: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Zhang et al., Eq. 1, for RGB images that need no magnification."""
    convolutions, pools, (window, stride) = PLANS[network]
    tensors, lines = backbone(network), learned(network)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    maps = [(x - shift[:, None, None]) / scale[:, None, None] for x in (a, b)]
    total, tap = torch.zeros(len(a)), 0
    for index in range(max(convolutions) + 1):
        if index in pools:
            maps = [F.max_pool2d(x, window, stride) for x in maps]
        if index not in convolutions:
            continue
        weight, bias = tensors[f"features.{index}.weight"], tensors[f"features.{index}.bias"]
        maps = [F.conv2d(x, weight, bias, *convolutions[index][3:]).clamp(min=0) for x in maps]
        if index in TAPS[network]:
            u, v = (x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in maps)
            total = total + F.conv2d((u - v) ** 2, lines[f"lin{tap}.model.1.weight"]).mean((1, 2, 3))
            tap += 1
    return total


def images(*shape: int, seed: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("network", PLANS)
def test_the_distance_is_its_equation(package, network):
    a, b = images(2, 3, 40, 36, seed=2), images(2, 3, 40, 36, seed=3)
    found = load_lpips(told(package, network), 3)(a, b)
    assert found.shape == (2,)
    torch.testing.assert_close(found, plain(network, a, b), rtol=1e-4, atol=1e-6)


def test_small_and_grey_images_are_magnified_and_repeated(package):
    distance = load_lpips(told(package, size=64), 1)
    a, b = images(2, 1, 8, 8, seed=4), images(2, 1, 8, 8, seed=5)
    large = [F.interpolate(x.repeat(1, 3, 1, 1), (64, 64), mode="bilinear") for x in (a, b)]
    torch.testing.assert_close(distance(a, b), plain("alex", *large), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("side", "magnified"), [(4, 32), (8, 56), (32, 224), (64, 224), (256, 256)])
def test_untold_images_are_magnified_seven_times_within_what_the_networks_take(side, magnified):
    seen = []
    distance = PerceptualDistance("alex", None)
    distance.features[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[2:]))
    distance.taps(torch.zeros(1, 1, side, side))
    assert seen == [(magnified, magnified)]


def test_the_student_gets_a_gradient_and_the_target_none(package):
    distance = load_lpips(told(package), 1)
    a, b = images(2, 1, 8, 8, seed=4).requires_grad_(), images(2, 1, 8, 8, seed=5).requires_grad_()
    distance(a, b).sum().backward()
    assert b.grad is None
    assert a.grad is not None
    assert a.grad.abs().sum() > 0
    step = 1e-3 * a.grad / a.grad.norm()
    fall = distance(a - step, b).sum() - distance(a + step, b).sum()
    assert fall.item() == pytest.approx(-2e-3 * a.grad.norm().item(), rel=0.1)
    assert all(not parameter.requires_grad for parameter in distance.parameters())
    torch.testing.assert_close(distance(a, a.detach()), torch.zeros(2))


@pytest.mark.parametrize("name", ["alex.safetensors", "old.pth"])
def test_a_backbone_in_safetensors_or_in_torchs_old_format_is_the_same(package, name):
    """torchvision's VGG-16 was written before torch's files were archives."""
    save_file(backbone("alex"), package / "alex.safetensors")
    torch.save(backbone("alex"), package / "old.pth", _use_new_zipfile_serialization=False)
    other = Lpips(backbone=str(package / name), network="alex", size=32)
    a, b = images(1, 3, 32, 32, seed=6), images(1, 3, 32, 32, seed=7)
    assert torch.equal(load_lpips(other, 3)(a, b), load_lpips(told(package), 3)(a, b))


def pd_lpips(folder: Path, *more: str, path: str = "alex.pth"):
    settings = ("lpips.network=alex", f"lpips.backbone={folder / path}", "first_steps=4", "base_steps=2", *more)
    return tiny(*settings, method="pd-lpips")


def test_a_run_by_pd_lpips(package):
    out = package / "run"
    distill(pd_lpips(package), out, device="cpu")
    assert read_checkpoint(out).card.method == "pd-lpips+refined"
    last = (out / "logs" / "student-1.jsonl").read_text().splitlines()[-1]
    assert '"pd": ' in last and '"lpips": ' in last and '"lpips_grad_norm": ' in last
    torch.save(backbone("alex") | {"more": torch.zeros(1)}, package / "alex.pth")
    with pytest.raises(UsageError, match="started with lpips_sha256="):
        distill(pd_lpips(package), out, device="cpu")


def test_a_relative_backbone_is_kept_absolute(package, monkeypatch):
    monkeypatch.chdir(package)
    chosen = resolve("digits", method="pd-lpips", settings=["lpips.backbone=alex.pth"])
    assert chosen.lpips.backbone == str(package / "alex.pth")
    assert resolve("digits", settings=["lpips.backbone=null"]).lpips.backbone is None


def refused(folder: Path, *more: str, path: str = "alex.pth") -> None:
    distill(pd_lpips(folder, *more, path=path), folder / "run", device="cpu")


def test_what_cannot_be_is_refused_before_any_folder(package, monkeypatch):
    with pytest.raises(UsageError, match=r"give --set lpips\.backbone=FILE"):
        refused(package, "lpips.backbone=null")
    with pytest.raises(MissingError, match=r"there is no .*nowhere\.pth"):
        refused(package, path="nowhere.pth")
    with pytest.raises(CorruptError, match=r"not torchvision's vgg: features\.0\.weight is \(64, 3, 11, 11\)"):
        refused(package, "lpips.network=vgg")
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, package / "part.pth")
    with pytest.raises(CorruptError, match=r"features\.0\.bias is missing"):
        refused(package, path="part.pth")
    torch.save(backbone("alex") | {"features.3.bias": torch.full((192,), torch.nan)}, package / "nan.pth")
    with pytest.raises(CorruptError, match=r"NaN or infinity in features\.3\.bias"):
        refused(package, path="nan.pth")
    for name, content in (("empty.pth", b""), ("words.pth", b"not weights"), ("words.safetensors", b"not weights")):
        (package / name).write_bytes(content)
        with pytest.raises(CorruptError, match="is not a file of weights"):
            refused(package, path=name)
    torch.save([1, 2], package / "list.pth")
    with pytest.raises(CorruptError, match="it holds a list"):
        refused(package, path="list.pth")
    with pytest.raises(UsageError, match="1 or 3 channels, and these have 4"):
        load_lpips(told(package), 4)
    (package / "site/lpips/weights/v0.1/alex.pth").unlink()
    with pytest.raises(DependencyError, match="the installed lpips has no"):
        refused(package)
    monkeypatch.setattr("rdd_edge.distillation.losses.lpips.find_spec", lambda _: None)
    with pytest.raises(DependencyError, match=r"pip install 'rdd-edge\[lpips\]'"):
        refused(package)
    assert not (package / "run").exists()


def test_a_pickle_that_runs_code_is_refused(package):
    (package / "evil.pth").write_bytes(b"cos\nsystem\n(S'touch evil'\ntR.")
    with pytest.raises(CorruptError, match="is not a file of weights"):
        refused(package, path="evil.pth")


THEIRS = """
import sys, types
import torch
from torch import nn

features = nn.Sequential(*[eval(word) for word in sys.argv[4].split(";")])
torchvision, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
torchvision.models = models
name = {"vgg": "vgg16", "alex": "alexnet"}[sys.argv[1]]
setattr(models, name, lambda pretrained: types.SimpleNamespace(features=features))
sys.modules |= {"torchvision": torchvision, "torchvision.models": models}
import lpips

state = torch.load(sys.argv[2], weights_only=True)
features.load_state_dict({k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")})
distance = lpips.LPIPS(net=sys.argv[1], verbose=False)
a, b = torch.load(sys.argv[3], weights_only=True)
with torch.no_grad():
    torch.save(distance(a, b).view(-1), sys.argv[3])
"""


@pytest.mark.skipif(find_spec("lpips") is None, reason="the lpips package is not installed")
@pytest.mark.parametrize("network", PLANS)
def test_the_lpips_package_has_the_same_distance(tmp_path, network):
    """torchvision's layers, by name and number as it has them, stand in for it; all else is the package's own."""
    convolutions, pools, window = PLANS[network]
    words = []
    for index in range(max(convolutions) + 2):
        if index in convolutions:
            words.append(f"nn.Conv2d{convolutions[index]}")
        else:
            words.append(f"nn.MaxPool2d{window}" if index in pools else "nn.ReLU(inplace=True)")
    torch.save(backbone(network), tmp_path / "backbone.pth")
    a, b = images(2, 3, 64, 48, seed=8), images(2, 3, 64, 48, seed=9)
    torch.save((a, b), tmp_path / "images.pth")
    files = [str(tmp_path / name) for name in ("backbone.pth", "images.pth")]
    subprocess.run([sys.executable, "-c", THEIRS, network, *files, ";".join(words)], check=True)
    ours = load_lpips(Lpips(backbone=files[0], network=network, size=32), 3)(a, b)
    torch.testing.assert_close(ours, torch.load(files[1], weights_only=True), rtol=1e-4, atol=1e-6)


def test_half_precision_stays_inside_the_backbone(package):
    distance = load_lpips(told(package), 1)
    a, b = images(2, 1, 8, 8, seed=4), images(2, 1, 8, 8, seed=5)
    with torch.autocast("cpu", torch.bfloat16):
        half = distance(a, b)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, distance(a, b), rtol=0.05, atol=1e-3)
    assert isinstance(distance, PerceptualDistance)
