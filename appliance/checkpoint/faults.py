"""What can go wrong with a server, each with its exit code and what to type next."""

from appliance.checkpoint.failures import SourceError


class RemoteError(SourceError):
    """A server gave something else than what was asked, and asking again does not help."""

    exit_code = 76  # EX_PROTOCOL
    code = "remote"


class Unreachable(RemoteError):
    """A server did not answer, or not to the end, for as long as we have patience."""

    exit_code = 75  # EX_TEMPFAIL: the same command may work later
    code = "remote_unreachable"


class NotAllowed(RemoteError):
    """The server wants a token, or another one, or a licence to be accepted."""

    exit_code = 77  # EX_NOPERM
    code = "remote_not_allowed"


class NotThere(RemoteError):
    """The server knows no such repository, revision or file."""

    exit_code = 66  # EX_NOINPUT
    code = "remote_not_there"


class FileChanged(RemoteError):
    """A file is not the one any more of which the first bytes were read."""

    code = "remote_changed"


class NoRanges(RemoteError):
    """The server sends whole files alone, and a part of a large one was asked for."""

    code = "remote_no_ranges"


class Hostile(RemoteError):
    """A server, or a repository, asks for what no honest one needs: nothing of it is taken."""

    exit_code = 65  # EX_DATAERR
    code = "remote_hostile"


class Passing(Exception):
    """A failure that may pass by itself: asked again, after ``retry_after_s`` at the earliest."""

    def __init__(self, what: str, retry_after_s: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.retry_after_s = retry_after_s
