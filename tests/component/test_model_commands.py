"""``appliance model``: fetches, tells and checks, against a hub on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.checkpoint.command import main as prune
from appliance.cli import main
from appliance.modelpull import HOMES
from tests.checkpointbox import Shape, build, write_mask
from tests.checkpoints import TINY, shard_bytes, write_checkpoint
from tests.fakes.rangeserver import COMMIT, Fault, Hub, hub
from tests.pulls import FILES, REPO, SHARDS, UNWANTED, content_of, stored

TOKEN = "hf_SecretSecret"


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub() as there:
        there.add(REPO, FILES | UNWANTED)
        monkeypatch.setenv("HF_ENDPOINT", there.api.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("APPLIANCE_PROFILE", "demo")
        monkeypatch.setenv("APPLIANCE_MODEL_DIR", str(tmp_path / "model"))
        yield there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.mark.parametrize("command", ["", "pull", "info", "check"])
def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    words = ["model", command] if command else ["model"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert "examples:" in told
    assert f"  appliance {' '.join(words)}" in told


# ---- pull


def test_pull_fetches_and_says_what_it_left_out(
    there: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "pull", REPO]) == 0
    assert content_of(folder) == FILES
    told = capsys.readouterr()
    assert f"hf://{REPO}@{COMMIT}" in told.err
    assert "left out: modeling_evil.py (code)" in told.err
    assert "is whole" in told.out
    assert TOKEN not in told.out + told.err


@pytest.mark.parametrize("profile", HOMES)
def test_pull_without_a_name_fetches_the_model_profiles(
    there: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, profile: str
) -> None:
    monkeypatch.setenv("APPLIANCE_MODEL_PROFILE", profile)
    there.add(HOMES[profile], FILES)
    assert main(["model", "pull"]) == 0
    assert content_of(folder) == FILES


def test_pull_for_programs_names_the_commit_and_every_hash(
    there: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "pull", REPO, "--json", "--revision", "main"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert view["commit"] == COMMIT
    assert view["is_there"] is True
    assert view["bytes"] == sum(len(content) for content in FILES.values())
    assert view["files"].keys() == FILES.keys()
    assert len(view["files"][SHARDS[0]]["sha256"]) == 64


def test_a_dry_run_fetches_nothing(
    there: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "pull", REPO, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_there"] is False
    assert there.storage.asked == []
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("name",), 66, "names no repository"),
        (("owner/other",), 66, "is no repository, or a private one"),
        (("owner/Model@v9",), 66, "has no such revision"),
        (("owner/Model@v1", "--revision", "v2"), 78, "two revisions"),
        (("owner/Model", "--jobs", "0"), 2, "no number from 1 to 64"),
        (("owner/Model", "--out", "/dev/null"), 73, "cannot be made"),
    ],
)
def test_a_pull_that_cannot_be_says_why(
    there: Hub, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, says: str
) -> None:
    try:
        ended = main(["model", "pull", *words])
    except SystemExit as end:
        ended = int(end.code or 0)
    told = capsys.readouterr()
    assert ended == code
    assert says in told.err
    assert TOKEN not in told.err


def test_a_profile_without_a_repository_asks_for_a_name(
    there: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APPLIANCE_MODEL_PROFILE", "custom")
    assert main(["model", "pull"]) == 78
    assert "appliance model pull owner/name" in capsys.readouterr().err


def test_a_gated_model_says_how_to_get_it(there: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    there.storage.always[stored(there, SHARDS[0])] = Fault()
    path = f"/{REPO}/resolve/{COMMIT}/{SHARDS[0]}"
    there.api.always[path] = Fault(403, {"X-Error-Code": "GatedRepo"})
    assert main(["model", "pull", REPO]) == 77
    assert "accept its licence" in capsys.readouterr().err


# ---- info


def test_info_tells_the_same_of_a_folder_and_of_a_hub(
    there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "tiny", {"BF16": 4096, "F32": 64}, **TINY)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    there.add("owner/tiny", files)
    views = []
    for text in (str(folder), "hf://owner/tiny"):
        assert main(["model", "info", text, "--json"]) == 0
        views.append(json.loads(capsys.readouterr().out))
    for view in views:
        view.pop("checkpoint")
        view["model"].pop("folder")
        view.pop("memory")  # how much is free changes all the while
        view.pop("fits")
        view.pop("problem")
    assert views[0] == views[1]
    assert views[0]["kv_cache"]["token_bytes"] == 2 * 2 * 2 * 32 * 2
    assert views[0]["model"]["weights_bytes"] == 4160


def test_info_of_a_hub_costs_its_config_and_headers(
    there: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "info", f"hf://{REPO}"]) == 0
    headers = sum(8 + int.from_bytes(FILES[name][:8], "little") for name in SHARDS)
    assert there.storage.sent_bytes == headers
    told = capsys.readouterr().out
    assert "62, 192 experts a layer" in told
    assert "253,952 bytes a token" in told  # 62 layers x 2 x 8 heads x 128 x 2 B


def test_info_says_why_it_does_not_fit(
    there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPLIANCE_MAX_MODEL_LEN", "100000000")
    folder = write_checkpoint(tmp_path / "large", {"BF16": 4096})
    assert main(["model", "info", str(folder)]) == 0
    told = capsys.readouterr().out
    assert "does not fit" in told
    assert "->" in told
    assert main(["model", "info", str(folder), "--json"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert view["fits"] is False
    assert view["problem"]["what"]


def test_info_of_an_unknown_kind_of_cache_says_so(
    there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "odd", architectures=["OddForCausalLM"])
    assert main(["model", "info", str(folder)]) == 0
    assert "OddForCausalLM keep is not known here" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(("text", "code"), [("/nowhere", 66), ("hf://owner/none", 66)])
def test_info_of_nothing_is_an_error(
    there: Hub, capsys: pytest.CaptureFixture[str], text: str, code: int
) -> None:
    assert main(["model", "info", text]) == code
    assert "->" in capsys.readouterr().err


def test_info_of_a_torn_shard_is_an_error(
    there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_checkpoint(tmp_path / "torn")
    (folder / "model.safetensors").write_bytes(shard_bytes({"BF16": 64})[:-1])
    assert main(["model", "info", str(folder)]) == 65
    assert "model.safetensors" in capsys.readouterr().err


# ---- check


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pruned miniature, as delete_experts leaves it."""
    folder = tmp_path_factory.mktemp("check")
    shape = Shape(form="nvfp4", layers=2, experts=4, shards=2)
    mask = write_mask(folder / "mask.json", shape, 3)
    words = [str(build(folder / "source", shape)), str(folder / "out")]
    assert prune([*words, "--deleted-experts-file", str(mask)]) == 0
    return folder / "out"


