"""The README's settings table is the settings' own documentation. UPDATE_GOLDEN=1 rewrites it."""

import os
import re

from appliance.fieldtypes import is_size
from appliance.settings import PREFIX, SECRETS, Settings
from appliance.sizes import format_size
from tests.engines import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- settings table -->\n", "<!-- end of settings table -->\n"


def table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.default
        if default is None:
            shown = (
                "generated" if name in ("api_key", "operator_key") else "profile, or the engine's"
            )
            unset = (
                "engine_url",
                "engine_key",
                "prompt_file",
                "idle_stop_after_s",
                "tls_cert",
                "tls_key",
                "client_keys",
                "thinking_budget",
            )
            shown = "none" if name in unset else shown
        elif isinstance(default, bool):
            shown = "on" if default else "off"
        elif isinstance(default, tuple):
            shown = " ".join(map(str, default)) or "none"
        elif is_size(field):
            shown = format_size(default)
        else:
            shown = str(default) if default != {} else "profile"
        rows.append(f"| `{PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(rows) + "\n"


def test_the_readmes_table_is_the_settings_own() -> None:
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    old, mark, tail = rest.partition(END)
    assert mark, "the README has lost the marks around its settings table"
    if os.environ.get("UPDATE_GOLDEN"):
        README.write_text(head + BEGIN + table() + END + tail, encoding="utf-8")
        return
    assert old == table()


def test_every_variable_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"APPLIANCE_[A-Z_]+", README.read_text(encoding="utf-8")))
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS} | {f"{PREFIX}CONFIG", PREFIX}
    assert named <= known
