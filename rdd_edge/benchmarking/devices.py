"""`rdd-edge devices`: what `bench --device` can be given, and whether it can be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import DeviceError, RddEdgeError, printable
from . import adb, devicectl
from .adb import ADB, list_adb_devices
from .connection import Destination
from .devicectl import IOS, list_ios_devices
from .record import SERVER, this_machine


def list_devices(hosts: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Each device with what it is, or what has to be done first.

    hosts: ssh:// destinations to try. Raises UsageError for one of another form.
    """
    d = this_machine()
    here = f"{d.processor or d.machine}, {d.cores} cores, {d.system}"
    rows = [("host", f"this machine, for bundles: {here}"), (SERVER, "this machine, for checkpoints in PyTorch")]
    for url in hosts:
        try:
            system = Destination.parse(url).call(["uname", "-srm"])
            rows.append((url, printable(system.decode(errors="replace").strip(), 200)))
        except DeviceError as error:
            rows.append((url, f"cannot be used: {error}"))
    return [*rows, *_phones(ADB, _android), *_phones(IOS, _iphones)]


def _phones(prefix: str, find: Callable[[], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The phones that `find` finds; or one row with the prefix alone, and why there are none."""
    try:
        return find()
    except RddEdgeError as error:
        return [(prefix, str(error))]


def _android() -> list[tuple[str, str]]:
    if not (phones := list_adb_devices()):
        raise DeviceError(adb.NO_DEVICE)
    states = [f"{phone.state}: {phone.advice}" if phone.advice else phone.model or "Android" for phone in phones]
    return [(f"{ADB}{phone.serial}", state) for phone, state in zip(phones, states, strict=True)]


def _iphones() -> list[tuple[str, str]]:
    if not (phones := list_ios_devices()):
        raise DeviceError(devicectl.NO_DEVICE)
    states = [phone.advice or f"{phone.model}, {phone.system}" for phone in phones]
    return [(f"{IOS}{phone.udid}", f"{phone.name}: {state}") for phone, state in zip(phones, states, strict=True)]
