"""The panels of memory, paths, restarts, and of the appliance itself."""

from panel import EACH_S, NO_GPU, RATE, Panel, by, counted

MEMORY = (
    Panel(
        "MemAvailable and the floors",
        "Below 'warn' it is said, below 'stop' nobody more is let in, below 'kill' the engine is "
        "ended in order, below 'emergency' at once.",
        {
            "available": "appliance_host_memory_available_bytes",
            "floor: {{floor}}": "appliance_memory_floor_bytes",
        },
        unit="bytes",
        width=12,
    ),
    Panel(
        "Plan against actual",
        "The memory plan of this engine by part, and what the engine logged of it once it was "
        "ready. The actual parts are empty for an engine that logs none.",
        {
            "plan: {{part}}": "appliance_memory_plan_bytes",
            "actual: {{part}}": "appliance_memory_actual_bytes",
        },
        unit="bytes",
        kind="bargauge",
        width=12,
    ),
    Panel(
        "Swap in use",
        "A little, once, is what is pushed out before a start.",
        {"used": "appliance_host_swap_total_bytes - appliance_host_swap_free_bytes"},
        unit="bytes",
        width=6,
    ),
    Panel(
        "Swap traffic",
        "Pages read back while serving cost time: something that is used was pushed out.",
        {
            "in": f"rate(appliance_host_swap_in_bytes_total[{RATE}])",
            "out": f"rate(appliance_host_swap_out_bytes_total[{RATE}])",
        },
        unit="Bps",
        width=6,
    ),
    Panel(
        "Memory pressure",
        "The share of time in which some, or all, tasks waited for memory. Empty on a kernel "
        "without PSI.",
        {"{{kind}}": f"rate(appliance_host_memory_pressure_seconds_total[{RATE}])"},
        unit="percentunit",
        width=6,
    ),
    Panel(
        "Free blocks in a row",
        "Blocks of 2^order pages. None of order 9 or more: the GPU's driver may find no memory "
        "though much is free.",
        {"order {{order}}": "appliance_host_memory_free_blocks"},
        width=6,
    ),
    Panel(
        "What the guards did",
        "Since it began: warn, stop_admission, resume, terminate, kill; drop_cache is a part of "
        "each load.",
        counted("action", "appliance_memory_guard_actions_total"),
        width=6,
    ),
    Panel(
        "Killed by the kernel, last hour",
        "Processes that the kernel's OOM killer ended on this machine.",
        {"processes": "increase(appliance_host_oom_kills_total[1h])"},
        width=6,
        steps=((1, "red"),),
    ),
    Panel(
        "GPU power",
        "A busy engine that draws little is stuck. " + NO_GPU,
        {"GPU {{gpu}}": "appliance_host_gpu_power_watts"},
        unit="watt",
        width=6,
    ),
    Panel(
        "GPU temperature",
        "A hot GPU lowers its clock. " + NO_GPU,
        {"GPU {{gpu}}": "appliance_host_gpu_temperature_celsius"},
        unit="celsius",
        width=6,
    ),
)

PATHS = (
    Panel(
        "Glitches by kind",
        "Since it began: paths in tool calls that the model changed, compared with what the "
        "conversation showed.",
        counted("kind", "appliance_path_glitches_total"),
    ),
    Panel(
        "Glitches by what was done",
        "Since it began. observed: only counted. mended. left: to mend it was not safe.",
        counted("action", "appliance_path_glitches_total"),
    ),
    Panel(
        "Prompt put in",
        "Requests into which the path-preservation prompt was put, by route.",
        by("route", "appliance_prompt_injected_total"),
        unit="reqps",
    ),
    Panel(
        "Constrained requests",
        "Since it began: what became of requests in the mode constrain; 'none' alone: nobody uses "
        "it.",
        counted("outcome", "appliance_path_constraints_total"),
        width=12,
    ),
    Panel(
        "Paths that the tokenizer changes",
        "Of 1000, read in other tokens than tokenizer.json says. Empty where it was not compared.",
        {"paths": "appliance_tokenizer_mismatches"},
        kind="stat",
        width=12,
        steps=((1, "red"),),
    ),
)

RESTARTS = (
    Panel(
        "State over time",
        "Each state as a line; it is in the one that is lit.",
        {"{{state}}": "appliance_engine_state"},
        kind="state-timeline",
        width=12,
    ),
    Panel(
        "Wrong while it serves",
        "output_suspect, memory_low, silent, state_not_saved …; the README says what each means.",
        {"{{kind}}": "appliance_engine_degraded"},
        kind="state-timeline",
        width=12,
        colours={"lit": "red"},
    ),
    Panel(
        "Engine starts, last 2 h",
        "Three failures in two hours are the end until an operator acts.",
        {"starts": "increase(appliance_engine_spawns_total[2h])"},
        width=6,
        steps=((3, "red"),),
    ),
    Panel(
        "Ends by cause",
        "Since it began; requested is an operator's. All others: appliance incidents show.",
        counted("cause", "appliance_engine_exits_total"),
        width=6,
    ),
    Panel(
        "Hung and killed, last 2 h",
        "Engines that made no progress on what they had.",
        {"wedges": "increase(appliance_engine_wedges_total[2h])"},
        width=6,
        steps=((1, "red"),),
    ),
    Panel(
        "Last start took",
        "From the spawn to ready. 0 before the first.",
        {"start": "appliance_engine_start_seconds"},
        unit="s",
        kind="stat",
        width=6,
    ),
)

SIDECAR = (
    Panel(
        "Processor time",
        "Of one core, by the appliance itself.",
        {"appliance": f"rate(appliance_process_cpu_seconds_total[{RATE}])"},
        unit="percentunit",
        width=6,
    ),
    Panel(
        "Memory",
        "Held by the appliance itself.",
        {"resident": "appliance_process_resident_memory_bytes"},
        unit="bytes",
        width=6,
    ),
    Panel(
        "Open files",
        "Connections are among them; they must not grow without requests.",
        {"open": "appliance_process_open_fds"},
        width=6,
    ),
    Panel(
        "Scrape",
        "How long the appliance takes to answer Prometheus.",
        {"took": 'scrape_duration_seconds{job="unglitched"}'},
        unit="s",
        width=6,
    ),
    Panel(
        "Bodies",
        "Bytes sent to the engine, and to clients.",
        {
            "to the engine": f"rate(appliance_request_body_bytes_total[{RATE}])",
            "to clients": f"rate(appliance_response_body_bytes_total[{RATE}])",
        },
        unit="Bps",
    ),
    Panel(
        "Wrong keys and keep-alives",
        "Requests with a wrong key: a client that was not told, or somebody who tries. Keep-alives "
        "go to streams that wait.",
        {
            "wrong keys": f"rate(appliance_key_failures_total[{RATE}])",
            "keep-alives": f"rate(appliance_keepalives_total[{RATE}])",
        },
        unit=EACH_S,
    ),
    Panel(
        "Changed or refused",
        "Since it began: output limits lowered, histories repaired, replies ended as runaways, "
        "prompts and media refused.",
        {
            "limits": "sum(appliance_clamps_total) or vector(0)",
            "histories": "sum(appliance_history_repairs_total) or vector(0)",
            "runaways": "sum(appliance_runaways_total) or vector(0)",
            "too long": "sum(appliance_context_refusals_total) or vector(0)",
            "media": "appliance_media_refusals_total",
        },
    ),
)
