"""The one gate between the engine's lines and whoever shows or keeps them. Pure.

No pattern recognises every prompt. So while requests are served the gate is an allow-list: what
is not known to be vLLM's own words is hidden, and the line's place in the source stays.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

HIDDEN = "(hidden)"
HIDDEN_LINE = "(hidden line)"

# ---- always hidden, in debugging too

_TERMINAL = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0a-\x1f\x7f]"
)
# A key's value is a list, or quoted, or one word; a clipped line may lack the closing mark.
_SECRETS = (
    (re.compile(r"(?i)(bearer\s+)[^\s'\"]+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)((?:api[-_ ]?key|token|secret|password|authorization)['\"]?\s*[=:]\s*)"
            r"(?:\[[^\]]*(?:\]|$)|'[^']*(?:'|$)|\"[^\"]*(?:\"|$)|[^\s'\",\]}]+)"
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b(?:hf_|sk[-_])[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^\s/?#'\"@]*@"), rf"\1{HIDDEN}@"),
)


def redact(line: str, secrets: Iterable[str] = ()) -> str:
    """Return ``line`` without terminal codes, ``secrets``, and whatever looks like a key."""
    line = _TERMINAL.sub("", line)
    # the longest first: of two secrets, one may begin with the other
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        line = line.replace(secret, HIDDEN)
    for pattern, shown in _SECRETS:
        line = pattern.sub(shown, line)
    return line


# ---- vLLM's own words (0.32, 0.33)

_TAG = r"(?:\([\w.:-]+ pid=\d+\) )"
_HEADER = re.compile(
    rf"{_TAG}?(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d"
    r" \[(?:[\w.]+/)*(?P<file>[\w.]+):\d+\] ?"
)
# Modules of the engine's side. Read in the source: their messages hold sizes, times and names of
# our own, never a request's content. What handles requests (parsers, renderers, routes) logs the
# model's text unquoted, over several lines, a traceback in it looking like its own: it is not
# here, nor is a name that several modules share.
_ENGINE_FILES = frozenset(
    f"{name}.py"
    for name in (
        *("loggers", "launcher", "multiproc_executor", "core", "worker_base", "shm_broadcast"),
        *("gpu_worker", "gpu_model_runner", "cpu_worker", "cpu_model_runner", "jit_monitor"),
        *("kv_cache_utils", "kv_cache_manager", "block_pool", "parallel_state"),
        *("backends", "monitor", "decorators"),
    )
)
# These pass whole, from any module: words, then numbers.
_SHAPES = re.compile(
    r"Engine \d+: (?:[A-Z][\w ]*: [\d.,]+%?(?: [a-z]+(?:/s)?)?(?:, |$))+"
    r"|\[shutdown\] [A-Z][A-Za-z ]+: [a-z][A-Za-z ;-]*(?: [a-z]+=[\w.-]+)*"
)
_BAR = re.compile(
    r"(?:(?:Multi-thread )?[Ll]oading (?:safetensors|pt|np_cache)?(?: ?checkpoint)? ?shards"
    r"|Loading safetensors using [A-Z][A-Za-z]+(?: [A-Z][a-z]+)* loader"
    r"|Capturing (?:[a-z-]+ )*CUDA graphs(?: \([A-Za-z_, -]+\))?"
    r"|(?:DeepGEMM|JIT kernel) warmup(?: \(\d+ compile keys\))?)"
    r": +\d{1,3}%(?: Completed \||\|[ █▏▎▍▌▋▊▉#]*\|) *\d+/\d+ \[[\d:<?, a-z/.]+\] *"
)
_ACCESS = re.compile(
    rf"(?P<head>{_TAG}?INFO: +[\da-fA-F.:\[\]]+ - \"[A-Z]+ )(?P<route>[^\s?#\"]*)[^\s\"]*"
    r"(?P<tail> HTTP/[\d.]+\" \d{3}(?: [A-Z][A-Za-z -]*)?)"
)
_ROUTE = re.compile(r"/[\w./-]*")
_SERVER = re.compile(
    rf"{_TAG}?(?:(?:INFO|WARNING|ERROR): +(?:(?:Started|Finished) server process \[\d+\]"
    r"|Waiting for application (?:startup|shutdown)\."
    r"|Application (?:startup|shutdown) (?:complete|failed)\.(?: Exiting\.)?|Shutting down"
    r"|Waiting for (?:connections to close|background tasks to complete)\."
    r" \(CTRL\+C to force quit\)|Exception in ASGI application|Invalid HTTP request received\.)"
    r"|Process [A-Z][A-Za-z]*(?:_[A-Z]+\d+)*(?:-\d+)?:)"
)

# ---- tracebacks

_MARGIN = re.compile(rf"(?P<tag>{_TAG}?)(?P<bars> *[|+] (?=[ \w])|)")
_OPENING = re.compile(r" *(?:Exception Group )?Traceback \(most recent call last\):")
_LINK = re.compile(
    r"During handling of the above exception, another exception occurred:"
    r"|The above exception was the direct cause of the following exception:"
    r"| *\+(?:-\+)?-{4,}(?: \d+ -{4,})?"
)
_FRAME = re.compile(
    r"(?P<indent> +)File \"(?P<path>[^\"]*)\", (?P<where>line \d+"
    r"(?:, in (?:[\w.<>]+|top-level template code))?)"
)
_MARKS = re.compile(r" +[~^]+|  \[Previous line repeated \d+ more times?\]")
_EXCEPTION = re.compile(
    r"(?P<type>(?:[A-Za-z_]\w*\.)+[A-Z]\w*|[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Group))"
    r"(?:: ?(?P<said>.*)|$)"
)
# The Python installation, and the toolchain: nobody's private names.
_SYSTEM = ("/usr/lib", "/usr/local/lib", "/usr/local/cuda", "/lib")
_PACKAGE = re.compile(r"/(?:site|dist)-packages/[\w./+-]+$")
_NO_FILE = re.compile(r"<frozen [\w.]+>|<string>|<template>|<eval_with_key>\.\d+")

# ---- what hides the rest of a message

_CONTENT = re.compile(
    r"(?i)received request|generated response|\b(?:prompts?|params|messages?|body|contents?"
    r"|outputs?|arguments|args|tool_calls?|token_ids|input_value|input|text)['\"]?\s*[:=]"
)
_OPENER = re.compile(
    r"(?i)(?P<url>\b[a-z][a-z0-9+.-]{0,20}://\S*|\b(?:data|file):\S+)"
    r"|(?P<path>(?<![\w/.])(?:~|\.{1,2})?/[\w./+@-]*|\b[a-z]:\\|\\\\)"
    r"|(?P<numbers>[\[{][\d\s,.:/x%+-]*[\]}])"
    r"|(?P<other>[\[{]|(?<!\w)['\"`]|['\"`](?!\w))"
)
_LOOPBACK = re.compile(
    r"https?://(?:127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0)(?::\d+)?(?:/[\w./-]*)?"
)


def _nothing(_text: str) -> str:
    return ""


@dataclass
class _Trace:
    """Where one writer's traceback stands."""

    open: bool = False  # frames may come
    tail: bool = False  # what follows is the rest of a hidden message
    ours: bool = False  # a frame of a known file was there: nobody's pasted text, as far as seen


