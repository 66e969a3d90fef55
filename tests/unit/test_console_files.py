"""The console's files: small, parsed by a browser as they are, and from nowhere else."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CONSOLE = Path(__file__).parents[2] / "appliance" / "console"
FILES = sorted(CONSOLE.iterdir())
MODULES = [path for path in FILES if path.suffix == ".js"]
INDEX = (CONSOLE / "index.html").read_text()
NAMED = re.compile(r"""(?:from\s+|import\s+)["']\./([\w.]+)["']|/console/([\w.]+)""")
SVG = "http://www.w3.org/2000/svg"


def name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_at_most_400_lines_and_names_no_other_site(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 400
    assert not re.findall(r"https?://[^\s\"'`)]+", text.replace(SVG, ""))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_is_sound(path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node")
    checked = subprocess.run([node, "--check", path], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_a_module_writes_text_and_no_markup(path: Path) -> None:
    text = path.read_text()
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in text


def test_every_file_is_used_and_every_file_used_is_there() -> None:
    used = {"index.html"}
    for path in FILES:
        used |= {first or second for first, second in NAMED.findall(path.read_text())}
    assert used == {path.name for path in FILES}


def test_the_page_has_no_inline_script_and_no_inline_style() -> None:
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", INDEX)
    assert re.findall(r"<script[^>]*>", INDEX) == ['<script type="module" src="/console/main.js">']


def test_every_id_that_a_module_asks_for_is_in_the_page() -> None:
    there = re.findall(r'\sid="([\w-]+)"', INDEX)
    assert len(there) == len(set(there))
    for path in MODULES:
        asked = re.findall(r'(?:byId|tile)\("([\w-]+)"', path.read_text())
        assert set(asked) <= set(there), path.name
