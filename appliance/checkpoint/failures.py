"""What can go wrong with a checkpoint, each with its exit code (sysexits.h numbers)."""

from appliance.errors import HostError


class CheckpointError(HostError):
    """The checkpoint is broken, hostile, or not of a kind that is understood."""

    exit_code = 65  # EX_DATAERR
    code = "checkpoint"


class SourceError(CheckpointError):
    """A source, local or remote, does not have a file or does not give all its bytes."""

    exit_code = 66  # EX_NOINPUT
    code = "checkpoint_source"


class DestinationError(CheckpointError):
    """The folder to be written is not empty, not ours, or too small."""

    exit_code = 73  # EX_CANTCREAT
    code = "checkpoint_destination"


class WriteError(CheckpointError):
    """Writing stopped half way; what is written stays, and --resume goes on."""

    exit_code = 74  # EX_IOERR
    code = "checkpoint_write"


class MaskError(CheckpointError):
    """The experts to delete are not told, or not told beyond doubt."""

    exit_code = 1
    code = "checkpoint_mask"