class RedactionGate:
    """Passes the engine's lines on, one by one, without what is nobody's business.

    ``strict`` is False while loading, when there is no prompt yet: then only keys are hidden.
    ``debug`` is the operator's wish for plain text: keys stay hidden. ``known`` returns which
    words of a text name a known cause (fixed words, never a value), or "".

    What cannot be seen line by line: an exception whose message, of several lines, imitates a
    log or a chain of tracebacks down to their fixed sentences.
    """

    def __init__(
        self,
        secrets: Sequence[str] = (),
        known_paths: Sequence[str] = (),
        *,
        known: Callable[[str], str] = _nothing,
    ) -> None:
        self.secrets = secrets
        self.known_paths = known_paths
        self.strict = False
        self.debug = False
        self._known = known
        self._traces: dict[str, _Trace] = {}

    def pass_line(self, text: str) -> str:
        """Return what may be shown of ``text``, one line without its end."""
        text = redact(text, self.secrets)
        if self.debug or not self.strict or not text.strip():
            return text
        if match := _HEADER.match(text):
            self._end_raw_message()
            return match[0] + self._message(match[0], match["file"], text[match.end() :])
        if match := _ACCESS.fullmatch(text):
            self._end_raw_message()
            route = match["route"] if _ROUTE.fullmatch(match["route"]) else HIDDEN
            return match["head"] + route + match["tail"]
        if _SERVER.fullmatch(text):
            self._end_raw_message()
            return text
        if _BAR.fullmatch(text):
            return text
        tag = _MARGIN.match(text)["tag"]  # type: ignore[index]  # it matches the empty text too
        rest = text[len(tag) :]
        if not rest.strip():
            return text
        return tag + (self._structure(tag, rest) or self._words(rest, HIDDEN_LINE))

    def _end_raw_message(self) -> None:
        if trace := self._traces.get(""):
            trace.tail = False

    def _message(self, header: str, file: str, message: str) -> str:
        if _SHAPES.fullmatch(message) or not message.strip():
            return message
        if file not in _ENGINE_FILES:
            return self._words(message, HIDDEN)
        # vLLM repeats the header on each line of a message: it tells whose traceback this is
        if shown := self._structure(header, message):
            return shown
        trace = self._traces[header]
        if trace.open or trace.tail:
            return self._words(message, HIDDEN)
        if match := _EXCEPTION.fullmatch(message):
            return self._exception(trace, match)
        shown = self._hide(message)
        trace.tail = shown != message  # what was hidden may go on in the next line
        return shown

    def _structure(self, writer: str, text: str) -> str:
        """Return what may be shown of a traceback's line, "" when it is none."""
        trace = self._traces.pop(writer, None) or _Trace()
        self._traces[writer] = trace
        if len(self._traces) > 64:
            del self._traces[next(iter(self._traces))]
        bars = _MARGIN.match(text)["bars"]  # type: ignore[index]
        body = text[len(bars) :]
        if _LINK.fullmatch(body) or _LINK.fullmatch(text):
            trace.tail = False
            return text
        if _OPENING.fullmatch(body) and not trace.tail:
            # under vLLM's own header it is its own; printed raw, its frames must show it
            trace.open, trace.ours = True, bool(_HEADER.match(writer))
            return text
        if not trace.open:
            return ""
        if match := _FRAME.fullmatch(body):
            path = self._path(match["path"])
            where = match["where"]
            if path == HIDDEN:  # a request may quote somebody's traceback: no name of theirs
                where = where.partition(",")[0]
            else:
                trace.ours = True
            return f'{bars}{match["indent"]}File "{path}", {where}'
        if _MARKS.fullmatch(body):
            return text
        if match := _EXCEPTION.fullmatch(body):
            shown = self._exception(trace, match)
            return shown if shown == HIDDEN_LINE else bars + shown
        return ""

    def _exception(self, trace: _Trace, match: re.Match[str]) -> str:
        trace.open, trace.tail = False, True
        said = match["said"]
        if not trace.ours:
            return self._words(match[0], HIDDEN_LINE)
        return f"{match['type']}: {self._words(said, HIDDEN)}" if said else match["type"]

    def _words(self, text: str, otherwise: str) -> str:
        words = self._known(text)
        if not words:
            return otherwise
        return words if text.strip(" .") == words.strip(" .") else f"{words} {HIDDEN}"

    def _hide(self, message: str) -> str:
        """Return ``message`` up to the first place that may hold somebody's text."""
        if match := _CONTENT.search(message):
            message = f"{message[: match.end()]} {HIDDEN}"
        for match in _OPENER.finditer(message):
            if match["numbers"]:
                continue
            if self._harmless(match):
                # a path may go on behind a space
                rest = message[match.end() :]
                return message[: match.end()] + (f" {HIDDEN}" if rest.strip(" .") else rest)
            return message[: match.start()] + HIDDEN
        return message

    def _harmless(self, match: re.Match[str]) -> bool:
        if match["url"]:
            return bool(_LOOPBACK.fullmatch(match["url"]))
        path = (match["path"] or "").rstrip(".")  # a sentence's end
        return bool(path) and self._path(path) == path

    def _path(self, path: str) -> str:
        """Return what may be shown of a path: all, from the package on, or nothing."""
        if ".." in path:
            return HIDDEN
        if _NO_FILE.fullmatch(path) or any(
            _is_under(path, root) for root in (*self.known_paths, *_SYSTEM)
        ):
            return path
        package = _PACKAGE.search(path)
        return f"{HIDDEN}{package[0]}" if package else HIDDEN


