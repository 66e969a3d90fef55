"""Media are judged on every route, wherever it takes them, however they are spelled."""

import json
from typing import Any

import pytest

from appliance.conversation import Reading, by_pieces, read
from appliance.draft import Draft
from appliance.errors import RequestError
from appliance.media import MediaPolicy
from appliance.openai import ROUTES
from appliance.prompt import PromptPolicy
from appliance.wirebody import parse_body

TEXT_MODEL = MediaPolicy()
READS = MediaPolicy(is_read=True, hosts=frozenset({"cdn.example"}))
BY_PATH = {route.path: route for route in ROUTES}
EVIL = "http://169.254.169.254/latest"
# A part as a client may write it, for the engine to find: %s is the URL.
PARTS = [
    '{"type":"image_url","image_url":{"url":"%s"}}',
    '{"type":"image_url","image_url":"%s"}',
    '{"im\\u0061ge_url":"%s"}',
    '{"type":"im\\u0061ge_url","image_url":{"url":"%s"}}',
    '{"type":"text","type":"image_url","image_url":{"url":"%s"}}',
    '{"type":"text","text":"x","uuid":"u","image_url":"%s"}',
    '{"type":"input_image","image_url":"%s"}',
    '{"type":"input_file","file_url":"%s"}',
    '{"type":"document","source":{"type":"url","url":"%s"}}',
    '{"type":"video_url","video_url":{"url":"%s"}}',
    '{"type":"tool_result","content":[{"type":"image","source":{"type":"url","url":"%s"}}]}',
    '{"type":"tool_result","content":{"type":"image","source":{"type":"url","url":"%s"}}}',
    '{"type":"tool_result","content":[[{"type":"image","source":{"type":"url","url":"%s"}}]]}',
]
PLACES = [
    ("/v1/chat/completions", '{"messages":[{"role":"user","content":[%s]}]}'),
    ("/v1/chat/completions", '{"messages":[{"role":"user","content":%s}]}'),
    ("/v1/chat/completions", '{"messages":[],"messages":[{"role":"user","content":[%s]}]}'),
    ("/v1/messages", '{"messages":[{"role":"user","content":[%s]}]}'),
    ("/v1/messages/count_tokens", '{"messages":[{"role":"user","content":[%s]}]}'),
    ("/v1/responses", '{"input":[{"role":"user","content":[%s]}]}'),
    ("/v1/responses", '{"input":[{"type":"function_call_output","output":[%s]}]}'),
    ("/v1/responses", '{"input":[{"type":"computer_call_output","output":%s}]}'),
    ("/v1/responses", '{"input":[%s]}'),
    ("/v1/embeddings", '{"messages":[{"role":"user","content":[%s]}]}'),
    ("/v1/embeddings", '{"messages":[[{"role":"user","content":[%s]}]]}'),
    ("/v1/embeddings", '{"input":[{"role":"user","content":[%s]}]}'),
    ("/v1/embeddings", '{"input":[[{"role":"user","content":[%s]}]]}'),
    ("/v1/embeddings", '{"input":"x","messages":[{"role":"user","content":[%s]}]}'),
    ("/tokenize", '{"messages":[{"role":"user","content":[%s]}]}'),
]


def take(path: str, body: str, media: MediaPolicy) -> Draft:
    reading = Reading(BY_PATH[path], PromptPolicy("the prompt"), media)
    return read(parse_body(body.encode()), reading)[0]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(("path", "body"), PLACES)
def test_no_part_on_any_route_brings_a_text_model_media_or_the_engine_a_url(
    path: str, body: str, part: str
) -> None:
    with pytest.raises(RequestError) as caught:
        take(path, body % (part % EVIL), TEXT_MODEL)
    assert (caught.value.http_status, caught.value.code) == (400, "unsupported_content")
    with pytest.raises(RequestError) as caught:
        take(path, body % (part % EVIL), READS)
    assert (caught.value.http_status, caught.value.code) == (400, "media_not_allowed")


@pytest.mark.parametrize(("path", "body"), PLACES)
def test_an_allowed_host_and_data_pass_everywhere_they_are_asked_for(path: str, body: str) -> None:
    for url in ("https://cdn.example/a.png", "data:image/png;base64,AAAA"):
        take(path, body % (PARTS[0] % url), READS)


@pytest.mark.parametrize(
    "given", ["one text", ["two", "texts"], [1, 2, 3], [[1, 2], [3]], [], [{"content": "words"}]]
)
def test_what_an_embedding_is_made_of_passes_as_it_is(given: Any) -> None:
    body = json.dumps({"input": given, "model": "N"})
    assert json.loads(take("/v1/embeddings", body, TEXT_MODEL).encode()) == json.loads(body)


def test_an_embeddings_media_are_not_passed_over_behind_a_long_text() -> None:
    said = [{"role": "user", "content": "x" * 9000}] * 100
    evil = [{"role": "user", "content": [json.loads(PARTS[0] % EVIL)]}]
    body = json.dumps({"messages": said, "input": evil})
    reading = Reading(BY_PATH["/v1/embeddings"], PromptPolicy(""), READS)
    assert list(by_pieces(body.encode(), reading)) == []  # it is read as a whole
    with pytest.raises(RequestError, match=r"input\[0\]"):
        take("/v1/embeddings", body, READS)
