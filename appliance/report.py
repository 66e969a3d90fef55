"""What a person reads of the smoke checks and of the Kilo Code block."""

import json
import ssl
import sys

import httpx
from rich.console import Console
from rich.text import Text

from appliance.errors import HostError
from appliance.smoke import Result, run_smoke


def print_smoke(base_url: str, key: str, *, expect_glitch: bool, trust: ssl.SSLContext) -> int:
    """Run the smoke checks, print a line each as it ends; 0 if all passed, 1 if not."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"smoke {base_url}")
    results: list[Result] = []

    def tell(result: Result) -> None:
        results.append(result)
        verdict = Text("ok  ", "green") if result.passed else Text("FAIL", "bold red")
        line = Text.assemble(verdict, f" {result.seconds:6.2f} s  {result.name:<26}", result.detail)
        console.print(line)
        sys.stdout.flush()

    try:
        passed = run_smoke(base_url, key, expect_glitch=expect_glitch, trust=trust, tell=tell)
    except (httpx.InvalidURL, UnicodeEncodeError) as cause:
        raise HostError(
            f"{base_url} or its key cannot be used: {cause}",
            "write it like appliance smoke http://spark.local:9000 --key KEY",
        ) from cause
    failed = [result.name for result in results if not result.passed]
    total = sum(result.seconds for result in results)
    verdict = "all passed" if passed else f"{len(failed)} FAILED: {', '.join(failed)}"
    console.print(f"{len(results)} checks in {total:.1f} s: {verdict}")
    return 0 if passed else 1


def say_kilo(base_url: str, key: str, trust: ssl.SSLContext, shown: str) -> None:
    """Print Kilo Code's configuration for a running appliance; ``shown`` is the key in it.

    ``key`` asks for it: what comes over the wire holds none. Who types this knows by which
    address Kilo comes, so none is asked of the appliance. Raises HostError when it does not answer.
    """
    try:
        headers = {"authorization": f"Bearer {key}", "host": "localhost"}
        url = f"{base_url.rstrip('/')}/kilo.json"
        response = httpx.get(url, headers=headers, trust_env=False, verify=trust)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as cause:
        raise HostError(f"{base_url} does not answer: {cause}", "appliance status") from cause
    try:
        config = response.json()
        if not response.is_success:
            raise HostError(f"{base_url}: {config['error']['message']}", "appliance kilo --help")
        (provider,) = config["provider"].values()
        provider["options"] |= {"baseURL": f"{base_url.rstrip('/')}/v1", "apiKey": shown}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HostError(
            f"{base_url} is no appliance: it answers /kilo.json with {response.status_code}",
            "name its own address: --url http://HOST:9000",
        ) from None
    print(json.dumps(config, indent=2))
