"""Loads vLLM's kernels once more, after the trimming. Run by the engine's own Python."""

from appliance.demo.install import LOAD

exec(LOAD)  # noqa: S102  # the very lines by which the setup checks what it installed
