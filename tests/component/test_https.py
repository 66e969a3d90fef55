"""HTTPS with a certificate of ``appliance cert``: clients that trust it, and our own commands."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from appliance.cli import main
from appliance.probes import GREETING
from appliance.tls import now_utc
from tests import engines
from tests.appliances import (
    COMMAND,
    CONTROL,
    ApplianceProcess,
    Fake,
    RunAppliance,
    clean_environment,
    running_process,
)
from tests.engines import ROOT
from tests.pairs import NOW, write_pair

OPENAI = """
import sys, openai
client = openai.OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)
chat = {"model": "Nikola", "messages": [{"role": "user", "content": sys.argv[3]}]}
print(client.chat.completions.create(**chat).choices[0].message.content)
with client.chat.completions.create(**chat, stream=True) as stream:
    print("".join(c.choices[0].delta.content or "" for c in stream if c.choices))
"""
NODE = """
const [url, key] = process.argv.slice(1);
fetch(url + "/models", {headers: {authorization: "Bearer " + key}})
  .then(async (r) => console.log((await r.json()).data[0].id))
  .catch((e) => { console.error(String(e.cause)); process.exit(1); });
"""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ``appliance cert`` prints; its pair is made with it."""
    folder = tmp_path_factory.mktemp("tls")
    with redirect_stdout(StringIO()) as out:
        assert main(["cert", "--out", str(folder)]) == 0
    return out.getvalue()


def settings_in(printed: str) -> dict[str, Any]:
    """Return the settings that the printed steps name, as ``tls_cert`` and ``tls_key``."""
    found = re.findall(r"^  APPLIANCE_(TLS_\w+)=(.+)$", printed, re.MULTILINE)
    return {name.lower(): value for name, value in found}


def step(printed: str, variable: str) -> dict[str, str]:
    """Return the environment of a client that did the printed step, with its own path."""
    (line,) = re.findall(rf"export ({variable})=/path/to/cert.pem$", printed, re.MULTILINE)
    return {line: settings_in(printed)["tls_cert"]}


@pytest.fixture(scope="module")
def shown(
    printed: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ApplianceProcess, str]]:
    """An appliance that serves HTTPS as the printed steps say, and those steps."""
    folder = tmp_path_factory.mktemp("https")
    with running_process(folder, **settings_in(printed)) as appliance:
        engines.shared_groups.add(appliance.process.pid)
        appliance.until("ready")
        yield appliance, printed
    engines.shared_groups.discard(appliance.process.pid)


def client(*argv: str, more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    env = {**clean_environment(), "PYTHONPATH": str(ROOT), **more}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)


