"""Whether a machine was slowed down while it was measured. Standard library only.

Source of the bits: Raspberry Pi documentation, ``vcgencmd get_throttled``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FLAGS = {
    0: "under-voltage",
    1: "ARM frequency capped",
    2: "throttled",
    3: "soft temperature limit",
}
SINCE_BOOT = 16  # bits further up: the same, at any time since boot
RISE = 10.0  # °C over a run, above which its beginning and its end are two machines
HOT = 80.0  # °C at which a Raspberry Pi begins to slow down
State = Mapping[str, Any]


def bits(told: object) -> int | None:
    """Read ``throttled=0x50005``, ``0x50005`` or the kernel's ``50005``; None for anything else."""
    try:
        return int(str(told).strip().removeprefix("throttled="), 16)
    except ValueError:
        return None


def decode(word: int) -> tuple[list[str], list[str]]:
    """Return the names of what happens now and of what has happened since boot."""
    now = [name for bit, name in FLAGS.items() if word >> bit & 1]
    since = [name for bit, name in FLAGS.items() if word >> bit + SINCE_BOOT & 1]
    return now, since


def invalid(states: Sequence[State]) -> list[str]:
    """Return why times taken between the first and the last of ``states`` are void.

    Any flag that holds at one of the readings, and any "since boot" that appeared after the first
    of them: it was slowed down between two readings. The same for the x86 kernel's counter.
    """
    words = [word for state in states if (word := bits(state.get("throttled"))) is not None]
    found: list[str] = []
    known = decode(words[0])[1] if words else []
    for word in words:
        now, since = decode(word)
        found += now + [name for name in since if name not in known]
    told = [f"throttled during the run: {name}" for name in dict.fromkeys(found)]
    counts = [count for state in states if (count := state.get("throttle_count")) is not None]
    if counts and max(counts) > counts[0]:
        told.append(f"throttled during the run: {max(counts) - counts[0]} times by its temperature")
    return told


def warnings(states: Sequence[State]) -> list[str]:
    """Return what else ``states``, in order of time, say against the times."""
    told = []
    word = bits(states[0].get("throttled"))
    before = decode(word)[1] if word is not None else []
    if before:
        told.append(f"before the run, since boot, the firmware saw: {', '.join(before)}")
    degrees = [value for state in states if (value := state.get("temperature_c")) is not None]
    if degrees and max(degrees) - degrees[0] > RISE:
        told.append(f"the temperature rose from {degrees[0]:.0f} to {max(degrees):.0f} °C")
    if degrees and max(degrees) >= HOT:
        told.append(f"the machine was as hot as {max(degrees):.0f} °C")
    return told
