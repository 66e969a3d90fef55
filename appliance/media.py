"""Media in what clients send: what a model that reads text alone cannot take, and what the
engine would fetch. Pure.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from appliance.errors import RequestError

# The engine goes by the type of a part, and by these names where it has none.
MEDIA_NAMES = frozenset(
    (
        *("image_url", "audio_url", "video_url", "input_audio", "image_pil"),
        *("image_embeds", "audio_embeds", "video_embeds", "prompt_embeds"),
    )
)
# Some of them only other engines know: this one's own error, or its silence, would not be clear.
MEDIA_TYPES = MEDIA_NAMES | {
    *("image", "input_image", "image_file", "computer_screenshot", "audio", "video"),
    *("input_video", "file", "input_file", "document"),
}
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_ODD = re.compile(r"[\s\\\x00-\x1f\x7f]")  # parsers do not agree where the host ends


@dataclass(frozen=True)
class MediaPolicy:
    """Whether media pass, and from which hosts the engine may fetch them."""

    is_read: bool = False
    hosts: frozenset[str] = frozenset()


def is_media(part: Any) -> bool:
    """Tell whether a part of a content is an image, a sound, a film or their embedding."""
    if not isinstance(part, dict):
        return False
    kind = part.get("type")
    return (isinstance(kind, str) and kind in MEDIA_TYPES) or not MEDIA_NAMES.isdisjoint(part)


def parts_of(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each media part below ``value``, and where it stands, as ``messages[3].content[1]``.

    Looks into whatever holds parts on some route: messages, contents, tool results, outputs.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from parts_of(item, f"{where}[{index}]")
    elif isinstance(value, dict):
        if is_media(value):
            yield where, value
            return
        for name in ("content", "output"):
            if isinstance(value.get(name), list | dict):
                yield from parts_of(value[name], f"{where}.{name}")


def check_media(value: Any, where: str, policy: MediaPolicy) -> None:
    """Refuse the first media part below ``value`` that may not pass. Raises RequestError 400."""
    for place, part in parts_of(value, where):
        if not policy.is_read:
            kind = part.get("type")
            shown = kind if isinstance(kind, str) else sorted(MEDIA_NAMES & part.keys())[0]
            raise RequestError(
                400,
                "unsupported_content",
                f"{place} is of type {shown[:40]}, and this model reads text only",
                "send its text instead; APPLIANCE_MEDIA_INPUT=true says that the model can",
            )
        for name, text in _strings(part, ""):
            if (fault := _fault(name, text, policy.hosts)) is not None:
                hosts = ", ".join(sorted(policy.hosts)) or "none"
                raise RequestError(
                    400,
                    "media_not_allowed",
                    f"{place} {fault}, which the engine would fetch",
                    f"send a data: URL; APPLIANCE_MEDIA_HOSTS names the hosts allowed ({hosts})",
                )


def _fault(name: str, text: str, hosts: Iterable[str]) -> str | None:
    """Say what is wrong with the text under a name of a media part, None where it may pass.

    What must be a URL by its name passes as data or from an allowed host, and in no other form:
    engines differ in what they make of one without a scheme.
    """
    scheme = _SCHEME.match(text)
    kind = scheme[1].lower() if scheme else ""
    if not name.lower().endswith(("url", "uri")) or kind in ("http", "https"):
        return url_fault(text, hosts)
    if kind == "data":
        return None
    return f"has a URL of scheme {kind[:20]}:" if kind else "has a URL without a scheme"


def url_fault(text: str, hosts: Iterable[str]) -> str | None:
    """Say what is wrong with a URL in a media part, None where it may pass.

    What is no URL, and data in place of one, passes. A URL that two parsers may read in two
    ways does not.
    """
    scheme = _SCHEME.match(text)
    if scheme is None:
        return None
    kind = scheme[1].lower()
    if kind not in ("http", "https"):
        is_url = kind == "file" or (kind != "data" and text[scheme.end() :].startswith("//"))
        return f"has a URL of scheme {kind[:20]}:" if is_url else None
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        return "has an odd URL"
    if _ODD.search(text) or "@" in parts.netloc or not parts.netloc.isascii():
        return "has an odd URL"
    return None if host in hosts else f"has a URL of the host {host[:80] or '(none)'}"


def _strings(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield all texts below a value, each with the name that it stands under."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, dict):
        for inner, item in value.items():
            yield from _strings(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, name)
