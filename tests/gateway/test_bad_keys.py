"""10,000 wrong keys from one address: who has a right one hardly notices."""

import json
import subprocess
import sys
import time

import httpx

from tests.appliances import ASKED, CHAT, RunAppliance, metric
from tests.engines import ROOT

KEYS = 10_000
OVER_S = 8.0
DELAY_S = 1.0  # the longest that a refusal may be kept waiting
SAMPLES = 400


def ask(http: httpx.Client) -> float:
    """Ask one good question; return how long the answer took."""
    began = time.perf_counter()
    reply = http.post(CHAT, json=ASKED)
    assert reply.status_code == 200, reply.text
    return time.perf_counter() - began


def percentile(lengths: list[float], share: float) -> float:
    """Return the length that this share stays below."""
    return sorted(lengths)[int(share * (len(lengths) - 1))]


def test_a_good_request_is_not_delayed_by_ten_thousand_bad_keys(run: RunAppliance) -> None:
    box = run(failed_key_delay_s=DELAY_S)
    box.until("ready")
    with box.http() as http:
        ask(http)
        before = [ask(http) for _ in range(SAMPLES)]
        words = [sys.executable, "-m", "tests.gateway.badkeys", box.base_url, str(KEYS)]
        with subprocess.Popen([*words, str(OVER_S)], cwd=ROOT, stdout=subprocess.PIPE) as attacker:
            during = [ask(http)]
            while attacker.poll() is None:
                during.append(ask(http))
            assert attacker.stdout is not None
            statuses = json.loads(attacker.stdout.read())
        after = [ask(http) for _ in range(SAMPLES)]
        told = http.get("/metrics").text
    quiet = before + after
    for name, lengths in (("quiet", quiet), ("under attack", during)):
        shown = ", ".join(f"p{100 * q:g} {1e3 * percentile(lengths, q):.2f}" for q in (0.5, 0.99))
        print(f"\ngood requests, {name}: {len(lengths)}, {shown} ms", end="")
    moved = percentile(during, 0.99) - percentile(quiet, 0.99)
    print(f"\n{KEYS} bad keys over {OVER_S:.0f} s move p99 by {1e3 * moved:.2f} ms")

    assert statuses == {"401": KEYS}
    assert len(during) > OVER_S / DELAY_S  # more than there could be if each were kept waiting
    assert percentile(during, 0.99) < DELAY_S / 2
    assert metric(told, "appliance_key_failures_total") == KEYS
    assert "wrong-0" not in box.err
