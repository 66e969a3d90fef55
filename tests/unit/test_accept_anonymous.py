"""A report tells nobody whose box it is from."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accept.anonymous import Who, hide, hide_all

WHO = Who(
    secrets=("k3y-of-the-box-0123456789", "operator-key-987"),
    hosts=("spark-7f3a", "build.acme.example"),
    users=("alice", "Bob.Smith"),
    homes=("/home/alice", "/data/people/bob"),
)


@pytest.mark.parametrize(
    ("text", "canary"),
    [
        ("the key is k3y-of-the-box-0123456789.", "k3y-of"),
        ("authorization: Bearer abcdefgh12345", "abcdefgh"),
        ("on spark-7f3a.local it failed", "spark-7f3a"),
        ("SPARK-7F3A answers", "7F3A"),
        ("https://build.acme.example:8443/x", "acme"),
        ("http://ollama.internal/v1", "ollama"),
        ("printer.lan is up", "printer"),
        ("from 192.168.17.23 came", "192.168"),
        ("from ::ffff:192.168.17.23 came", "168.17.23"),
        ("index https://token@art.acme.com/simple", "acme"),
        ("error:/data/acme/file is not there", "acme"),
        ("PYTHONPATH=/data/acme/lib:/srv/acme2/lib2", "acme"),
        ("[fe80::1c2d:aaff:fe3b:4c5d%eth0]", "1c2d"),
        ("2001:db8:17::9 refused", "2001:db8"),
        ("eth0 de:ad:be:ef:00:17", "de:ad"),
        ("/home/alice/models/x.json", "alice"),
        ("/home/carol/models", "carol"),
        ("/Users/dave/Projects/one", "dave"),
        (r"C:\Users\erin\file", "erin"),
        ("/data/people/bob/model", "people"),
        ("/srv/acme-corp/secret-project/model-00001.safetensors", "acme-corp"),
        ("owner Bob.Smith wrote", "Smith"),
        ("distributed_init_method=file:///srv/acme/dist_1 backend=gloo", "acme"),
        ("mail alice@example.org", "example.org"),
        ("GPU-5a1c2b3d-0000-1111-2222-0123456789ab", "5a1c2b3d"),
        ("Serial Number: 1654322019744", "1654322"),
        ("machine 0123456789abcdef0123456789abcdef", "89abcdef"),
    ],
)
def test_what_tells_whose_box_it_is_is_hidden(text: str, canary: str) -> None:
    assert canary in text
    assert canary.lower() not in hide(text, WHO).lower()


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:9000/v1/chat/completions",
        "http://localhost:9000",
        "listens on 0.0.0.0:9000",
        "vLLM 0.33.0, driver 580.95.05, at 12:34:56",
        "12/14 passed, 3.5 GiB, 2026-11-23T21:53:13+00:00",
        "POST /v1/chat/completions and /appliance/v1/status",
        "/usr/lib/python3.11/asyncio/base_events.py, line 7",
        "serialised 5 tensors; a serial port",
        "box profile spark: measured by its user",
        "GET /health 200",
    ],
)
def test_what_is_nobodys_stays(text: str) -> None:
    assert hide(text, WHO) == text


def test_a_path_keeps_the_name_of_its_file_and_its_place_in_a_package() -> None:
    assert hide("/srv/acme/config.json", WHO) == "…/config.json"
    inside = "/srv/acme/engine/lib/site-packages/vllm/v1/core.py"
    assert hide(inside, WHO) == "…/site-packages/vllm/v1/core.py"


def test_names_that_are_anybodys_are_no_secret() -> None:
    who = Who(users=("root", "ubuntu"), hosts=("spark",), homes=("/root",))
    assert hide("root on spark reads /proc/1/stat", who) == "root on spark reads /proc/1/stat"


def test_lines_stay_lines() -> None:
    assert hide("one\ntwo alice\nthree", WHO) == "one\ntwo (user)\nthree"


def test_a_tree_is_hidden_whole_keys_included() -> None:
    tree = {"alice (12)": [("spark-7f3a", 7, None, True)], "b": {"c": "192.168.1.9"}}
    assert hide_all(tree, WHO) == {
        "(user) (12)": [["(host)", 7, None, True]],
        "b": {"c": "(address)"},
    }


TEXT = st.text(alphabet=st.characters(codec="utf-8"), max_size=80)


@given(before=TEXT, after=TEXT)
def test_a_key_never_passes_whatever_stands_around_it(before: str, after: str) -> None:
    shown = hide(f"{before}{WHO.secrets[0]}{after}", WHO)
    assert WHO.secrets[0] not in shown


@given(st.recursive(TEXT | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=4)))
def test_the_shape_of_a_tree_stays(tree: object) -> None:
    def shape(value: object) -> object:
        return [shape(each) for each in value] if isinstance(value, list) else type(value)

    assert shape(hide_all(tree, WHO)) == shape(tree)
    json.dumps(hide_all(tree, WHO))


@given(TEXT, TEXT)
def test_hiding_twice_is_hiding_once(before: str, after: str) -> None:
    once = hide(f"{before} /home/alice/x 10.1.2.3 spark-7f3a {after}", WHO)
    assert hide(once, WHO) == once
