"""How the processors of a machine are kept from sleeping while a lab is open: the words of profiles and recordings.

What each does, and how "auto" chooses, is in lab/keep_awake.py.
"""

from __future__ import annotations

from typing import Literal

KeepAwake = Literal["auto", "qos", "spinner", "none"]  # What a profile asks for ...
KeptAwake = Literal["qos", "spinner", "none"]  # ... and what was done.

OF_BOOLEANS: dict[bool, KeptAwake] = {True: "spinner", False: "none"}  # Until 2026-07 a spinner was all there was.


def asked_word(value: KeepAwake | bool) -> KeepAwake:
    """What a profile asks for; profiles had a boolean once."""
    return OF_BOOLEANS[value] if isinstance(value, bool) else value


def kept_word(value: KeptAwake | bool) -> KeptAwake:
    """What a recording says was done; recordings had a boolean once."""
    return OF_BOOLEANS[value] if isinstance(value, bool) else value
