"""The ``appliance`` command: one parser, one function a command."""

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance import __version__
from appliance.accept.command import add_accept_command
from appliance.bench.command import add_bench_command
from appliance.bundle import add_bundle_command
from appliance.cluster.hostports import HostPorts, picked_ports
from appliance.cluster.portrule import Closed, checked
from appliance.clustercommands import add_cluster_command, add_node_command
from appliance.commandline import (
    add_command,
    add_force,
    add_operator_flags,
    add_settings_flags,
    flags_of,
    settings_of,
)
from appliance.errors import ApplianceError, SettingsError
from appliance.hostlend import Host
from appliance.hostunit import UID
from appliance.keycommands import add_key_command, add_kilo_command
from appliance.logs import configure
from appliance.logsview import show_tail
from appliance.modelcommands import add_model_command
from appliance.operator import Operator, change, show_incidents, show_status
from appliance.planview import print_plan, print_settings
from appliance.report import print_smoke
from appliance.trust import trust
from appliance.watchcommands import add_logs_command, add_top_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Errors are one message on stderr, no traceback."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except ApplianceError as error:
        print(f"appliance: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, head or less, has seen enough. What is still to be written would fail again
        # at the very end, where nobody can catch it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command line."""
    parser = argparse.ArgumentParser(
        prog="appliance",
        description="Serve one model on one box: supervise vLLM, relay the OpenAI API.",
        epilog="Settings are APPLIANCE_* variables or a TOML file named by APPLIANCE_CONFIG; "
        "appliance plan --settings lists them.",
    )
    parser.add_argument("--version", action="version", version=f"appliance {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    _add_plan(commands)
    _add_doctor(commands)
    _add_smoke(commands)
    _add_status(commands)
    _add_change(commands, "start", "start the engine", "after a stop, or after it FAILED")
    _add_change(commands, "stop", "stop the engine now", "the appliance stays, and answers 503")
    _add_change(commands, "drain", "stop the engine once what runs has ended", "nothing is cut")
    _add_change(commands, "restart", "drain and start the engine", "who waits goes on waiting")
    _add_change(commands, "reset", "forget the failures and start", "after it gave up")
    _add_incidents(commands)
    add_logs_command(commands)
    add_top_command(commands)
    add_key_command(commands)
    add_kilo_command(commands)
    add_bench_command(commands)
    add_accept_command(commands)
    add_bundle_command(commands)
    add_model_command(commands)
    add_node_command(commands)
    add_cluster_command(commands)
    _add_cert(commands)
    _add_host(commands)
    return parser


# ---- run


def _add_run(commands: Any) -> None:
    examples = (
        "  appliance run                                 with the settings of the environment\n"
        "  appliance run --profile spark --model-dir /models/Nikola\n"
        "  APPLIANCE_ENGINE=attach APPLIANCE_ENGINE_URL=http://127.0.0.1:8000 appliance run\n"
        "  appliance run --once                          smoke checks once ready, then exit\n"
        "exit codes:\n"
        "  0 SIGTERM, SIGINT, or --once and all checks passed    1 a check failed\n"
        "  75 the port or the state folder is taken     78 the settings are wrong\n"
        "  130/143 a second signal"
    )
    parser = add_command(commands, "run", "start the appliance and its engine", examples, _run)
    add_settings_flags(parser)
    add_force(parser)
    parser.add_argument("--once", action="store_true", help="run the smoke checks, then exit")


def _run(options: argparse.Namespace) -> int:
    # here, and not above: the other commands need no server, and start three times as fast
    import uvloop

    from appliance.once import smoke_once
    from appliance.serve import serve

    settings = settings_of(options)
    configure(settings.log_format)
    # what is loaded by now stays: looking through it for garbage would stop each stream for 30 ms
    gc.collect()
    gc.freeze()
    return uvloop.run(serve(settings, smoke_once if options.once else None))


# ---- plan


def _add_plan(commands: Any) -> None:
    examples = (
        "  appliance plan --profile thor          memory, settings, and the engine's command\n"
        "  appliance plan --host-file thor.json --model-file nikola.json\n"
        "                                         for a machine and a checkpoint elsewhere\n"
        "  appliance plan --shell                 the command alone, ready to paste\n"
        "  appliance plan --json                  for programs\n"
        "  appliance plan --settings              every setting: variable, value, meaning\n"
        "exit codes: 0 it fits, 1 the model cannot be served, 78 it does not fit"
    )
    about = "print what a start would do, and start nothing"
    parser = add_command(commands, "plan", about, examples, _plan)
    add_settings_flags(parser)
    add_force(parser)
    parser.add_argument("--host-file", type=Path, metavar="FILE", help="plan for another machine")
    parser.add_argument("--model-file", type=Path, metavar="FILE", help="and another checkpoint")
    parser.add_argument("--worker-file", type=Path, metavar="FILE", help="and a cluster's worker")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", const="json", dest="form")
    form.add_argument("--shell", action="store_const", const="shell", dest="form")
    form.add_argument("--settings", action="store_const", const="settings", dest="form")


def _plan(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if options.form == "settings":
        print_settings(settings)
        return 0
    files = (options.host_file, options.model_file, options.worker_file)
    return print_plan(settings, options.form or "table", *files)


# ---- doctor


def _add_doctor(commands: Any) -> None:
    examples = (
        "  appliance doctor                       for the Compose files and the .env in here\n"
        "  appliance doctor --profile thor --model-dir /models/Nikola\n"
        "  appliance doctor --json                for programs\n"
        "exit codes: 0 nothing failed, 1 something would keep it from serving"
    )
    about = "look at this host: Docker, GPU, model, memory, disks, network; change nothing"
    parser = add_command(commands, "doctor", about, examples, _doctor)
    add_settings_flags(parser)
    parser.add_argument("--folder", type=Path, default=Path(), help="with the Compose files")
    parser.add_argument("--json", action="store_true", help="for programs")


def _doctor(options: argparse.Namespace) -> int:
    from appliance.doctor.report import print_checkup  # Docker's SDK takes its time to load

    return print_checkup(flags_of(options), options.folder, as_json=options.json)


# ---- smoke


def _add_smoke(commands: Any) -> None:
    examples = (
        "  appliance smoke                              the appliance of this state folder\n"
        "  appliance smoke http://spark.local:9000 --key KEY\n"
        "exit codes: 0 all checks passed, 1 one failed"
    )
    about = "check that a coding agent can work against an appliance"
    parser = add_command(commands, "smoke", about, examples, _smoke)
    parser.add_argument("url", nargs="?", metavar="URL", help="default: the running one's address")
    parser.add_argument("--key", help="client key; default: APPLIANCE_API_KEY, or the kept one")
    parser.add_argument(
        "--expect-glitch",
        action="store_true",
        help="fail if the path survives without the prompt (the demo model is trained to glitch)",
    )


def _smoke(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    operator = Operator.of(settings, None, None)
    url = options.url or operator.running_url()
    key = options.key or operator.key("client")
    glitch = options.expect_glitch or settings.profile == "demo"
    trusted = trust(url, settings.tls_cert, is_own=not options.url)
    return print_smoke(url, key, expect_glitch=glitch, trust=trusted)


# ---- status and changes


def _add_status(commands: Any) -> None:
    examples = (
        "  appliance status\n"
        "  appliance status --lines 50            and the engine's last lines\n"
        "  appliance status --url http://spark.local:9000 --key OPERATOR_KEY --json\n"
        "exit codes: 0 ready, 1 not ready or not running"
    )
    about = "say what the engine is doing, and why"
    parser = add_command(commands, "status", about, examples, _status)
    add_operator_flags(parser)
    parser.add_argument("--lines", type=int, default=0, metavar="N", help="engine lines to show")


def _operator(options: argparse.Namespace) -> Operator:
    return Operator.of(settings_of(options), options.url, options.key)


def _status(options: argparse.Namespace) -> int:
    with _operator(options) as operator:
        code = show_status(operator, as_json=options.json)
        if options.lines:
            show_tail(operator, options.lines)
        return code


def _add_change(commands: Any, name: str, about: str, when: str) -> None:
    examples = (
        f"  appliance {name}                         {when}\n"
        f"  appliance {name} --no-wait               ask, and return at once"
    )
    parser = add_command(commands, name, about, examples, lambda options: _change(options, name))
    add_operator_flags(parser)
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the outcome")


def _change(options: argparse.Namespace, verb: str) -> int:
    with _operator(options) as operator:
        return change(operator, verb, wait=not options.no_wait, as_json=options.json)


# ---- incidents


def _add_incidents(commands: Any) -> None:
    examples = (
        "  appliance incidents                    the last five, newest first\n"
        "  appliance incidents show               the newest: cause, memory, plan, log, stacks\n"
        "  appliance incidents show ID            another one\n"
        "  appliance incidents --json             for programs"
    )
    about = "say what went wrong with the engine, and what was done"
    parser = add_command(commands, "incidents", about, examples, _incidents)
    parser.add_argument("what", nargs="?", choices=("list", "show"), default="list")
    parser.add_argument("incident", nargs="?", metavar="ID", help="default: the newest")
    add_operator_flags(parser)


def _incidents(options: argparse.Namespace) -> int:
    with _operator(options) as operator:
        wanted = (options.incident or "") if options.what == "show" else None
        return show_incidents(operator, wanted, as_json=options.json)


# ---- cert


def _add_cert(commands: Any) -> None:
    examples = (
        "  appliance cert                              for this machine's names and addresses\n"
        "  appliance cert --host spark.example.com --days 365\n"
        "exit codes: 0 done, 1 refused, 78 a --host or --days that cannot be"
    )
    about = "make a self-signed certificate for HTTPS, and show how clients trust it"
    parser = add_command(commands, "cert", about, examples, _cert)
    parser.add_argument("--host", action="append", default=[], dest="hosts", metavar="NAME",
                        help="a further name or address; may be given again")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: tls in the state folder")
    parser.add_argument("--days", type=int, default=825, metavar="N", help="default: 825")
    parser.add_argument("--replace", action="store_true", help="a pair that is there already")
    parser.add_argument("--state-dir", metavar="DIR", help="the appliance's state folder")


def _cert(options: argparse.Namespace) -> int:
    from appliance.selfsigned import write_cert  # cryptography takes its time to load

    folder = options.out or settings_of(options).state_dir / "tls"
    return write_cert(options.hosts, folder, options.days, replace=options.replace)


# ---- host


def _add_host(commands: Any) -> None:
    examples = (
        "  sudo appliance host install --cgroup system.slice/snapd.service\n"
        "  appliance host install --cgroup system.slice/snapd.service --dry-run\n"
        "  sudo appliance host install --cable enp1s0f0np0 --peer 192.168.100.2\n"
        "                                         a cluster: its ports for the peer alone\n"
        "  appliance host status\n"
        "  sudo appliance host remove             all is as it was before\n"
        "exit codes: 0 done, 1 refused, or status: not lent, or a port not closed"
    )
    about = "lend the appliance a few kernel files, or close a cluster's ports to all but its peer"
    parser = add_command(commands, "host", about, examples, _host)
    parser.add_argument("what", choices=("install", "remove", "status"))
    parser.add_argument(
        "--cgroup",
        action="append",
        default=[],
        metavar="NAME",
        help="below /sys/fs/cgroup; may be given again for another one",
    )
    parser.add_argument("--uid", type=int, default=UID, metavar="N", help="the container's user")
    parser.add_argument("--cable", metavar="INTERFACE", help="that leads to the other box")
    parser.add_argument("--peer", metavar="ADDRESS", help="the other box's on the cable")
    parser.add_argument("--dry-run", action="store_true", help="print the unit, change nothing")


def _host(options: argparse.Namespace) -> int:
    if options.dry_run and options.what != "install":
        raise SettingsError(
            f"host {options.what} has no --dry-run", "appliance host status looks only"
        )
    host, ports = Host(), HostPorts()
    if options.what == "install":
        _install(options, host, ports)
        return 0
    there = [part for part in (host, ports) if part.is_installed] or [host]
    if options.what == "status":
        return max([part.status(print) for part in there])
    for part in there:
        part.remove(print)
    return 0


def _install(options: argparse.Namespace, host: Host, ports: HostPorts) -> None:
    if options.cable or options.peer:
        closed = _closed(options)
        (ports.show if options.dry_run else ports.install)(closed, print)
        if not options.cgroup:
            return
    (host.show if options.dry_run else host.install)(options.cgroup, options.uid, print)


def _closed(options: argparse.Namespace) -> Closed:
    if not (options.cable and options.peer):
        raise SettingsError(
            "--cable and --peer belong together", "host install --cable INTERFACE --peer ADDRESS"
        )
    settings = settings_of(options)
    ports = (settings.cluster_port, settings.cluster_master_port)
    return checked(options.cable, options.peer, ports, picked_ports())
