#!/usr/bin/python3 -IS
"""Is the engine ready? Asked inside the container, through the control socket.

The socket is there whatever port, address or certificate the appliance serves the network with.

  ready.py          the image's health check: one line, exit code 0 (ready) or 1
  ready.py --wait   tells each step of a start until it is ready (0), or has ended (1)
"""

import http.client
import json
import os
import socket
import sys
import time
from typing import Any, cast

ANSWER_S = 5
EVERY_S = 0.5
ALIVE_S = 30  # a sign of life, while a first start compiles in silence
COMES_UP_S = 60  # until the appliance has its socket


def ask() -> dict[str, Any]:
    """Return the appliance's health. Raises OSError, HTTPException or ValueError."""
    path = os.path.join(os.environ.get("APPLIANCE_STATE_DIR", ""), "control.sock")
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER_S)
    with socket.socket(socket.AF_UNIX) as connection.sock:
        connection.sock.settimeout(ANSWER_S)
        connection.sock.connect(path)
        connection.request("GET", "/health")
        return cast("dict[str, Any]", json.loads(connection.getresponse().read()))


NOT_ASKED = (OSError, http.client.HTTPException, ValueError)


def line(health: dict[str, Any]) -> str:
    """Return a health as one line for people: the state, its progress, and why."""
    words = [health["state"]]
    if health["phase"]:
        words.append(health["phase"])
    elif health["reason"] != health["state"]:
        words.append(health["reason"])
    return ": ".join(words) + "".join(f" (degraded: {name})" for name in health["degraded"])


def check() -> int:
    """Print one line; return the exit code that Docker asks for."""
    try:
        health = ask()
    except NOT_ASKED as cause:
        print(f"no answer: {cause}")
        return 1
    print(line(health))
    return 0 if health["status"] == "ready" else 1


def wait() -> int:
    """Tell of a start until it is over; return 0 when the engine is ready."""
    began = told = time.monotonic()
    said = ""
    while True:
        now = time.monotonic()
        try:
            health = ask()
        except NOT_ASKED as cause:
            if now - began > COMES_UP_S:
                print(f"the appliance does not answer: {cause}")
                return 1
            health = None
        text = line(health) if health else "the appliance is starting"
        if text != said or now - told > ALIVE_S:
            print(f"[{now - began:5.0f} s] {text}", flush=True)
            said, told = text, now
        if health and health["status"] == "ready":
            return 0
        if health and health["state"] in ("failed", "stopped", "backoff"):
            explain(health)
            return 1
        time.sleep(EVERY_S)


def explain(health: dict[str, Any]) -> None:
    """Print why there is no engine, what to type, and the engine's last lines."""
    print(f"{health['reason']}: {health['message'] or ''}")
    if health["hint"]:
        print(f"  -> {health['hint']}")
    for last in health["last_lines"] or ():
        print(f"  | {last}")


if __name__ == "__main__":
    sys.exit(wait() if "--wait" in sys.argv[1:] else check())
