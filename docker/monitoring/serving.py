"""The panels of what is served: at a glance, requests, the engine."""

from panel import MODEL_ROUTES, NOT_READY, RATE, TOKENS, Panel, by, counted, quantiles

GLANCE = (
    Panel(
        "State",
        "What the engine does now. Only 'ready' serves; 'failed' waits for an operator.",
        {"{{state}}": "appliance_engine_state == 1"},
        kind="stat",
        width=3,
        height=4,
        shows_names=True,
        colours={
            "ready": "green",
            "stopped": "text",
            **dict.fromkeys(("preparing", "starting", "draining", "stopping", "backoff"), "orange"),
        },
    ),
    Panel(
        "Alerts",
        "Which alerts fire. Prometheus shows what to type next: /alerts on its port.",
        {
            "{{alertname}}": 'sum by (alertname) (ALERTS{alertstate="firing"}) '
            'or on() label_replace(vector(0), "alertname", "none", "", "")'
        },
        kind="stat",
        width=5,
        height=4,
        shows_names=True,
        colours={"none": "green"},
    ),
    Panel(
        "Output",
        "Tokens that the engine makes, all requests together. " + NOT_READY,
        {"tokens": f"sum(rate(vllm:generation_tokens_total[{RATE}]))"},
        unit=TOKENS,
        kind="stat",
        width=4,
        height=4,
    ),
    Panel(
        "Time to first token",
        "From a request's arrival to its first byte, over five minutes: the median, and what one "
        "in a hundred waits longer than. Empty while nobody asks.",
        quantiles("appliance_ttft_seconds", 0.5, 0.99, where=MODEL_ROUTES),
        unit="s",
        kind="stat",
        width=4,
        height=4,
        steps=((30, "orange"), (120, "red")),
    ),
    Panel(
        "Requests",
        "How many run, and how many wait for a place.",
        {"running": "appliance_requests_running", "waiting": "appliance_requests_waiting"},
        kind="stat",
        width=4,
        height=4,
    ),
    Panel(
        "MemAvailable above the stop floor",
        "What can still be had before nobody more is let in. Empty until a plan was made.",
        {
            "room": "appliance_host_memory_available_bytes "
            '- ignoring (floor) appliance_memory_floor_bytes{floor="stop"}'
        },
        unit="bytes",
        kind="stat",
        width=4,
        height=4,
        steps=((-(2.0**50), "red"), (0, "orange"), (2 * 2**30, "green")),
    ),
)

REQUESTS = (
    Panel(
        "Requests by how they ended",
        "hang_up: the client left. refused: 4xx. failed: 5xx. broken: cut after the first byte.",
        by("outcome", "appliance_requests_total"),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Answers by status",
        "The HTTP status that clients got; 0 is none. 429 is a full queue, 503 no engine.",
        by("code", "appliance_responses_total"),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Requests by key",
        "Who asks: the name of the client's key (appliance key list).",
        by("key", "appliance_requests_by_key_total"),
        unit="reqps",
        stacked=True,
    ),
    Panel(
        "Time to first token",
        "Over five minutes, queue included. A long prompt that is not in the cache takes long.",
        quantiles("appliance_ttft_seconds", 0.5, 0.9, 0.99, where=MODEL_ROUTES),
        unit="s",
    ),
    Panel(
        "Whole request",
        "From arrival to the last byte, over five minutes.",
        quantiles("appliance_request_seconds", 0.5, 0.9, 0.99, where=MODEL_ROUTES),
        unit="s",
    ),
    Panel(
        "Gap between two chunks",
        "How evenly a stream flows; a chunk is not a token.",
        quantiles("appliance_inter_chunk_seconds", 0.5, 0.99),
        unit="s",
    ),
    Panel(
        "Running and waiting",
        "With the most that may be: places (APPLIANCE_MAX_NUM_SEQS) and seats in the queue.",
        {
            "running": "appliance_requests_running",
            "waiting": "appliance_requests_waiting",
            "limit: {{what}}": "appliance_requests_limit",
        },
    ),
    Panel(
        "Tokens of ended requests",
        "As the engine's usage told them at each request's end; cached is a part of prompt.",
        by("kind", "appliance_tokens_total"),
        unit=TOKENS,
    ),
    Panel(
        "Clients that left",
        "Since it began, by when: body, queue, head, prefill, stream. Many in 'queue' or 'head': "
        "they wait too long.",
        counted("window", "appliance_hang_ups_total"),
    ),
)

ENGINE = (
    Panel(
        "Tokens",
        "Prompt tokens read and tokens made, as the engine counts them. " + NOT_READY,
        {
            "made": f"sum(rate(vllm:generation_tokens_total[{RATE}]))",
            "read": f"sum(rate(vllm:prompt_tokens_total[{RATE}]))",
        },
        unit=TOKENS,
    ),
    Panel(
        "KV cache in use",
        "At 100 % requests are put off and read anew: see preemptions. " + NOT_READY,
        {"in use": "max(vllm:kv_cache_usage_perc)"},
        unit="percentunit",
        steps=((0.85, "orange"), (0.97, "red")),
        most=1,
    ),
    Panel(
        "Prefix cache hits",
        "Which share of the prompts was there already, over five minutes. An agent's turns share "
        "most of theirs; a low value means that something changes the prompt's beginning.",
        {
            "hits": "sum(rate(vllm:prefix_cache_hits_total[5m])) "
            "/ sum(rate(vllm:prefix_cache_queries_total[5m]))"
        },
        unit="percentunit",
        most=1,
    ),
    Panel(
        "Sequences in the engine",
        "What it runs, and what it has put off. " + NOT_READY,
        {
            "running": "sum(vllm:num_requests_running)",
            "waiting": "sum(vllm:num_requests_waiting)",
        },
    ),
    Panel(
        "Time between two tokens",
        "As the engine measures it, over five minutes. " + NOT_READY,
        quantiles("vllm:inter_token_latency_seconds", 0.5, 0.99),
        unit="s",
    ),
    Panel(
        "Preemptions, last hour",
        "Sequences thrown out of a full KV cache. More than a few: fewer places, or more cache.",
        {"preemptions": "sum(increase(vllm:num_preemptions_total[1h]))"},
        steps=((1, "orange"),),
    ),
)
