"""What one message of a conversation shows, and how far it is to be trusted. Pure.

A user's words, the environment's details and listings of files say which paths there are. The
contents of files, web pages and whatever else a tool returns are written by anybody: they are
read too, so that nothing that they show is taken for a glitch, but they prove nothing.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from appliance.openai import NO_JSON
from appliance.pathledger import (
    CALL,
    CONTENT,
    ENVIRONMENT,
    LISTING,
    TRUSTED,
    USER,
    WEB,
    Call,
    Page,
    find_roots,
)
from appliance.pathlisting import listed
from appliance.pathtext import mentions, patched, shell_words, words_with_paths
from appliance.pathtools import KeyKind, is_listing, is_web, key_kind, listed_folder

_SLICE = 512  # characters that are read in one go,
_SOME = 8  # or so many paths
_LONG = 2**16  # bytes, or characters: to read or to search more takes a step of its own
_MOST_SAID = 2**17  # characters that are kept of what a user wrote in one message

# In a user's message, what the client put there: its environment, and files that were attached.
_PUT_IN = re.compile(
    r"<(?P<tag>environment_details|environment_context|env|workspace_info|file_content|files?|"
    r"documents?|attachments?|folder_content|final_file_content|url_content|terminal_output)"
    r"\b[^>\n]*>(?P<text>.*?)(?:</(?P=tag)>|\Z)",
    re.DOTALL,
)
_OF_THE_ENVIRONMENT = ("environment_details", "environment_context", "env", "workspace_info")
# Calls and results that are written as text, by clients that use no tool calls.
_RESULT = re.compile(r"\s*\[(\w+)(?: for '([^'\n]*)')?[^\]\n]*\] Result:")
_FOLDER = re.compile(r"\s*<path>([^\n<]+)</path>\s*<type>directory</type>")
_FAILED = re.compile(
    r"(?i)\b(?:error|enoent|no such|not found|does(?: not|n't) exist|failed|could not|denied"
    r"|cannot (?:find|open|access|read))\b"
)
_SHORT = 600  # characters within which a result says that its call failed


def fill(page: Page, text: bytes, calls: Mapping[str, Call]) -> Iterator[None]:
    """Note on a page what a message shows; a bit more of it at each step.

    ``calls`` are the tool calls before it, by id: they tell what a result is.
    """
    try:
        message = msgspec.json.decode(text)
    except NO_JSON:
        return
    if not isinstance(message, dict):
        return
    if len(text) > _LONG:
        yield
    role, kind = message.get("role"), message.get("type")
    if kind in ("function_call", "custom_tool_call"):
        _note_call(page, message.get("call_id"), message.get("name"), message.get("arguments"))
    elif kind in ("function_call_output", "custom_tool_call_output"):
        yield from _result(page, message.get("output"), calls.get(str(message.get("call_id"))))
    elif role == "assistant":
        _note_calls(page, message)
    elif role == "tool":
        call = calls.get(str(message.get("tool_call_id")))
        yield from _result(page, message.get("content"), call)
    elif role in ("system", "developer"):
        for one in texts_of(message.get("content")):
            yield from _system(page, one)
    elif role == "user":
        yield from _user(page, message.get("content"), calls)


def texts_of(content: Any) -> Iterator[str]:
    """Yield the texts of a content of any shape: a text, or parts that hold one."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]


def _note_calls(page: Page, message: Mapping[str, Any]) -> None:
    made = message.get("tool_calls")
    for call in made if isinstance(made, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            _note_call(page, call.get("id"), function.get("name"), function.get("arguments"))
    content = message.get("content")
    for block in content if isinstance(content, list) else ():
        if isinstance(block, dict) and block.get("type") == "tool_use":
            _note_call(page, block.get("id"), block.get("name"), block.get("input"))


def _note_call(page: Page, call_id: Any, name: Any, arguments: Any) -> None:
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments)
        except NO_JSON:
            arguments = None
    told = arguments if isinstance(arguments, dict) else {}
    if isinstance(call_id, str) and isinstance(name, str):
        page.calls[call_id] = Call(name, told)


def _user(page: Page, content: Any, calls: Mapping[str, Call]) -> Iterator[None]:
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == "tool_result":
            call = calls.get(str(part.get("tool_use_id")))
            yield from _result(page, part.get("content"), call)
    for text in texts_of(content):
        if (result := _RESULT.match(text)) is not None:
            call = Call(result[1], {"path": result[2] or ""})
            yield from _result(page, text[result.end() :], call)
            continue
        start = 0
        for found in _PUT_IN.finditer(text):
            yield from _said(page, text[start : found.start()])
            start = found.end()
            if found["tag"] in _OF_THE_ENVIRONMENT:
                yield from _environment(page, found["text"])
            else:
                yield from _mentioned(page, found["text"], CONTENT)
        yield from _said(page, text[start:])


