"""The environment in which transformers renders a chat template, built from jinja2 alone.

Source: `_cached_compile_jinja_template` in transformers 5.19. The contract test compares what this
renders with what transformers renders.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from jinja2 import Template
from jinja2.exceptions import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE = Path(__file__).resolve().parents[2] / "extras" / "chat_template.jinja"

Message = dict[str, Any]


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


@cache
def _template() -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def render(
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = True,
    **kwargs: Any,
) -> str:
    """Render extras/chat_template.jinja; `kwargs` are chat_template_kwargs.

    Raises:
        jinja2.exceptions.TemplateError: the template refuses the messages.
    """
    return _template().render(
        messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, **kwargs
    )
