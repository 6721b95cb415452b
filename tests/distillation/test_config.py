"""Presets and the changes that options make to them."""

import pytest

from rdd_edge.distillation.config import METHODS, Preset
from rdd_edge.distillation.presets import PRESETS, resolve
from rdd_edge.errors import UsageError


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    assert Preset.model_validate_json(PRESETS[name].model_dump_json()) == PRESETS[name]


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
