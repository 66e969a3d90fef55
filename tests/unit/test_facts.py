"""Facts are what was observed: nobody changes them afterwards."""

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from appliance.facts import HostFacts, ModelFacts

HOST = HostFacts("x86_64", 2, 8 * 2**30, 4 * 2**30)
MODEL = ModelFacts(Path("/m"), "MiniMaxM2ForCausalLM", "minimax_m2", 2, 8, 65536, "", 1, 1325096)


@pytest.mark.parametrize(("facts", "name"), [(HOST, "cpu_count"), (MODEL, "shard_count")])
def test_facts_cannot_be_changed(facts: object, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(facts, name, 3)
