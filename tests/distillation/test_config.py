"""Presets and the changes that options make to them."""

from pathlib import Path

import pytest

from rdd_edge.distillation import presets
from rdd_edge.distillation.config import METHODS, Preset
from rdd_edge.distillation.presets import PRESETS, resolve
from rdd_edge.errors import UsageError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    assert Preset.model_validate_json(PRESETS[name].model_dump_json()) == PRESETS[name]


def test_every_file_of_a_preset_is_listed():
    assert {path.stem for path in Path(presets.__file__).parent.glob("*.toml")} == set(PRESETS)


@pytest.mark.parametrize("name", ["small", "cifar10-edge", "imagenet64"])
def test_a_preset_that_differs_from_another_is_a_file_of_settings(name):
    file = Path(presets.__file__).with_name(f"{name}.toml")
    expected = PRESETS[name].model_dump() | {"name": ""}
    found = resolve(None, config=file).model_dump() | {"name": ""}
    assert found == expected


@pytest.mark.parametrize("method", METHODS)
def test_a_method_keeps_the_presets_weights(method):
    chosen = resolve("digits", method=method, settings=["alpha=7", "beta=0.5"])
    assert chosen.method == method
    weights = {"pd": 1.0, "cfd": 1.0, "is_p2p": 7.0, "m_p2p": 0.5, "lpips": 1.0}
    expected = {name: weights[name] for name in METHODS[method]}
    assert {name: value for name, value in chosen.losses.model_dump().items() if value} == expected


def test_terms_stand_in_for_a_method():
    chosen = resolve("digits", losses="cfd,ii_p2p")
    assert chosen.method == "cfd+ii_p2p"
    assert chosen.losses.ii_p2p == chosen.alpha


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"losses": "cfd,nonsense"}, "terms.1"),
        ({"losses": "cfd", "method": "rdd"}, "give one of them"),
        ({"settings": ["first_steps=24"]}, "power of two"),
        ({"settings": ["first_steps=4"]}, "at least base_steps"),
        ({"settings": ["teacher.rate=-1"]}, "teacher.rate"),
        ({"settings": ["terms=[]"]}, "at least 1 item"),
        ({"settings": ["seed"]}, "KEY=VALUE"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, says):
    with pytest.raises(UsageError, match=says):
        resolve("digits", **arguments)
