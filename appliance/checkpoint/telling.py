"""What is told to people. A pipe that was closed, as by ``| head``, does not end hours of work."""

import os
from contextlib import suppress
from typing import TextIO


def tell(text: str, out: TextIO | None) -> str:
    """Write ``text`` as it is, at once. Return why nobody hears it, "" when somebody may.

    What follows such a failure goes nowhere, also what Python itself writes as it ends; so it is
    told once. None is a stream that was closed before the start.
    """
    if out is None:
        return ""
    try:
        out.write(text)
        out.flush()
    except OSError as cause:
        _silence(out)
        return cause.strerror or type(cause).__name__
    return ""


def _silence(out: TextIO) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        with suppress(OSError):  # a stream without a descriptor
            os.dup2(nowhere, out.fileno())
    finally:
        os.close(nowhere)
