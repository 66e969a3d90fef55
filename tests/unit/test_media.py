"""Media are found wherever they hide, and no URL goes to the engine whose host is not allowed."""

from typing import Any

import pytest

from appliance.errors import RequestError
from appliance.media import MediaPolicy, check_media, is_media, parts_of, url_fault

READS = MediaPolicy(is_read=True, hosts=frozenset({"cdn.example"}))
TEXT = {"type": "text", "text": "see http://elsewhere.example/a.png"}
DATA = "data:image/png;base64,AAAA"


def image(url: Any = DATA) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


PARTS = [
    image(),
    {"type": "image_url", "image_url": DATA},
    {"type": "input_image", "image_url": DATA},
    {"type": "computer_screenshot", "image_url": DATA},
    {"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf"}},
    {"type": "input_file", "file_url": "https://a.example/a.pdf"},
    {"type": "document", "source": {"type": "url", "url": "https://a.example/a.pdf"}},
    {"type": "document", "source": {"type": "text", "data": "words"}},
    {"type": "input_video", "video_url": DATA},
    {"type": "input_image", "file_id": "f"},
    {"type": "image", "source": {"type": "base64", "data": "AAAA"}},
    {"type": "image", "source": {"type": "url", "url": "https://a.example"}},
    {"type": "audio_url", "audio_url": {"url": DATA}},
    {"type": "input_audio", "input_audio": {"data": "AAAA"}},
    {"type": "video_url", "video_url": {"url": DATA}},
    {"type": "image_embeds", "image_embeds": "AAAA"},
    {"type": "prompt_embeds", "data": "AAAA"},
    {"type": "text", "text": "x", "uuid": "u", "image_url": "http://a.example"},
    {"image_url": "http://a.example"},
    {"type": None, "video_url": "x"},
    {"type": 7, "audio_url": "x"},
]


@pytest.mark.parametrize("part", PARTS)
def test_what_the_engine_takes_for_media_is_media(part: dict[str, Any]) -> None:
    assert is_media(part)
    with pytest.raises(RequestError, match="text only") as caught:
        check_media([{"role": "user", "content": [TEXT, part]}], "messages", MediaPolicy())
    assert caught.value.code == "unsupported_content"
    assert "messages[0].content[1]" in caught.value.what


@pytest.mark.parametrize(
    "part",
    [TEXT, {"type": "tool_use", "input": {"url": "http://a"}}, "http://a", None, 7, {"type": 7}],
)
def test_text_and_tools_are_none(part: Any) -> None:
    assert not is_media(part)
    check_media([{"role": "user", "content": [part]}], "messages", MediaPolicy())


def test_media_in_a_tools_result_or_output_are_found_by_their_place() -> None:
    result = {"type": "tool_result", "content": [TEXT, image()]}
    messages = [{"role": "user", "content": "x"}, {"role": "user", "content": [result]}]
    assert [place for place, _ in parts_of(messages, "messages")] == [
        "messages[1].content[0].content[1]"
    ]
    output = [{"type": "function_call_output", "output": [image()]}]
    assert [place for place, _ in parts_of(output, "input")] == ["input[0].output[0]"]


@pytest.mark.parametrize(
    "url", [DATA, "DATA:,x", "https://cdn.example/a.png", "http://CDN.example"]
)
def test_data_and_allowed_hosts_pass(url: str) -> None:
    check_media([{"content": [image(url)]}], "messages", READS)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/v1/models",
        "https://evil.example/a.png",
        "https://cdn.example.evil.example/",
        "http://cdn.example@evil.example/",
        "http://evil.example\\@cdn.example/",
        "http://cdn.example\\.evil.example/",
        "http://evil.example#@cdn.example/",
        "http://[::1]/",
        "http://[oops/",
        "http://",
        "http:/evil.example/",
        " https://evil.example/",
        "HTTPS://EVIL.example",
        "http://cdn.example\t.evil.example/",
        "http://cdn.example./",
        "http:///cdn.example/",
        "http:cdn.example",
        "http://cdn.example:80@evil.example/",
        "http://user:pw@cdn.example/",
        "http://cdn.example%2eevil.example/",
        "http://cdn%2eexample/",
        "http://%63dn.example/",
        "http://cdn.example%00@evil.example/",
        "http://cdn.example;evil.example/",
        "http://cdn.example:abc/",
        "http://cdn\u3002example/",
        "http://\u24d2dn.example/",
        "http://cdn.example\u00ad/",
        "http://cdn.example/\r\nHost: evil.example",
        "http://[::ffff:127.0.0.1]/",
        "http://[::1%25lo]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://127.1/",
        "ht\ttp://evil.example/",
        "\ufeffhttp://evil.example/",
        "\u200bhttp://evil.example/",
        "\uff48ttp://evil.example/",
        "http\u017f://evil.example/",
        "\x00http://evil.example/",
        "//evil.example/a.png",
        "\\\\evil.example\\a.png",
        "/etc/passwd",
        "etc/passwd",
        "",
        "httpx://cdn.example/",
        "http+unix://%2Frun%2Fx.sock/",
        "view-source:http://cdn.example/",
        "blob:http://cdn.example/",
        "javascript:x",
        "s3:cdn.example",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "ftp://cdn.example/a",
    ],
)
def test_no_other_url_passes(url: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_media([{"role": "user", "content": [image(url)]}], "messages", READS)
    assert caught.value.code == "media_not_allowed"
    assert "messages[0].content[0]" in caught.value.what
    assert "cdn.example" in caught.value.hint


@pytest.mark.parametrize("text", ["auto", "image/png", "AAAA==", "note: this", "", "c:\\x.png"])
def test_what_is_no_url_has_no_fault(text: str) -> None:
    assert url_fault(text, ()) is None


def test_an_allowed_hosts_letters_are_plain_ones() -> None:
    kelvin = "http://\u212adn.example/"  # which lower() turns into a k
    assert url_fault("http://kdn.example/", {"kdn.example"}) is None
    assert url_fault(kelvin, {"kdn.example"}) == "has an odd URL"


@pytest.mark.parametrize("name", ["url", "URL", "image_url", "fileUrl", "file_uri", "audio_url"])
def test_what_is_a_url_by_its_name_is_data_or_of_an_allowed_host(name: str) -> None:
    for text in ("//cdn.example/a", "AAAA", "ftp:cdn.example"):
        with pytest.raises(RequestError) as caught:
            check_media([{"type": "image", "source": {name: text}}], "input", READS)
        assert caught.value.code == "media_not_allowed"
    check_media([{"type": "image", "source": {name: DATA, "data": "//uQxAAA"}}], "input", READS)


def test_sound_that_looks_like_a_host_is_data() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "//uQxAAAAAAA", "format": "mp3"}}
    check_media([sound], "messages", READS)  # an MP3 frame begins so, in base64


def test_a_url_is_found_under_any_name_of_the_part() -> None:
    for part in (
        {"type": "image", "source": {"type": "url", "url": "http://a.example"}},
        {"type": "input_image", "image_url": "http://a.example"},
        {"type": "audio_url", "audio_url": {"url": "http://a.example"}},
        {"type": "image_embeds", "image_embeds": {"a": ["http://a.example"]}},
    ):
        with pytest.raises(RequestError, match=r"a\.example"):
            check_media([part], "input", READS)
