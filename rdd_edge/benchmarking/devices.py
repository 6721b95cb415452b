"""`rdd-edge devices`: what `bench --device` can be given, and whether it can be used."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import DependencyError, DeviceError, printable
from .adb import ADB, NO_DEVICE, list_adb_devices
from .connection import Destination
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
    try:
        phones = list_adb_devices()
    except DependencyError as error:
        return [*rows, (ADB, str(error))]
    states = [f"{phone.state}: {phone.advice}" if phone.advice else phone.model or "Android" for phone in phones]
    names = [f"{ADB}{phone.serial}" for phone in phones]
    return [*rows, *(zip(names, states, strict=True) if phones else [(ADB, NO_DEVICE)])]
