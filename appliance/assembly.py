"""Puts an engine together as the settings ask: ours, with all who look after it, or another's."""

import asyncio
import os

from appliance.attached import Attached
from appliance.cluster.wiring import join_pair
from appliance.engine import Engine
from appliance.host import StateFolder
from appliance.incarnation import Care, start_alone
from appliance.incidents import IncidentStore
from appliance.keeper import open_keeper
from appliance.launch import Extras
from appliance.lifecycle import Policy
from appliance.memory import RUNGS
from appliance.memorywatch import MemoryCare
from appliance.metrics import Metrics
from appliance.part import part_of
from appliance.preparation import RESETTLE_S, Preparation
from appliance.prompt import PromptPolicy
from appliance.restart import RestartPolicy
from appliance.settings import Settings
from appliance.statefile import choice_of
from appliance.supervisor import Supervisor, Wiring
from appliance.swap import DROP_S, EVICT_S, find_swap
from appliance.upstream import Upstream
from appliance.warmup import warm_up
from appliance.wedge import WedgePolicy

WARM_UP_S = 300.0
PREPARE_S = 60.0  # to read the model folder, which may be on a sleeping disk
SWAP_S = DROP_S + EVICT_S + RESETTLE_S


async def build_engine(
    settings: Settings, extras: Extras, policy: PromptPolicy, metrics: Metrics, state: StateFolder
) -> tuple[Engine, IncidentStore | None]:
    """Return the engine that the settings choose, ours or somebody else's, and our incidents."""

    async def check(upstream: Upstream) -> str:
        return await warm_up(upstream, settings.served_model_name, policy, WARM_UP_S)

    if settings.engine == "attach":
        key = settings.engine_key.get_secret_value() if settings.engine_key else None
        upstream = Upstream(settings.engine_url or "", key)
        return Attached(upstream, settings.served_model_name, check, metrics), None

    choice = await asyncio.to_thread(choice_of, settings, os.environ)
    keeper = open_keeper(state.path, choice)
    swap = find_swap(settings.swap, settings.swap_command, state.swap_lock)
    preparation = Preparation(
        settings, extras, state.evidence, metrics, os.environ, swap, lambda: keeper.learned,
        part=part_of(settings),
    )  # fmt: skip
    pair = join_pair(settings, state.path, preparation, metrics)
    care = Care(
        warm_up=check,
        metrics=metrics,
        model=settings.served_model_name,
        evidence=state.evidence,
        wedge=_wedge_policy(settings),
        memory=MemoryCare(
            metrics,
            is_armed=settings.memory_guards,
            drop_cache=preparation.drop_cache if swap else None,
            load_free_bytes=settings.load_free_floor,
        ),
        quiet_s=settings.start_quiet_s,
        idle_stop_after_s=settings.idle_stop_after_s,
        start=pair.tie.start if pair else start_alone,
    )
    prepare = pair.preparation.prepare if pair else preparation.prepare
    wiring = Wiring(
        prepare, care, _policy(settings), keeper, settings.settle_timeout_s,
        settings.expected_start_s, pair.close if pair else None,
    )  # fmt: skip
    supervisor = Supervisor(wiring)
    supervisor.log.gate.debug = settings.engine_debug
    return supervisor, keeper.incidents


def _policy(settings: Settings) -> Policy:
    return Policy(
        prepare_s=settings.settle_timeout_s + PREPARE_S + SWAP_S,
        start_s=settings.start_timeout_s,
        quiet_s=settings.start_quiet_s,
        drain_s=settings.drain_timeout_s,
        stop_s=settings.stop_timeout_s,
        stop_loading_s=min(settings.stop_timeout_s, Policy.stop_loading_s),
        restart=RestartPolicy(
            backoff_s=settings.restart_backoff_s,
            backoff_cap_s=settings.restart_backoff_cap_s,
            max_failures=settings.restart_max_failures,
            window_s=settings.restart_window_s,
            rungs=RUNGS,
        ),
    )


def _wedge_policy(settings: Settings) -> WedgePolicy:
    return WedgePolicy(
        quiet_s=settings.wedge_quiet_s,
        prefill_tokens_per_s=settings.prefill_tokens_per_s,
        power_floor_w=settings.wedge_power_floor_w,
        probe_every_s=settings.probe_every_s,
    )
