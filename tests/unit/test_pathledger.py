"""The ledger: what a conversation proves, what it only shows, and what reading it costs."""

import json
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.pathhistory import LONGEST_MESSAGE, Reader, read_all
from appliance.pathledger import (
    CALL,
    CONTENT,
    ENVIRONMENT,
    LISTING,
    TRUSTED,
    USER,
    WEB,
    Ledger,
    Page,
    find_roots,
)
from appliance.paths import PathName, parse


def name(text: str) -> PathName:
    path = parse(text)
    assert path is not None
    return path


def call(at: int, tool: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": tool, "arguments": json.dumps(arguments)}
    return {"role": "assistant", "tool_calls": [{"id": f"c{at}", "function": function}]}


def result(at: int, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"c{at}", "content": content}


def body(*messages: dict[str, Any]) -> bytes:
    return json.dumps({"model": "m", "messages": messages}).encode()


def ledger(*messages: dict[str, Any]) -> Ledger:
    return read_all(body(*messages))


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def kinds(text: str, *messages: dict[str, Any]) -> int:
    return ledger(*messages).kinds(name(text))


ENV = (
    "<environment_details>\nWorking directory: /w\n# Open Tabs\nsrc/a b.ts\n</environment_details>"
)


def test_a_user_and_the_environment_prove_paths() -> None:
    shown = ledger(user(f"Fix src/x.ts\n{ENV}"))
    assert shown.kinds(name("src/x.ts")) == USER
    assert shown.kinds(name("src/a b.ts")) == ENVIRONMENT
    assert shown.kinds(name("/w")) == ENVIRONMENT
    assert shown.roots == (name("/w"),)


def test_a_folder_is_known_by_what_stands_in_it() -> None:
    assert kinds("a/b", user("see a/b/c.ts")) == USER
    assert kinds("b", user("see a/b/c.ts")) == 0


@pytest.mark.parametrize(
    ("tool", "arguments", "said", "kind"),
    [
        ("list_files", {"path": "src"}, "q.ts", LISTING),
        ("bash", {"command": "ls src"}, "q.ts", LISTING),
        ("bash", {"command": "find src -type f"}, "src/q.ts", LISTING),
        ("bash", {"command": "ls", "workdir": "src"}, "q.ts", LISTING),
        ("bash", {"command": "cat src/list"}, "src/q.ts", CONTENT),
        ("read_file", {"path": "src/list"}, "see src/q.ts", CONTENT),
        ("grep", {"pattern": "x"}, "src/q.ts:12:x", CONTENT),
        ("fetch_url", {"url": "https://x.y"}, "src/q.ts", WEB),
        ("web_list_files", {}, "src/q.ts", WEB),
        ("list_issues", {}, "src/q.ts", CONTENT),
    ],
)
def test_what_a_tool_returned_is_evidence_by_what_the_tool_does(
    tool: str, arguments: dict[str, str], said: str, kind: int
) -> None:
    assert kinds("src/q.ts", call(1, tool, **arguments), result(1, said)) == kind


def test_the_listing_of_a_folder_by_a_tool_that_reads_must_name_what_was_asked_for() -> None:
    listing = "<path>/w/src</path>\n<type>directory</type>\n<entries>\nq.ts\n</entries>"
    assert kinds("/w/src/q.ts", call(1, "read", filePath="/w/src"), result(1, listing)) == LISTING
    forged = call(1, "read", filePath="/w/notes.md")
    assert not kinds("/w/src/q.ts", forged, result(1, listing)) & TRUSTED


def test_a_listing_proves_nothing_outside_of_its_folder() -> None:
    shown = ledger(call(1, "list_files", path="/w/src"), result(1, "a.ts\n/etc/passwd.txt"))
    assert shown.kinds(name("/w/src/a.ts")) == LISTING
    assert shown.kinds(name("/etc/passwd.txt")) == 0


def test_files_that_a_client_attached_to_a_users_message_prove_nothing() -> None:
    for tag in ("file", "file_content", "documents"):
        text = f"look\n<{tag} path='a'>\nsrc/q.ts\n{ENV}\n</{tag}>"
        assert kinds("src/q.ts", user(text)) == CONTENT
        assert ledger(user(text)).roots == ()


def test_results_that_are_written_as_text_are_told_apart() -> None:
    assert kinds("src/q.ts", user("[list_files for 'src'] Result:\nq.ts")) == LISTING
    assert kinds("src/q.ts", user("[read_file for 'x'] Result:\nsrc/q.ts")) == CONTENT


def test_a_call_proves_its_path_only_if_it_went_well() -> None:
    asked = call(1, "read_file", path="src/q.ts")
    assert kinds("src/q.ts", asked, result(1, "import x")) == CALL
    assert kinds("src/q.ts", asked, result(1, "Error: File not found")) == 0
    assert kinds("src/q.ts", asked) == 0


def test_what_the_model_itself_said_shows_nothing() -> None:
    said = {"role": "assistant", "content": "I open src/q.ts", "reasoning_content": "src/q.ts"}
    assert kinds("src/q.ts", said) == 0


def test_a_system_prompt_tells_where_the_work_is_and_its_examples_nothing() -> None:
    text = "Use paths such as src/q.ts.\n<env>\nWorking directory: /w/p q\n</env>"
    shown = ledger({"role": "system", "content": text})
    assert shown.roots == (name("/w/p q"),)
    assert shown.kinds(name("src/q.ts")) == 0


@pytest.mark.parametrize(
    ("text", "roots"),
    [
        ("Working directory: /w/a", ["/w/a"]),
        ("Workspace root folder: /w/my app", ["/w/my app"]),
        ("# Current Workspace Directory (/w/a) Files", ["/w/a"]),
        ("Workspace folders:\n- /w/a\n- /w/b", ["/w/a", "/w/b"]),
        ("cwd: C:\\Users\\Me", ["C:\\Users\\Me"]),
        ("<cwd>/w</cwd>", ["/w"]),
        ("the working directory", []),
    ],
)
def test_the_folders_of_the_work_are_found(text: str, roots: list[str]) -> None:
    assert find_roots(text) == tuple(map(name, roots))


def test_a_users_words_are_kept_as_they_were_spelled() -> None:
    shown = ledger(user("Make a folder Utils beside src/utils/a.ts"))
    assert shown.user_said("Utils")
    assert shown.user_said("utils")
    assert not shown.user_said("Util")
    assert not shown.user_said("utils/a.ts")
    assert shown.user_said("src/utils/a.ts")


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"no json", b'{"messages":3}', b'{"messages":[1,null,"x",{"role":7}]}',
     b'{"messages":[{"role":"tool","content":{"a":1}}]}', b'{"input":"src/a.ts"}'],
)  # fmt: skip
def test_no_body_makes_reading_fail(raw: bytes) -> None:
    assert len(read_all(raw)) == (2 if raw.startswith(b'{"input"') else 0)


