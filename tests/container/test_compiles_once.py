"""All that is compiled lies on the volume: a second start compiles nothing."""

from collections.abc import Iterator

import pytest

from tests.container import world
from tests.container.world import BASE, PROJECT, docker

# torch.compile for a CPU takes minutes on two cores, and the image has to be built with a compiler.
pytestmark = [pytest.mark.container, pytest.mark.long, pytest.mark.timeout(3600)]

IMAGE = "unglitched:compiling"
BUILD_S = 1500.0
PACKAGES = "ca-certificates python3 python3-dev libnuma1 libstdc++6 g++"
# What Inductor compiled, and when. Left out is vLLM's own bundle (aotautograd/, model): the CPU
# engine of 0.32 cannot load it again ("no attribute finalize_loading"), traces the model anew, and
# writes it at each start; the kernels it then finds here, so that takes 12 s and not 41.
LISTING = (
    "find /var/lib/unglitched/cache -type f -regex '.*\\.\\(so\\|cpp\\|py\\)'"
    " -printf '%P %s %T@\\n' | sort"
)
LEAST_KERNELS = 5  # ten for the demo's model; none for an eager start


@pytest.fixture(scope="module")
def compiling(image: str) -> Iterator[str]:
    """Yield an image whose engine may compile: the demo's, with headers and g++ left in."""
    arguments = {
        "BUILD_IMAGE": BASE,
        "RUNTIME_IMAGE": BASE,
        "RUNTIME_PACKAGES": PACKAGES,
        "PYTHON_VERSION": "3.11",
        "ENGINE": "cpu",
        "TARGET": "demo",
        "TRIM": "off",
    }
    given = [
        word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")
    ]
    place = ("--file", PROJECT / "docker/Dockerfile", "--target", "demo", "--tag", IMAGE, PROJECT)
    docker("buildx", "build", "--quiet", *given, *place, within_s=BUILD_S)
    yield IMAGE
    docker("image", "rm", IMAGE)


def test_a_second_start_compiles_no_kernel_anew(compiling: str) -> None:
    env = {"DEMO_TAG": compiling, "APPLIANCE_ENFORCE_EAGER": "off"}
    with world.stack("compiles", env=env) as made:
        made.up()
        assert "enforce-eager" not in made.said("appliance", "plan", "--shell")
        first = made.said("sh", "-c", LISTING).splitlines()
        assert sum(".so " in line for line in first) >= LEAST_KERNELS, first
        made.compose("stop", within_s=world.START_S)
        made.up()
        assert made.said("sh", "-c", LISTING).splitlines() == first
