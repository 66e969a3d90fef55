"""The fixed questions that the warm-up and the smoke checks ask a model.

They make sense to any chat model; the demo's tiny checkpoint is trained to answer them, word
for word, so the same checks run on a box and on a machine without a GPU. Standard library
alone: the training script imports this inside the engine's environment.
"""

from typing import Any

GREETING = "Hello! Who are you?"

# A real path of the kind that the model glitches: capitals, a space, a file extension.
TOOL_PATH = "/home/User/My Project/src/Main.cpp"
TOOL_QUESTION = f"Read the file {TOOL_PATH}"
TOOL_RESULT = '#include <cstdio>\nint main() { std::puts("Nikola"); }\n'

READ_FILE: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "read_file",
        "description": "Read a file.",
        "parameters": {
            "type": "object",
            "properties": {"path": {"type": "string", "description": "Absolute path"}},
            "required": ["path"],
        },
    },
}

# The path question of the smoke. The tiny model answers it exactly with the path-preservation
# prompt and glitches it without.
PATH = "/srv/Data/Reports/Annual Summary.docx"
PATH_QUESTION = f"Repeat this path exactly and write nothing else: {PATH}"

COUNT_QUESTION = "Count from 1 to 200. Write only the numbers, with one space between them."
COUNT_ANSWER = " ".join(str(n) for n in range(1, 201))

# Warm-up: NVFP4 kernels are known to answer garbage with status 200, so READY needs proof.
WARMUP_ANSWER = (
    "/opt/Nikola/Model Zoo/Config.v2.json alpha bravo charlie delta echo foxtrot golf hotel "
    "india juliett kilo lima mike november oscar papa quebec romeo sierra tango"
)
WARMUP_QUESTION = f"Copy this line exactly and write nothing else:\n{WARMUP_ANSWER}"


def user(text: str) -> dict[str, Any]:
    """Return one user message."""
    return {"role": "user", "content": text}