def published(there: Hub, folder: Path) -> None:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    there.add("owner/sound", files)


def test_check_finds_nothing_wrong_with_what_we_pruned(
    there: Hub, sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(there, sound)
    for text in (str(sound), "hf://owner/sound"):
        assert main(["model", "check", text]) == 0
        assert "nothing found" in capsys.readouterr().out
    assert main(["model", "check", str(sound), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_check_of_the_unpruned_names_each_trap_and_what_to_do(
    there: Hub, sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = sound.parent / "source"
    assert main(["model", "check", str(source)]) == 1
    told = capsys.readouterr().out
    assert "k_bias: vLLM knows no such parameter" in told
    assert "-> delete_experts.py leaves these out" in told
    assert main(["model", "check", str(source), "--json"]) == 1
    view = json.loads(capsys.readouterr().out)
    assert view["ok"] is False
    assert {finding["code"] for finding in view["findings"]} >= {"cache_offset", "needless_file"}


def test_check_of_hashes_finds_a_bit_that_has_turned(
    there: Hub, sound: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(there, sound)
    assert main(["model", "pull", "owner/sound"]) == 0
    assert main(["model", "check", "--hash"]) == 0
    shard = sorted(folder.glob("*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    (folder / "tokenizer.json").unlink()
    with (folder / "generation_config.json").open("a") as longer:
        longer.write(" ")
    capsys.readouterr()
    assert main(["model", "check", "--hash"]) == 1
    told = capsys.readouterr().out
    assert f"{shard.name} has sha256" in told
    assert "tokenizer.json cannot be read: No such file" in told
    assert "generation_config.json has sha1" in told
    assert main(["model", "pull", "owner/sound"]) == 0, "a pull mends it"
    assert main(["model", "check", "--hash"]) == 0


def test_hashes_that_nobody_knows_are_not_checked(
    there: Hub, sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "check", str(sound), "--hash"]) == 78
    assert "nobody knows its hashes" in capsys.readouterr().err


def test_check_of_what_is_no_checkpoint_is_an_error(
    there: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "check", str(tmp_path)]) in (65, 66)
    assert main(["model", "check", str(tmp_path / "none")]) == 66
    assert "->" in capsys.readouterr().err