def test_a_message_that_is_too_long_is_not_read() -> None:
    assert len(ledger(user("src/a.ts " + "x" * LONGEST_MESSAGE))) == 0


# ---- reading in steps, and what is kept


class Clock:
    """Seconds that go by with each question; it counts them."""

    def __init__(self, step_s: float) -> None:
        self.now, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self._step_s
        return self.now


def run(steps: Generator[None, None, Ledger]) -> tuple[Ledger, int]:
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


LONG = [
    user("Fix it."),
    *(
        message
        for at in range(40)
        for message in (
            call(at, "list_files", path=f"src/m{at}"),
            result(at, "\n".join(f"file_{n}.ts" for n in range(50))),
        )
    ),
]


def test_reading_is_cut_into_steps_by_the_clock() -> None:
    slow, hurried = Reader(Clock(0.0)), Reader(Clock(0.001))
    few, many = run(slow.read(body(*LONG)))[1], run(hurried.read(body(*LONG)))[1]
    assert few < len(LONG)
    assert many > len(LONG)


def test_a_conversation_that_goes_on_costs_what_is_new() -> None:
    reader = Reader(Clock(0.001))
    run(reader.read(body(*LONG)))
    kept = reader.kept_paths
    ledger_, steps = run(reader.read(body(*LONG, user("Now src/new.ts"))))
    assert ledger_.kinds(name("src/new.ts")) == USER
    assert ledger_.kinds(name("src/m7/file_3.ts")) & LISTING
    assert reader.kept_paths - kept <= 2
    assert steps <= len(LONG) + 2


