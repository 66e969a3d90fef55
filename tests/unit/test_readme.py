"""The README's tables are the code's own documentation. UPDATE_GOLDEN=1 rewrites them."""

import os
import re

import pytest

from appliance.diagnosis import CAUSES, ENGINE_KILLED
from appliance.fieldtypes import is_size
from appliance.settings import PREFIX, SECRETS, Settings
from appliance.sizes import format_size
from tests.engines import ROOT

README = ROOT / "README.md"


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


def diagnoses() -> str:
    rows = ["| reason | what it means | type |", "|---|---|---|"]
    causes = {cause.code: cause for cause in (*CAUSES, ENGINE_KILLED)}
    rows += [f"| `{code}` | {cause.what} | {cause.hint} |" for code, cause in causes.items()]
    return "\n".join(row.replace(" | grep", " \\| grep") for row in rows) + "\n"


@pytest.mark.parametrize(
    ("name", "made"),
    [("settings", table()), ("diagnosis", diagnoses())],
    ids=["settings", "diagnosis"],
)
def test_a_table_of_the_readme_is_the_codes_own(name: str, made: str) -> None:
    begin, end = f"<!-- {name} table -->\n", f"<!-- end of {name} table -->\n"
    text = README.read_text(encoding="utf-8")
    head, _, rest = text.partition(begin)
    old, mark, tail = rest.partition(end)
    assert mark, f"the README has lost the marks around its {name} table"
    if os.environ.get("UPDATE_GOLDEN"):
        README.write_text(head + begin + made + end + tail, encoding="utf-8")
        return
    assert old == made


def test_every_variable_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"APPLIANCE_[A-Z_]+", README.read_text(encoding="utf-8")))
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {f"{PREFIX}{name.upper()}_FILE" for name in SECRETS} | {f"{PREFIX}CONFIG", PREFIX}
    assert named <= known
