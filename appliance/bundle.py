"""``appliance bundle``: the page for support, from an appliance that runs or one that does not."""

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from appliance.accept.anonymous import hide_all
from appliance.accept.box import Box
from appliance.accept.gather import gather, who
from appliance.accept.page import page
from appliance.accept.report import make_report
from appliance.accept.run import look_here, now, read_doctor
from appliance.bench.journal import write_whole
from appliance.commandline import add_command, settings_of
from appliance.errors import ApplianceError, HostError
from appliance.settings import Settings

OUT = Path("bundle.html")
EXAMPLES = """\
  appliance bundle                               of the appliance of this state folder
  appliance bundle --out support.html            and support.json, for programs
  appliance bundle --url http://spark.local:9000 --key OPERATOR_KEY
it works without a running appliance too: its state folder, the doctor and the incidents tell
what is in it: state, memory plan, doctor, settings, incidents, metrics, the engine's last lines
what is not: keys, prompts, answers, names of hosts, users and folders, addresses, serials
exit codes: 0 written, 1 it could not be written, 78 a wrong setting"""


def add_bundle_command(commands: Any) -> None:
    """Add ``appliance bundle``."""
    about = "write one page about the appliance for support, without a secret in it"
    parser = add_command(commands, "bundle", about, EXAMPLES, _bundle)
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help=f"default: {OUT}")
    parser.add_argument("--doctor", metavar="FILE",
                        help="appliance doctor --json of the host; - is stdin")  # fmt: skip
    parser.add_argument("--url", help="of a remote appliance; default: the control socket")
    parser.add_argument("--key", help="operator key for --url")
    parser.add_argument("--state-dir", metavar="DIR", help="the appliance's state folder")


def _bundle(options: argparse.Namespace) -> int:
    return write_bundle(options, settings_of(options))


def write_bundle(options: argparse.Namespace, settings: Settings) -> int:
    """Write the page and its data; say what is in them, and what to look at before sending.

    Raises HostError where they cannot be written.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    box = Box.of(settings, options.url, options.key, "")
    with console.status("bundle: asking the appliance"):
        evidence = gather(box)
    with console.status("bundle: looking at the host"):
        doctor = _doctor(box, options.doctor)
    tree = hide_all(make_report("bundle", now(), {}, evidence, doctor), who(box))
    out: Path = options.out
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        data = out.with_suffix(".json")
        write_whole(data, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
        write_whole(out, page(tree))
    except OSError as cause:
        raise HostError(
            f"{out} cannot be written: {cause}", "write elsewhere: --out FILE"
        ) from cause
    source = "the running appliance" if evidence["answers"] else "its state folder: nobody answers"
    console.print(f"bundle: {out} and {data.name}, from {source}")
    console.print(f"  in it: {_inside(tree)}")
    console.print("  hidden: keys, names of hosts, users and folders, addresses, serials")
    console.print("  look before you send it: the incidents and the log, for words of your own")
    return 0


def _doctor(box: Box, file: str | None) -> Any:
    if file:
        return read_doctor(file)
    if not box.is_here:
        return ()
    try:
        return look_here(box)
    except ApplianceError as error:  # a wrong setting is what a bundle is made for
        return [{"name": "settings", "level": "fail", "value": error.what, "next": error.hint}]


def _inside(tree: dict[str, Any]) -> str:
    parts = {
        "state": tree.get("status"),
        "memory plan": tree.get("memory"),
        f"{len(tree.get('doctor') or ())} doctor rows": tree.get("doctor"),
        f"{len(tree.get('settings') or ())} settings": tree.get("settings"),
        f"{len(tree.get('incidents') or ())} incidents": tree.get("incidents"),
        f"{len(tree.get('metrics') or ())} metrics": tree.get("metrics"),
        f"{len(tree.get('log') or ())} log lines": tree.get("log"),
    }
    return ", ".join(name for name, there in parts.items() if there)