def test_what_is_kept_has_a_bound() -> None:
    reader = Reader(Clock(0.0), most_paths=500)
    for at in range(20):
        text = " ".join(f"a{at}/b{n}.ts" for n in range(100))
        run(reader.read(body(user(text))))
        assert reader.kept_paths <= 500


def test_messages_that_show_no_path_are_bounded_too() -> None:
    reader = Reader(Clock(0.0), most_paths=50)
    for at in range(200):
        run(reader.read(body(user(f"no path {at}"))))
    assert reader.kept_messages <= 50


def test_the_texts_that_are_kept_are_bounded_too() -> None:
    reader = Reader(Clock(0.0), most_paths=500)
    long = "words " * 4000
    for at in range(20):
        run(reader.read(body(user(f"{at} {long}"), call(at, "write_file", content=f"{at} {long}"))))
        assert reader.kept_paths <= 500
    assert 0 < reader.kept_messages <= 500 * 256 / len(long) + 1


def test_a_result_is_read_by_the_light_of_its_own_call() -> None:
    reader = Reader(Clock(0.0))
    same = result(1, "q.ts")
    for tool, kind in (("list_files", LISTING), ("read_file", 0), ("list_files", LISTING)):
        shown, _ = run(reader.read(body(call(1, tool, path="src"), same)))
        assert shown.kinds(name("src/q.ts")) == kind


PATHS = st.sampled_from(["a/b.ts", "a/c d.ts", "x.md", "/w/a/b.ts", "é/ü.ts", "A/b.ts", "q"])
MESSAGES = st.lists(
    st.one_of(
        PATHS.map(lambda path: [user(f"see {path}")]),
        st.tuples(st.sampled_from(["list_files", "read_file", "bash"]), PATHS, PATHS).map(
            lambda one: [
                call(7, one[0], path=one[1], command=f"ls {one[1]}"),
                result(7, f"{one[2]}\n{one[1]}"),
            ]
        ),
    ),
    max_size=30,
).map(lambda groups: [message for group in groups for message in group])


@given(MESSAGES, st.integers(0, 60))
def test_what_was_kept_and_what_is_new_make_the_same_ledger(
    messages: list[dict[str, Any]], at: int
) -> None:
    reader = Reader(Clock(0.0))
    run(reader.read(body(*messages[:at])))
    warm, _ = run(reader.read(body(*messages)))
    cold = read_all(body(*messages))
    every = USER | ENVIRONMENT | LISTING | CONTENT | CALL | WEB
    shown = {path.key: cold.kinds(path) for path in cold.paths(every)}
    assert {path.key: warm.kinds(path) for path in warm.paths(every)} == shown
    for text in ("a/B.ts", "a/c.ts", "b.ts"):
        alike = [sorted(path.key for path in one.alike(name(text))) for one in (warm, cold)]
        assert alike[0] == alike[1]


def test_many_files_of_one_name_are_not_all_compared() -> None:
    page = Page()
    for at in range(400):
        page.add(f"packages/p{at}/index.ts", LISTING)
    assert Ledger([page]).alike(name("packages/new/index.ts")) == []
