"""What the doctor thinks of the host: GPU, clock, desktop, swap, earlyoom, disks. Pure."""

from collections.abc import Iterator
from datetime import UTC, datetime

from appliance.doctor.machinefacts import Card, Clock, Disk, Gpus
from appliance.doctor.row import Row, Unseen, fail, ok, warn
from appliance.facts import HostFacts
from appliance.overheads import GIB
from appliance.settings import Settings
from appliance.sizes import format_size

BOXES = {"spark": ("NVIDIA DGX Spark", "12.1"), "thor": ("NVIDIA Jetson AGX Thor", "11.0")}
ARCHITECTURES = {"spark": ("aarch64",), "thor": ("aarch64",), "demo": ("aarch64", "x86_64")}
OLDEST_DRIVER = 580  # of CUDA 13.0, which both boxes' engines are compiled for
CAPPED_MHZ = 2200.0  # shutdowns under load ended below it, and it cost no speed (eugr, Spark)
# An image, and its layers once more while it is built. Measured for the demo alone.
IMAGE_BYTES = {"spark": 40 * GIB, "thor": 40 * GIB, "demo": 6 * GIB}
CHECKPOINT_BYTES = 96 * GIB  # 102.8 GB, computed from the 192 experts that are left
STATE_BYTES = GIB  # kernels that were compiled, incidents
WRITTEN = datetime(2026, 11, 1, tzinfo=UTC)  # no right clock is before this program


def host_rows(settings: Settings, host: HostFacts | Unseen) -> Iterator[Row]:
    """Yield what there is to say of the machine itself."""
    if isinstance(host, Unseen):
        yield fail("host", host.why, host.next)
        return
    yield architecture_row(settings, host)
    yield desktop_row(settings, host)
    yield swap_row(settings, host)
    yield earlyoom_row(settings, host)


def architecture_row(settings: Settings, host: HostFacts) -> Row:
    """Return whether this is the profile's machine."""
    wanted = ARCHITECTURES.get(settings.profile, (host.machine,))
    if host.machine in wanted:
        return ok("architecture", host.machine)
    return fail(
        "architecture",
        f"{host.machine}; profile {settings.profile} is for {' or '.join(wanted)}",
        "name this machine's profile: --profile demo runs on any",
    )


def gpu_rows(settings: Settings, gpus: Gpus | Unseen) -> Iterator[Row]:
    """Yield the GPU, its driver, and on a Spark its clock's cap."""
    if settings.profile not in BOXES:
        yield ok("gpu", f"profile {settings.profile} needs none")
        return
    if isinstance(gpus, Unseen) or not gpus.cards:
        yield fail("gpu", gpus.why, "install NVIDIA's driver; nvidia-smi must name the GPU")
        return
    card = gpus.cards[0]
    box, capability = BOXES[settings.profile]
    value = f"{card.name}, compute capability {card.capability}"
    if card.capability == capability:
        yield ok("gpu", value)
    else:
        other = f"{value}; profile {settings.profile} is for {capability}, a {box}"
        yield warn("gpu", other, "name this machine's profile: --profile")
    yield _driver_row(card)
    if settings.profile == "spark":
        yield _cap_row(card)


def _driver_row(card: Card) -> Row:
    major = card.driver.partition(".")[0]
    if not major.isdecimal():
        return warn("driver", f"nvidia-smi says {card.driver!r}", "nvidia-smi")
    if int(major) < OLDEST_DRIVER:
        value = f"{card.driver}; CUDA 13 needs {OLDEST_DRIVER} or newer"
        return fail("driver", value, "update the system, and reboot")
    return ok("driver", card.driver)


def _cap_row(card: Card) -> Row:
    hint = "sudo nvidia-smi -lgc 200,2150"
    if card.clock_mhz is None:
        return warn("clock cap", "nvidia-smi tells no clock", hint)
    most = "" if card.max_clock_mhz is None else f" of {card.max_clock_mhz:.0f}"
    value = f"{card.clock_mhz:.0f}{most} MHz now"
    if card.max_clock_mhz is not None and card.max_clock_mhz <= CAPPED_MHZ:
        return ok("clock cap", value)
    if card.clock_mhz > CAPPED_MHZ:
        return warn("clock cap", f"{value}: no cap; boxes went off under load above it", hint)
    # the driver tells no cap, and an idle GPU is below any
    return ok("clock cap", f"{value}; whether it is capped shows under load alone", hint)


def desktop_row(settings: Settings, host: HostFacts) -> Row:
    """Return whether a desktop takes memory."""
    if not host.desktop:
        return ok("desktop", "none runs")
    value = ", ".join(host.desktop)
    if settings.profile not in BOXES:
        return ok("desktop", value)
    return warn(
        "desktop",
        f"runs, takes memory, and grows: {value}",
        "sudo systemctl isolate multi-user.target; for good: set-default instead of isolate",
    )


def swap_row(settings: Settings, host: HostFacts) -> Row:
    """Return whether cold pages have somewhere to go."""
    real = [device for device in host.swap if device.kind != "zram"]
    shown = ", ".join(f"{d.name} {format_size(d.size_bytes)} ({d.kind})" for d in host.swap)
    if real:
        return ok("swap", shown)
    if settings.profile not in BOXES:
        return ok("swap", shown or "none, and none is needed")
    add = (
        "sudo fallocate -l 16G /swap.img && sudo chmod 600 /swap.img && sudo mkswap /swap.img "
        "&& sudo swapon /swap.img"
    )
    if shown:
        return warn("swap", f"{shown}: zram takes the very memory that is short", add)
    return warn("swap", "none: nothing can be pushed out before a start", add)


def earlyoom_row(settings: Settings, host: HostFacts) -> Row:
    """Return whether another killer comes before the appliance's guards."""
    killer = host.earlyoom
    if killer is None:
        return ok("earlyoom", "does not run")
    value = f"ends processes below {format_size(killer.term_bytes)} available"
    if killer.swap_percent < 100:
        value += f", once no more than {killer.swap_percent} % of the swap is free"
    if killer.term_bytes < settings.memory_kill_floor:
        return ok("earlyoom", value)
    return warn(
        "earlyoom",
        f"{value}: before the appliance ends its engine in order, at "
        f"{format_size(settings.memory_kill_floor)}",
        "sudo systemctl disable --now earlyoom",
    )


def clock_row(clock: Clock | Unseen) -> Row:
    """Return whether the time is right: certificates and incidents go by it."""
    if isinstance(clock, Unseen):
        return warn("clock", clock.why, "timedatectl")
    value = f"{clock.now:%Y-%m-%d %H:%M} UTC"
    if clock.now < WRITTEN:
        return fail("clock", f"{value} is in the past", "sudo timedatectl set-ntp true")
    if clock.is_synchronized is None:
        return ok("clock", f"{value}; nobody tells whether it is kept right")
    if clock.is_synchronized:
        return ok("clock", f"{value}, synchronized")
    return warn("clock", f"{value}, not synchronized", "sudo timedatectl set-ntp true")


def disk_row(name: str, disk: Disk | Unseen, needed_bytes: int, what: str, *, hard: bool) -> Row:
    """Return whether there is room; ``what`` says for what it is, ``hard`` if nothing goes on."""
    if isinstance(disk, Unseen):
        return warn(name, disk.why, "df -h")
    value = f"{format_size(disk.free_bytes)} free at {disk.path}"
    if disk.free_bytes >= needed_bytes:
        return ok(name, value)
    level = fail if hard else warn
    return level(name, f"{value}; {format_size(needed_bytes)} are needed for {what}", "df -h")
