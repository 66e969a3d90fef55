"""Appliances in front of one real engine: a wide one, and one with a single place."""

from collections.abc import Iterator

import pytest

from tests import engines
from tests.appliances import ApplianceProcess, attached_to, running_process
from tests.engines import EngineHandle


def _in_front_of(
    engine: EngineHandle, factory: pytest.TempPathFactory, name: str, **settings: object
) -> Iterator[ApplianceProcess]:
    folder = factory.mktemp(name)
    chosen = attached_to(engine.base_url, engine.key, **settings)
    with running_process(folder, **chosen) as appliance:
        engines.shared_groups.add(appliance.process.pid)
        appliance.until("ready")
        yield appliance
    engines.shared_groups.discard(appliance.process.pid)


@pytest.fixture(scope="session")
def wide(
    real_engine: EngineHandle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApplianceProcess]:
    """An appliance with the demo's 64 places, in front of the real engine."""
    yield from _in_front_of(real_engine, tmp_path_factory, "wide")


@pytest.fixture(scope="session")
def narrow(
    real_engine: EngineHandle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ApplianceProcess]:
    """An appliance with one place, in front of the same engine."""
    yield from _in_front_of(real_engine, tmp_path_factory, "narrow", max_num_seqs=1)
