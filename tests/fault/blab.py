"""How vLLM quotes a request on its output: the forms, filled with what was asked. Pure.

The shapes are those of vLLM 0.32's logger calls, of Python's tracebacks, and of the libraries
whose exceptions quote what they were given. ``PASTED`` is what people paste into prompts.
"""

import json
from collections.abc import Mapping
from typing import Any

API = "(APIServer pid=3169) "
CORE = "(EngineCore pid=16885) ERROR 11-23 01:27:27 [core.py:1512] "
SERVING = API + "ERROR 11-23 01:27:27 [serving.py:412] "
SITE = "/usr/local/lib/python3.12/dist-packages"
FRAMES = f"""\
Traceback (most recent call last):
  File "{SITE}/vllm/entrypoints/openai/chat_completion/serving.py", line 238, in create
    conversation, prompts = await self._preprocess_chat(
                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "{SITE}/vllm/renderers/hf.py", line 97, in render"""


def headed(header: str, text: str) -> str:
    """Return ``text`` with a header on each line, as vLLM's formatter and Python's groups do."""
    return "\n".join(header + line for line in text.split("\n"))


def texts(value: Any) -> list[str]:
    """Return every string in a request."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in texts(item)]


def forms(body: str, headers: str) -> Mapping[str, str]:
    """Return what is printed of a request, by the name of the form."""
    said = texts(json.loads(body))
    plain, joined = "\n".join(said), " ".join(said)
    quoted, last = repr(body), said[-1].split()[-1]
    return {
        "log requests": headed(
            API + "INFO 11-23 01:27:27 [logger.py:39] ",
            f"Received request chatcmpl-1: params: SamplingParams(n=1), prompt: {joined}\n"
            f"Generated response chatcmpl-1: output: {plain}",
        )
        + f'\n{API}INFO:     127.0.0.1:41536 - "POST /v1/chat/completions?q={last} HTTP/1.1"'
        " 200 OK",
        "bare": f"{body}\n{plain}\n{quoted}\n{headers}",
        "validation": headed(
            SERVING,
            f"Error in preprocessing prompt inputs\n{FRAMES}\n"
            "pydantic_core._pydantic_core.ValidationError: 2 validation errors for Request\n"
            "messages.0.content.str\n"
            f"  Input should be a valid string [type=string_type, input_value={quoted}]\n"
            f"    For further information visit https://errors.pydantic.dev/{last}",
        ),
        "template": (
            f"ERROR:    Exception in ASGI application\n{FRAMES}\n"
            f"    raise TemplateError(message)\n"
            f"jinja2.exceptions.TemplateError: no role for {joined}\n{plain}\n\n"
            "The above exception was the direct cause of the following exception:\n\n"
            f"{FRAMES}\nValueError: {plain}"
        ),
        "image": "\n".join(
            headed(
                f"{API}ERROR 11-23 01:27:27 [connection.py:71] ",
                f"cannot fetch {text}\n{FRAMES}\n"
                f"aiohttp.client_exceptions.ClientResponseError: 404, url='{text}'",
            )
            for text in said
        ),
        "file": "\n".join(
            f"{FRAMES}\nFileNotFoundError: [Errno 2] No such file or directory: {text!r}\n"
            + headed(CORE, f"RuntimeError: cannot open {text}\nopen {text} failed")
            for text in said
        ),
        "dump": (
            f"{CORE.replace('core.py:1512', 'dump_input.py:72')}Dumping input data for V1 LLM "
            f"engine (v0.32.0) with config: model='/models/x', prompt={quoted}\n"
            + headed(
                CORE,
                "EngineCore encountered a fatal error.\n"
                f"Dumping scheduler output: SchedulerOutput(new=[NewRequestData(prompt={quoted}\n"
                f"{FRAMES}\nAssertionError: {plain}",
            )
        ),
        "tool parser": headed(
            f"{API}ERROR 11-23 01:27:27 [minimax_m2_tool_parser.py:88] ",
            f"Error in extracting tool call from response: {plain}\n{FRAMES}\n"
            f"json.decoder.JSONDecodeError: Expecting value: {quoted}: line 1 column 1 (char 0)",
        ),
        "task": (
            "Task exception was never retrieved\n"
            f"future: <Task finished name='Task-3' coro=<handle()> "
            f"exception=ValueError({quoted})>\n"
            f"{FRAMES}\nKeyError: {said[-1]!r}\n"
            + "  + Exception Group Traceback (most recent call last):\n"
            + headed("  | ", f"ExceptionGroup: unhandled errors ({joined})")
            + "\n  +-+---------------- 1 ----------------\n"
            + headed("    | ", f"{FRAMES}\nValueError: {plain}")
            + "\n    +------------------------------------"
        ),
    }


def pasted(word: str) -> str:
    """Return a prompt as people write it, with a traceback of their own in it."""
    return (
        f"please mend {word}, it says\nTraceback (most recent call last):\n"
        f'  File "/home/User/{word}.py", line 3, in {word}\n    {word}()\n'
        f"{word}.{word.capitalize()}Error: {word} at {word}"
    )
