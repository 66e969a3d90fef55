"""What the doctor thinks of the engine's tokenizer. Pure."""

from appliance.doctor.row import Row, Unseen, ok, warn
from appliance.tokenizerdrift import Drift


def tokenizer_row(drift: Drift | Unseen) -> Row:
    """Return whether the engine reads paths as its tokenizer.json says."""
    if isinstance(drift, Unseen):
        return warn("tokenizer", drift.why, drift.next)
    if drift.is_drifted:
        return warn("tokenizer", drift.what, drift.cure)
    return ok("tokenizer", drift.what)
