"""A snapshot is a moment: whole, and never changed afterwards."""

from dataclasses import FrozenInstanceError

import pytest

from appliance.engine import OUTPUT_SUSPECT, Snapshot
from appliance.restart import Reason


def test_a_snapshot_promises_nothing_by_default() -> None:
    snapshot = Snapshot("stopped", Reason("not_started"), since=0.0)
    assert not snapshot.is_ready
    assert not snapshot.is_coming
    assert snapshot.degraded == ()
    assert snapshot.last_lines == ()
    assert snapshot.max_model_len is None


def test_a_snapshot_cannot_be_changed() -> None:
    snapshot = Snapshot("ready", Reason("ready"), since=0.0, degraded=(OUTPUT_SUSPECT,))
    with pytest.raises(FrozenInstanceError):
        setattr(snapshot, "state", "stopped")  # noqa: B010 - mypy knows that it is frozen