def _said(page: Page, text: str) -> Iterator[None]:
    page.said += "\n" + text[:_MOST_SAID]
    if len(text) > _LONG:
        yield
    page.roots += find_roots(text[:_MOST_SAID])
    yield from _mentioned(page, text, USER)


def _system(page: Page, text: str) -> Iterator[None]:
    """Read a system prompt: where the work is; its examples are no evidence."""
    page.roots += find_roots(text)
    for root in page.roots:
        page.add(root.key, ENVIRONMENT)
    for found in _PUT_IN.finditer(text):
        if found["tag"] in _OF_THE_ENVIRONMENT:
            yield from _environment(page, found["text"])


def _environment(page: Page, text: str) -> Iterator[None]:
    page.roots += find_roots(text)
    for root in page.roots:
        page.add(root.key, ENVIRONMENT)
    yield from _listed(page, text, "", ENVIRONMENT)
    yield from _mentioned(page, text, ENVIRONMENT)


def _result(page: Page, content: Any, call: Call | None) -> Iterator[None]:
    """Read what a tool returned. Only of a call that went well are the paths known by it."""
    texts = list(texts_of(content))
    if call is None:
        for text in texts:
            yield from _mentioned(page, text, CONTENT)
        return
    begin = "".join(texts)[:_SHORT]
    if not has_failed("".join(texts)):
        for path in paths_of(call.arguments):
            page.add(path, CALL)
    kind, folder = witness(call, begin)
    for text in texts:
        if kind == LISTING:
            yield from _listed(page, text, folder, LISTING)
        else:
            yield from _mentioned(page, text, kind)


def has_failed(result: str) -> bool:
    """Tell whether a tool's result says that its call failed."""
    return len(result) < _SHORT and _FAILED.search(result) is not None


def without_details(content: Any) -> str:
    """Return what a user's message says itself: without what the client put in."""
    return "\n".join(_PUT_IN.sub("", text) for text in texts_of(content)).strip()


def witness(call: Call, begin: str) -> tuple[int, str]:
    """Return what kind of evidence a call's result is, and the folder that it speaks from."""
    if is_web(call.name):
        return WEB, ""
    commands = [v for k, v in call.arguments.items() if key_kind(k) is KeyKind.COMMAND]
    if len(commands) == 1 and isinstance(commands[0], str):
        folder = listed_folder(shell_words(commands[0]))
        where = next(paths_of(call.arguments, commands=False), "")
        if folder is None:
            return CONTENT, ""
        return LISTING, f"{where}/{folder}" if where and folder[:1] not in ("/", "~") else folder
    found = _FOLDER.match(begin)
    if found is not None and found[1] == next(paths_of(call.arguments), None):
        return LISTING, found[1]
    if is_listing(call.name):
        return LISTING, next(paths_of(call.arguments), "")
    return CONTENT, ""


def paths_of(arguments: Mapping[str, Any], *, commands: bool = True) -> Iterator[str]:
    """Yield the paths in a call's arguments: of keys that hold them, in commands, in patches."""
    for key, value in arguments.items():
        kind = key_kind(key)
        if isinstance(value, dict):
            yield from paths_of(value, commands=commands)
        elif isinstance(value, list):
            for one in value:
                yield from paths_of({key: one}, commands=commands)
        elif not isinstance(value, str):
            continue
        elif kind is KeyKind.PATH:
            yield value
        elif kind is KeyKind.COMMAND and commands:
            yield from words_with_paths(value)
        elif kind is KeyKind.PATCH and commands:
            yield from patched(value)


def _listed(page: Page, text: str, folder: str, kind: int) -> Iterator[None]:
    is_bound = folder[:1] in ("/", "~") or folder[1:2] == ":"
    for count, path in enumerate(listed(text, folder)):
        if not is_bound or path.startswith(folder):  # else it is no listing of that folder
            page.add(path, kind)
        if count % _SOME == 0:
            yield


def _mentioned(page: Page, text: str, kind: int) -> Iterator[None]:
    is_prose = bool(kind & TRUSTED)
    start = 0
    while start < len(text):
        end = start + _SLICE
        if end < len(text):
            end = text.find("\n" if is_prose else " ", end) + 1 or len(text)
        for path in mentions(text[start:end], is_prose=is_prose):
            page.add(path, kind)
        start = end
        yield