def _is_under(path: str, root: str) -> bool:
    rest = path.removeprefix(root.rstrip("/"))
    return bool(root.rstrip("/")) and rest != path and bool(re.fullmatch(r"(?:/[\w./+@-]*)?", rest))


# ---- switches of vLLM that undo all this

_SWITCHES = (
    *("--enable-log-requests", "--enable-log-outputs", "--enable-log-deltas", "--max-log-len"),
    *("--log-error-stack", "--log-config-file", "--logging-config"),
)
_LEVEL_SWITCHES = ("--log-level", "--uvicorn-log-level")
_LOUD = frozenset({"DEBUG", "NOTSET", "TRACE"})
_OFF = frozenset({"", "0", "FALSE"})
_SWITCH_VARIABLES = (
    *("VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "VLLM_TRACE_FUNCTION", "VLLM_LOGGING_CONFIG_PATH"),
    "VLLM_SERVER_DEV_MODE",  # it logs the stack of each error, with the request in it
)


def debug_switches(argv: Sequence[str], env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the flags (as typed) and variables that would make vLLM log what is asked of it.

    Like vLLM's argparse, it takes underscores for hyphens and a flag's beginning for the flag.
    """
    found = [word.partition("=")[0] for i, word in enumerate(argv) if _is_switch(word, argv[i:])]
    if env.get("VLLM_LOGGING_LEVEL", "").strip().upper() in _LOUD:
        found.append("VLLM_LOGGING_LEVEL")
    found += (name for name in _SWITCH_VARIABLES if env.get(name, "").strip().upper() not in _OFF)
    return tuple(dict.fromkeys(found))


def _is_switch(word: str, onward: Sequence[str]) -> bool:
    name, equals, value = word.partition("=")
    flag = name.partition(".")[0].replace("_", "-")  # --logging-config.log_level
    if not flag.startswith("--") or flag == "--":
        return False
    if any(level.startswith(flag) for level in _LEVEL_SWITCHES):
        level = value if equals else next(iter(onward[1:]), "")
        if level.strip().upper() in _LOUD:
            return True
    return any(switch.startswith(flag) for switch in _SWITCHES)
