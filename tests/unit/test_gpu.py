"""What a GPU tells, of a made-up nvidia-smi, made-up sensors and a made-up log of the kernel."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.gpu import DriverLog, Gpu, parse_gpus, read_gpus, read_sensors

NVRM = (
    b"4,901,5123456,-;NVRM: nvCheckOkFailedNoLog: Check failed: Out of memory "
    b"[NV_ERR_NO_MEMORY] (0x00000051) returned from memdescAlloc\n"
)
OTHER = b"6,900,5123000,-;NVRM: loading NVIDIA UNIX Open Kernel Module\n SUBSYSTEM=pci\n"
DISK = b"3,902,5123457,-;ext4: NO_MEMORY is no driver of a GPU\n"


def program(folder: Path, body: str) -> str:
    path = folder / "smi"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        file = root / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def jetson(classes: Path) -> None:
    """The folders of a Thor, as its documents and its users describe them."""
    write(classes, hwmon__hwmon0__name="tmp451\n", hwmon__hwmon0__in1_label="VIN\n")
    rails = {"in1_label": "VDD_GPU\n", "in1_input": "4992\n", "curr1_input": "2000\n"}
    rails |= {"in2_label": "VDD_CPU\n", "in2_input": "4992\n", "curr2_input": "900\n"}
    write(classes, **{f"hwmon__hwmon3__{name}": text for name, text in rails.items()})
    write(classes, thermal__thermal_zone0__type="cpu-thermal\n", thermal__thermal_zone0__temp="9\n")
    write(classes, thermal__thermal_zone1__type="gpu-thermal\n")
    write(classes, thermal__thermal_zone1__temp="41531\n")
    (classes / "devfreq" / "gpu-gpc-0").mkdir(parents=True)
    (classes / "devfreq" / "gpu-gpc-0" / "cur_freq").write_text("1575000000\n")
    (classes / "devfreq" / "gpu-nvd-0").mkdir()
    (classes / "devfreq" / "gpu-nvd-0" / "cur_freq").write_text("7\n")


THOR = Gpu(power_w=9.984, clock_hz=1.575e9, temperature_c=41.531)


# ---- nvidia-smi


@pytest.mark.parametrize(
    ("text", "gpus"),
    [
        (b"0, 27.53, 208, 45\n", {"0": Gpu(27.53, 208e6, 45.0)}),
        (b"3, 1, 2, 3\n1, 30, 1980, 50\n", {"3": Gpu(1.0, 2e6, 3.0), "1": Gpu(30.0, 1.98e9, 50.0)}),
        (b"0, [N/A], 1575, [Unknown Error]\n", {"0": Gpu(None, 1.575e9, None)}),
        (b"0, nan, inf, -1\n", {"0": Gpu(None, None, -1.0)}),
        (b"No devices were found\n", {}),
        (b"0, 27.53, 208\n, 1, 2, 3\n", {}),
        (b"", {}),
    ],
)
def test_nvidia_smi_s_figures_are_in_base_units(text: bytes, gpus: dict[str, Gpu]) -> None:
    assert parse_gpus(text) == gpus


@given(st.binary())
def test_no_output_breaks_the_reader(text: bytes) -> None:
    parse_gpus(text)
    parse_gpus(b"0, " + text)


def test_the_program_is_asked_once_for_all_it_tells(tmp_path: Path) -> None:
    asked = "--query-gpu=index,power.draw,clocks.sm,temperature.gpu --format=csv,noheader,nounits"
    smi = program(tmp_path, f'test "$*" = "{asked}" && echo 0, 27.5, 208, 45')
    assert read_gpus(smi, tmp_path) == {"0": Gpu(27.5, 208e6, 45.0)}


@pytest.mark.parametrize("body", ["exit 9", "echo 0, 1, 2, 3; exit 9", "echo 0, [N/A], [N/A], -"])
def test_a_gpu_that_tells_nothing_is_none(tmp_path: Path, body: str) -> None:
    assert read_gpus(program(tmp_path, body), tmp_path) == {}


# ---- sensors


def test_a_jetson_s_sensors_are_in_base_units(tmp_path: Path) -> None:
    jetson(tmp_path)
    assert read_sensors(tmp_path) == THOR


def test_sensors_tell_what_nvidia_smi_does_not(tmp_path: Path) -> None:
    jetson(tmp_path / "class")
    partly = program(tmp_path, "echo '0, [N/A], 1200, [N/A]'")
    assert read_gpus(partly, tmp_path / "class") == {"0": Gpu(9.984, 1.2e9, 41.531)}
    assert read_gpus("/nowhere/nvidia-smi", tmp_path / "class") == {"0": THOR}


def test_a_figure_of_0_is_a_figure(tmp_path: Path) -> None:
    jetson(tmp_path / "class")
    off = program(tmp_path, "echo 0, 0.0, 0, 0")
    assert read_gpus(off, tmp_path / "class") == {"0": Gpu(0.0, 0.0, 0.0)}


def test_sensors_of_one_gpu_are_not_those_of_two(tmp_path: Path) -> None:
    jetson(tmp_path / "class")
    two = program(tmp_path, "echo '0, [N/A], 1, 2'; echo '1, 3, 4, 5'")
    assert read_gpus(two, tmp_path / "class")["0"].power_w is None


def test_a_sensor_that_is_switched_off_tells_no_temperature(tmp_path: Path) -> None:
    jetson(tmp_path)
    (tmp_path / "thermal" / "thermal_zone1" / "temp").write_text("-256000\n")
    assert read_sensors(tmp_path).temperature_c is None


@pytest.mark.parametrize("text", ["", "x\n", "nan\n"])
def test_a_sensor_that_tells_garbage_tells_nothing(tmp_path: Path, text: str) -> None:
    jetson(tmp_path)
    for file in ("hwmon/hwmon3/curr1_input", "thermal/thermal_zone1/temp"):
        (tmp_path / file).write_text(text)
    (tmp_path / "devfreq" / "gpu-gpc-0" / "cur_freq").write_text(text)
    (tmp_path / "devfreq" / "gpu-nvd-0" / "cur_freq").unlink()
    assert read_sensors(tmp_path) == Gpu()


def test_a_machine_without_sensors_tells_nothing(tmp_path: Path) -> None:
    assert read_sensors(tmp_path / "none") == Gpu()


# ---- the driver's complaints


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[int]:
    """The end to write of a made-up /dev/kmsg."""
    os.mkfifo(tmp_path / "kmsg")
    end = os.open(tmp_path / "kmsg", os.O_RDWR)
    yield end
    os.close(end)


def test_lines_of_no_memory_are_counted_as_they_come(tmp_path: Path, pipe: int) -> None:
    with closing(DriverLog(tmp_path / "kmsg")) as log:
        assert log.count is None
        os.write(pipe, OTHER + NVRM + DISK + NVRM)
        log.read()
        assert log.count == 2
        log.read()
        assert log.count == 2
        os.write(pipe, DISK + NVRM)
        log.read()
        assert log.count == 3


def test_a_quiet_log_has_none_and_that_is_known(tmp_path: Path, pipe: int) -> None:
    with closing(DriverLog(tmp_path / "kmsg")) as log:
        log.read()
        assert log.count == 0


def test_a_log_that_cannot_be_read_has_no_count_and_is_tried_again(tmp_path: Path) -> None:
    with closing(DriverLog(tmp_path / "kmsg")) as log:
        log.read()
        assert log.count is None
        (tmp_path / "kmsg").write_bytes(NVRM)
        log.read()
        assert log.count == 1


def test_a_folder_in_its_place_is_an_empty_log(tmp_path: Path) -> None:
    with closing(DriverLog(tmp_path)) as log:
        log.read()
        assert log.count == 0


def test_a_log_is_closed_but_once(tmp_path: Path, pipe: int) -> None:
    log = DriverLog(tmp_path / "kmsg")
    log.read()
    before = set(os.listdir("/proc/self/fd"))
    log.close()
    assert len(before) - len(set(os.listdir("/proc/self/fd"))) == 1
    log.close()


def test_this_machine_s_log_is_counted_where_it_may_be_read() -> None:
    with closing(DriverLog(Path("/dev/kmsg"))) as log:
        log.read()
        try:
            os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
        except OSError:
            assert log.count is None
        else:
            assert log.count is not None
