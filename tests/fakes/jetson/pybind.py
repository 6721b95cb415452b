"""Classes that take what a recorded release of TensorRT's bindings takes, and refuse all else as pybind11 does."""

from __future__ import annotations

import functools
import operator
import re
from collections.abc import Callable
from typing import Any

__all__ = ["Enum", "enforce"]


class Enum:
    """A member of a pybind11 enumeration: an int of its own kind, which shifts nothing until it is turned into one."""

    def __init__(self, kind: str, name: str, value: int) -> None:
        self._text, self.name, self.value = f"{kind}.{name}", name, value

    def __int__(self) -> int:
        return self.value

    __index__ = __int__

    def __hash__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Enum) and (other._text, other.value) == (self._text, self.value)

    def __repr__(self) -> str:
        return f"<{self._text}: {self.value}>"


def enumeration(kind: str, members: dict[str, int]) -> type:
    """A class with the recorded members and no others."""
    made = {name: Enum(kind, name, value) for name, value in members.items()}
    return type(kind, (), {**made, "__members__": made})


def enforce(recorded: dict[str, Any], kinds: dict[str, type]) -> Callable[[type], type]:
    """A decorator: the class may have no method or property that the record has not, and its calls must fit."""

    def decorate(cls: type) -> type:
        about = recorded["classes"][cls.__name__]
        for name, member in list(vars(cls).items()):
            if isinstance(member, property):
                told = about["properties"].get(name)
                assert told is not None, f"TensorRT has no {cls.__name__}.{name}"
                assert (told == "settable") or member.fset is None, f"{cls.__name__}.{name} cannot be set"
            elif callable(member) and (name == "__init__" or not name.startswith("_")):
                if name == "__init__" and name not in about["methods"]:
                    continue  # made by another object alone
                assert name in about["methods"], f"TensorRT has no {cls.__name__}.{name}()"
                setattr(cls, name, checked(member, about["methods"][name], cls.__name__, kinds))
        cls.__setattr__ = functools.partialmethod(set_known, frozenset(about["properties"]))  # type: ignore[assignment]
        kinds[cls.__name__] = cls
        return cls

    return decorate


def set_known(self: Any, known: frozenset[str], name: str, value: Any) -> None:
    """A bound class has no dictionary: what is not a property cannot be set, unless a subclass in Python sets it."""
    if not name.startswith("_") and name not in known:
        raise AttributeError(f"'tensorrt.{type(self).__name__}' object has no attribute '{name}'")
    object.__setattr__(self, name, value)


def checked(method: Any, signatures: list[str], cls: str, kinds: dict[str, type]) -> Any:
    overloads = [parameters(signature) for signature in signatures]

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        for overload in overloads:
            bound = fits(overload, args, kwargs, kinds)
            if bound is not None:
                return method(self, **bound)
        raise TypeError(
            f"{cls}.{method.__name__}(): incompatible function arguments. The following argument types are supported: "
            f"{signatures}; invoked with {args} {kwargs}"
        )

    return call


def parameters(signature: str) -> list[tuple[str, str, bool]]:
    """(name, type, whether it has a default) of a recorded signature, without self."""
    inside = signature[signature.index("(") + 1 : signature.rindex(")")]
    parts = re.split(r", (?=\w+: )", inside)[1:]
    found = (re.fullmatch(r"(\w+): (.+?)(?: = (.+))?", part) for part in parts)
    return [(match[1], match[2], match[3] is not None) for match in found if match]


def fits(
    overload: list[tuple[str, str, bool]], args: tuple[Any, ...], kwargs: dict[str, Any], kinds: dict[str, type]
) -> dict[str, Any] | None:
    names = [name for name, _, _ in overload]
    if len(args) > len(names) or set(kwargs) - set(names[len(args) :]):
        return None
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    for name, kind, has_default in overload:
        if name not in bound and not has_default:
            return None
        if name in bound and not accepts(kind, bound[name], kinds):
            return None
    return bound


def accepts(kind: str, value: Any, kinds: dict[str, type]) -> bool:
    if kind in ("int", "typing.SupportsInt"):
        try:
            operator.index(value)
        except TypeError:
            return False
        return not isinstance(value, Enum)
    if kind in ("buffer", "typing_extensions.Buffer"):
        try:
            memoryview(value)
        except TypeError:
            return False
        return True
    plain = {"str": str, "bool": bool, "float": (int, float), "typing.SupportsFloat": (int, float)}
    if kind in plain:
        return isinstance(value, plain[kind])
    name = kind.removeprefix("tensorrt.")
    if isinstance(value, Enum):
        return value._text.startswith(f"{name}.")
    return name in kinds and isinstance(value, kinds[name])
