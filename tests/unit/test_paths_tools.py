"""Tools and their keys: what is told from names and schemas, and what is not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.pathtext import shell_words
from appliance.pathtools import (
    Deed,
    KeyKind,
    creates,
    deed_of,
    is_listing,
    is_web,
    key_kind,
    listed_folder,
    read_tools,
    words_of,
)


@pytest.mark.parametrize(
    ("name", "deed"),
    [
        ("read_file", Deed.READ),
        ("Read", Deed.READ),
        ("mcp__filesystem__read_text_file", Deed.READ),
        ("readFile", Deed.READ),
        ("list_files", Deed.LIST),
        ("Glob", Deed.LIST),
        ("str_replace_based_edit_tool", Deed.EDIT),
        ("replace_in_file", Deed.EDIT),
        ("write_to_file", Deed.CREATE),
        ("create_directory", Deed.CREATE),
        ("delete_file", Deed.DANGER),
        ("move_file", Deed.DANGER),
        ("bash", Deed.DANGER),
        ("execute_command", Deed.DANGER),
        ("run_terminal_cmd", Deed.DANGER),
        ("read_and_delete", Deed.DANGER),
        ("git_rm", Deed.DANGER),
        ("upload_file", Deed.DANGER),
        ("frobnicate", Deed.UNCLEAR),
        ("manage_file", Deed.UNCLEAR),
        ("", Deed.UNCLEAR),
    ],
)
def test_a_name_tells_what_a_tool_does(name: str, deed: Deed) -> None:
    assert deed_of(name, "", {}) is deed


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ("Reads a file, or deletes it.", schema(path=TEXT)),
        ("Reads a file. When asked, it is moved.  It moves it then.", schema(path=TEXT)),
        ("", schema(path=TEXT, action={"enum": ["read", "delete"]})),
        ("", schema(path=TEXT, mode={"enum": ["keep", "remove"]})),
        ("", schema(path=TEXT, operation=TEXT)),
        ("", schema(path=TEXT, command=TEXT)),
        ("", schema(source=TEXT, destination=TEXT)),
        ("", schema(old_path=TEXT, newPath=TEXT)),
        ("", schema(path=TEXT, delete={"type": "boolean"})),
    ],
)
def test_a_schema_that_says_danger_outweighs_a_harmless_name(
    description: str, told: dict[str, Any]
) -> None:
    assert deed_of("read_file", description, told) is Deed.DANGER


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ("Reads a file from the local filesystem.", schema(filePath=TEXT, offset={})),
        ("View a file.", schema(path=TEXT, command={"enum": ["view", "create", "str_replace"]})),
        ("", None),
        ("", schema(path=TEXT, mode=TEXT)),
        ("", {"properties": ["odd"]}),
    ],
)
def test_a_schema_that_says_nothing_else_leaves_the_name_its_word(
    description: str, told: Any
) -> None:
    assert deed_of("read_file", description, told) is Deed.READ


@pytest.mark.parametrize("shape", ["chat", "messages", "responses"])
def test_the_tools_of_each_api_are_read(shape: str) -> None:
    told = schema(path=TEXT, action={"enum": ["delete"]})
    tool: dict[str, Any] = {"name": "view", "description": "Views."}
    request = {
        "chat": {"type": "function", "function": {**tool, "parameters": told}},
        "messages": {**tool, "input_schema": told},
        "responses": {"type": "function", **tool, "parameters": told},
    }[shape]
    assert read_tools([request]).deed("view") is Deed.DANGER
    assert read_tools([request]).deed("read_other") is Deed.READ


ODD = st.recursive(
    st.none() | st.text(max_size=5),
    lambda one: (
        st.lists(one) | st.dictionaries(st.sampled_from(["function", "name", "parameters"]), one)
    ),
)


@given(ODD)
def test_no_list_of_tools_makes_reading_fail(tools: Any) -> None:
    assert isinstance(read_tools(tools).deed("read"), Deed)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        *((key, KeyKind.PATH) for key in ("path", "file_path", "filePath", "paths", "dir", "cwd",
          "AbsolutePath", "target_file", "relative_workspace_path", "TargetFile", "notebook_path",
          "DirectoryPath", "files", "workdir", "filename", "source", "destination")),
        *((key, KeyKind.COMMAND) for key in ("command", "cmd", "CommandLine", "script")),
        *((key, KeyKind.PATCH) for key in ("patch", "patchText", "diff", "input")),
        *((key, KeyKind.TEXT) for key in ("content", "oldString", "new_string", "pattern", "regex",
          "query", "description", "glob", "file_text", "url")),
        *((key, KeyKind.OTHER) for key in ("offset", "x", "", "item")),
    ],
)  # fmt: skip
def test_a_key_tells_what_its_values_are(key: str, kind: KeyKind) -> None:
    assert key_kind(key) is kind


@pytest.mark.parametrize("key", ["new_path", "newPath", "destination", "dest", "to", "output_file"])
def test_keys_of_what_need_not_be_there(key: str) -> None:
    assert creates(key)


@pytest.mark.parametrize("key", ["path", "target_file", "source", "old_path", "from"])
def test_keys_of_what_is_there(key: str) -> None:
    assert not creates(key)


@pytest.mark.parametrize(
    "name", ["list_files", "LS", "Glob", "list_dir", "directory_tree", "find_files", "file_search",
             "mcp__filesystem__list_directory", "tree", "listDirectory"],
)  # fmt: skip
def test_tools_that_list_files(name: str) -> None:
    assert is_listing(name)


@pytest.mark.parametrize(
    "name", ["read_file", "list_issues", "search_files", "grep", "list_code_definition_names",
             "web_list_files", "fetch_tree", "list_file_contents", "search_notes", "bash"],
)  # fmt: skip
def test_tools_that_return_more_than_names(name: str) -> None:
    assert not is_listing(name)


@pytest.mark.parametrize("name", ["WebFetch", "fetch_url", "read_url_content", "browser_view"])
def test_tools_of_the_web(name: str) -> None:
    assert is_web(name)


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("ls", ""),
        ("ls -la src", "src"),
        ("cd /w && ls src", "/w/src"),
        ("cd /w; find . -name '*.ts' | sort | head -50", "/w"),
        ("git ls-files | grep -v test", ""),
        ("rg --files src", ""),
        ("tree -L 2 /w", "/w"),
        ("ls 2>/dev/null a", ""),
    ],
)
def test_commands_that_list_files(command: str, folder: str) -> None:
    assert listed_folder(shell_words(command)) == folder


@pytest.mark.parametrize(
    "command",
    [
        "cat a",
        "ls && cat a",
        "cat a | grep b",
        "ls | xargs cat",
        "find . -exec cat {} +",
        "find . -printf '%p'",
        "ls $(cat a)",
        "ls `cat a`",
        "ls | grep -f words",
        "ls; grep -r x src",
        "ls | head -3 secrets.txt",
        "rg x",
        "git log",
        "echo a/b",
        "head a",
        "",
    ],
)
def test_commands_that_may_print_anything_else(command: str) -> None:
    assert listed_folder(shell_words(command)) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("readTextFile", ["read", "text", "file"]),
        ("mcp__fs__read_file", ["mcp", "fs", "read", "file"]),
        ("LS", ["ls"]),
        ("HTTPFetch", ["http", "fetch"]),
    ],
)
def test_the_words_of_a_name(name: str, words: list[str]) -> None:
    assert words_of(name) == words