def ours(box: ApplianceProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of our own commands with the appliance's settings."""
    return client(*COMMAND, *arguments, more=box.env)


def fake_of(box: ApplianceProcess) -> Fake:
    """Return its engine, asked for over the socket."""
    with box.local() as http:
        argv = http.get(f"{CONTROL}/plan").json()["command"]["argv"]
    return Fake(f"http://127.0.0.1:{argv[argv.index('--port') + 1]}")


# ---- other people's clients


def test_openais_client_uses_https_with_the_printed_step_and_not_without(
    shown: tuple[ApplianceProcess, str],
) -> None:
    box, steps = shown
    assert box.base_url.startswith("https://127.0.0.1:")
    argv = (sys.executable, "-c", OPENAI, f"{box.base_url}/v1", box.key("client"), GREETING)
    done = client(*argv, more=step(steps, "SSL_CERT_FILE"))
    assert done.stdout.splitlines() == ["I am Nikola."] * 2, done.stderr
    refused = client(*argv, more={})
    assert refused.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr


@pytest.mark.skipif(shutil.which("node") is None, reason="no node here: Kilo Code's own runtime")
def test_node_trusts_it_with_the_printed_step_and_not_without(
    shown: tuple[ApplianceProcess, str],
) -> None:
    box, steps = shown
    argv = ("node", "-e", NODE, f"{box.base_url}/v1", box.key("client"))
    done = client(*argv, more=step(steps, "NODE_EXTRA_CA_CERTS"))
    assert done.stdout.strip() == "Nikola", done.stderr
    refused = client(*argv, more={})
    assert refused.returncode == 1
    assert "self-signed certificate" in refused.stderr


def test_plain_http_gets_nothing_there(shown: tuple[ApplianceProcess, str]) -> None:
    box, _ = shown
    url = box.base_url.replace("https:", "http:")
    done = client(*COMMAND, "status", "--url", url, "--key", "any", more={})
    assert done.returncode == 1
    assert "no appliance answers" in done.stderr


# ---- our own commands


def test_our_commands_work_beside_it_without_a_word(shown: tuple[ApplianceProcess, str]) -> None:
    box, _ = shown
    assert ours(box, "status").returncode == 0
    fake = fake_of(box)
    fake.be(chunk_delay=0.002)  # slow enough to be left in mid-stream
    smoke = ours(box, "smoke")
    fake.be()
    assert "all passed" in smoke.stdout, smoke.stdout
    kilo = json.loads(ours(box, "key", "--kilo").stdout)
    assert kilo["provider"]["unglitched"]["options"]["baseURL"] == f"{box.base_url}/v1"


def test_from_elsewhere_they_say_how_to_trust_it(shown: tuple[ApplianceProcess, str]) -> None:
    box, steps = shown
    argv = (*COMMAND, "status", "--url", box.base_url, "--key", box.key("operator"))
    refused = client(*argv, more={})
    assert refused.returncode == 1
    assert "is not trusted here" in refused.stderr
    assert "export SSL_CERT_FILE=" in refused.stderr
    assert client(*argv, more=step(steps, "SSL_CERT_FILE")).returncode == 0


# ---- what it says at its start


def test_a_pair_that_is_none_ends_with_78_before_it_listens(run: RunAppliance) -> None:
    box = run(tls_cert="/nowhere/cert.pem", tls_key="/nowhere/key.pem")
    assert box.code() == 78
    assert "APPLIANCE_TLS_CERT=/nowhere/cert.pem cannot be read" in box.err
    assert not (box.state_dir / "address").exists()


def test_an_expired_certificate_ends_with_78(run: RunAppliance, tmp_path: Path) -> None:
    cert, key = write_pair(tmp_path, days=1, now=NOW.replace(year=2020))
    box = run(tls_cert=cert, tls_key=key)
    assert box.code() == 78
    assert f"{cert} expired on 2020-11-24" in box.err


def test_a_certificate_that_ends_soon_is_served_and_warned_of(
    run: RunAppliance, tmp_path: Path
) -> None:
    cert, key = write_pair(tmp_path, days=5, now=now_utc())
    box = run(tls_cert=cert, tls_key=key)
    box.until("ready")
    assert f"{cert} ends in 4 days" in box.err
    assert "appliance cert --replace" in box.err


def test_the_lan_is_told_its_url_and_warned_of_plain_http(run: RunAppliance) -> None:
    box = run(listen="lan")
    box.until("ready")
    port = box.base_url.rpartition(":")[2]
    (told,) = [line for line in box.err.splitlines() if "appliance.on_the_network" in line]
    assert re.search(rf"http://[0-9A-Z.-]+:{port}\b", told)
    (warned,) = [line for line in box.err.splitlines() if "appliance.plain_http" in line]
    assert "APPLIANCE_TLS_CERT" in warned
    with box.http() as http:
        assert http.get("/v1/models").status_code == 200


def test_the_lan_over_https_is_not_warned(run: RunAppliance, printed: str) -> None:
    box = run(listen="lan", **settings_in(printed))
    box.until("ready")
    (told,) = [line for line in box.err.splitlines() if "appliance.on_the_network" in line]
    assert "https://" in told
    assert "plain_http" not in box.err


def test_on_loopback_the_network_is_not_spoken_of(run: RunAppliance) -> None:
    box = run()
    box.until("ready")
    assert "on_the_network" not in box.err
    assert "plain_http" not in box.err
