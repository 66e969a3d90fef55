"""What the commands share: how one is added, and the flags that stand for settings."""

import argparse
from collections.abc import Callable
from typing import Any

from appliance.settings import Settings, load_settings


def add_command(
    commands: Any, name: str, about: str, examples: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command that ``run`` carries out; its help teaches by example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=run)
    return parser


def add_settings_flags(parser: argparse.ArgumentParser) -> None:
    """Add the most used settings as flags."""
    group = parser.add_argument_group("settings", "the most used; all others are variables")
    group.add_argument("--profile", metavar="BOX", help="spark, thor or demo")
    group.add_argument("--model-dir", metavar="DIR", help="the checkpoint's folder")
    group.add_argument("--host", metavar="ADDRESS", help="address to listen on")
    group.add_argument("--port", metavar="N", help="port to listen on; 0 picks a free one")
    group.add_argument("--state-dir", metavar="DIR", help="folder for keys, socket and lock")


def add_operator_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name an appliance to an operator's command."""
    parser.add_argument("--url", help="of a remote appliance; default: the control socket")
    parser.add_argument("--key", help="operator key for --url")
    parser.add_argument("--state-dir", metavar="DIR", help="the appliance's state folder")
    parser.add_argument("--json", action="store_true", help="for programs")


def add_force(parser: argparse.ArgumentParser) -> None:
    """Add the flag that overrides the memory plan."""
    parser.add_argument(
        "--force",
        action="store_true",
        help="take a memory plan that its own floors refuse; the guards must be on",
    )


def flags_of(options: argparse.Namespace) -> dict[str, str]:
    """Return the settings that were given as flags."""
    names = ("profile", "model_dir", "host", "port", "state_dir")
    given = {name: getattr(options, name, None) for name in names}
    given["memory_force"] = "on" if getattr(options, "force", False) else None
    return {name: value for name, value in given.items() if value}


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings in force, the flags above all. Raises SettingsError."""
    return load_settings(overrides=flags_of(options))
