"""Which code a build holds: vLLM's own CMake lists, evaluated by CMake for each box."""

import re
import subprocess
from pathlib import Path

import pytest

from unglitched_vllm.source.targets import TARGETS

_LIST = re.compile(
    r'cuda_archs_loose_intersection\(\s*(\w+)\s+"([^"$]+)"\s+"\$\{CUDA_ARCHS\}"\)', re.DOTALL
)
SUPPORTED = re.compile(r'GREATER_EQUAL 13\.0\)[^"]*?set\(CUDA_SUPPORTED_ARCHS "([^"]+)"\)')
PRODUCTION = ("MARLIN_MOE_ARCHS", "MARLIN_OTHER_ARCHS")


def evaluate(cmake: str, tree: Path, folder: Path, arch_list: str) -> dict[str, list[str]]:
    """Return what each list of vLLM's CMakeLists becomes for TORCH_CUDA_ARCH_LIST, in CUDA 13.0.

    The lists for older compilers, which name 10.1a or 12.1a, are not taken. A name that comes
    again has its number: SCALED_MM_ARCHS, SCALED_MM_ARCHS.2.
    """
    text = (tree / "CMakeLists.txt").read_text()
    supported = SUPPORTED.search(text)
    assert supported is not None
    lists: dict[str, str] = {}
    for name, archs in _LIST.findall(text):
        if not {"10.1a", "12.1a"} & set(archs.split(";")):
            times = sum(known.partition(".")[0] == name for known in lists)
            lists[f"{name}.{times + 1}" if times else name] = archs
    lines = [
        "cmake_minimum_required(VERSION 3.25)",
        "set(CMAKE_CUDA_COMPILER_VERSION 13.0.88)",
        f'include("{tree}/cmake/utils.cmake")',
        f'cuda_archs_loose_intersection(CUDA_ARCHS "{supported[1]}" "{arch_list}")',
    ]
    for at, (name, archs) in enumerate(lists.items()):
        lines.append(f'cuda_archs_loose_intersection(_{at} "{archs}" "${{CUDA_ARCHS}}")')
        lines.append(f'message("{name}=${{_{at}}}")')
    script = folder / "evaluate.cmake"
    script.write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        [cmake, "-P", str(script)], capture_output=True, text=True, check=True, timeout=60
    )
    rows = (line.partition("=") for line in done.stderr.splitlines() if "=" in line)
    return {name: [arch for arch in archs.split(";") if arch] for name, _, archs in rows}


def test_marlin_gets_code_for_thor(cmake: str, patched_tree: Path, tmp_path: Path) -> None:
    made = evaluate(cmake, patched_tree, tmp_path, TARGETS["thor"].arch_list)
    assert {name: made[name] for name in PRODUCTION} == {name: ["11.0f"] for name in PRODUCTION}


def test_the_stock_release_still_needs_0002(cmake: str, stock_tree: Path, tmp_path: Path) -> None:
    made = evaluate(cmake, stock_tree, tmp_path, TARGETS["thor"].arch_list)
    assert {name: made[name] for name in PRODUCTION} == {name: ["8.0+PTX"] for name in PRODUCTION}


def test_the_patch_changes_nothing_for_a_spark(
    cmake: str, stock_tree: Path, patched_tree: Path, tmp_path: Path
) -> None:
    stock, patched = (evaluate(cmake, t, tmp_path, "12.1") for t in (stock_tree, patched_tree))
    assert patched == stock
    assert patched["MARLIN_MOE_ARCHS"] == ["12.0f"]


def test_the_patch_changes_nothing_for_a_wheel_of_all_chips(
    cmake: str, stock_tree: Path, patched_tree: Path, tmp_path: Path
) -> None:
    every = "8.0;9.0;10.0;11.0;12.0"
    stock, patched = (evaluate(cmake, t, tmp_path, every) for t in (stock_tree, patched_tree))
    differing = {name for name in stock if set(stock[name]) - set(patched[name])}
    assert differing == set()
    assert [set(patched[name]) - set(stock[name]) for name in PRODUCTION] == [{"11.0f"}] * 2


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_kernel_is_made_for_one_chip_of_a_family(
    cmake: str, patched_tree: Path, tmp_path: Path, name: str
) -> None:
    made = evaluate(cmake, patched_tree, tmp_path, TARGETS[name].arch_list)
    assert len(made) > 20
    assert [archs for archs in made.values() if any(arch.endswith("a") for arch in archs)] == []


def test_the_check_sees_the_trap(cmake: str, patched_tree: Path, tmp_path: Path) -> None:
    made = evaluate(cmake, patched_tree, tmp_path, "12.0a")
    assert made["MARLIN_MOE_ARCHS"] == ["12.0a"]
    assert made["FP4_SM120_ARCHS"] == ["12.0a"]
