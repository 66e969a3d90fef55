"""``appliance model``: fetch a checkpoint, look at one, check one, make a smaller one."""

import argparse
from pathlib import Path
from typing import Any

from appliance.checkpoint.flags import (
    EXIT_CODES,
    add_common,
    add_folders,
    add_pruning,
    add_quantising,
)
from appliance.commandline import add_command, settings_of

JOBS = 8  # files at a time
_VARIABLES = (
    "the hub is that of HF_ENDPOINT (default https://huggingface.co); the token, of HF_TOKEN,\n"
    "HF_TOKEN_PATH or HF_HOME/token, is sent to that host alone, over https\n"
)


def add_model_command(commands: Any) -> None:
    """Add ``appliance model`` with its own commands."""
    examples = (
        "  appliance model pull                   fetch the model profile's checkpoint\n"
        "  appliance model info hf://owner/name   what it is, and whether it fits this box\n"
        "  appliance model check                  is the folder's checkpoint sound?\n"
        "  appliance model shrink SRC DST …       fewer experts, and attention in 8 bits\n"
        "appliance model pull --help tells more of one of them"
    )
    about = "fetch a checkpoint, look at one, check one, make a smaller one"
    parser = add_command(commands, "model", about, examples, lambda _options: 2)
    model = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_pull(model)
    _add_info(model)
    _add_check(model)
    _add_shrink(model)


# ---- pull


def _add_pull(model: Any) -> None:
    examples = (
        "  appliance model pull                       the model profile's, into its folder\n"
        "  appliance model pull owner/name@v1.0 --out /models/other\n"
        "  appliance model pull owner/name --revision COMMIT --dry-run\n"
        f"{_VARIABLES}"
        "the same command goes on with an interrupted pull, at the same commit; a file gets its\n"
        "name only once its SHA-256 (a small one's: git's hash) is the one that the hub names\n"
        "exit codes:\n"
        "  0 all is there, and verified               65 no sound checkpoint, or a wrong hash\n"
        "  66 no such repository or revision          73 the folder is not ours, or too small\n"
        "  74 the disk is full                        75 no answer now: the same again later\n"
        "  76 the hub breaks its own rules            77 a token or a licence is missing\n"
        "  130 interrupted"
    )
    about = "fetch a checkpoint from a hub: resumed, verified, whole or not at all"
    parser = add_command(model, "pull", about, examples, _pull)
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="owner/name[@revision]; default: the profile's"
    )
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit; default: main")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: APPLIANCE_MODEL_DIR")
    parser.add_argument(
        "--jobs", type=_jobs, default=JOBS, metavar="N", help=f"files at a time; default: {JOBS}"
    )
    parser.add_argument("--keep-code", action="store_true", help="Python files and pickles, too")
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="a folder that something else has fetched: what is "
        "right in it stays, the rest is fetched",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be fetched")
    parser.add_argument("--json", action="store_true", help="for programs")


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:4]) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 64")
    return int(text)


def _pull(options: argparse.Namespace) -> int:
    from appliance.modelpull import Wish, run_pull  # what reads a hub takes its time to load

    wish = Wish(
        name=options.name,
        revision=options.revision,
        folder=options.out,
        jobs=options.jobs,
        keep_code=options.keep_code,
        adopt=options.adopt,
        is_dry=options.dry_run,
        as_json=options.json,
    )
    return run_pull(wish, settings_of(options))


# ---- info


def _add_info(model: Any) -> None:
    examples = (
        "  appliance model info                       the checkpoint in APPLIANCE_MODEL_DIR\n"
        "  appliance model info /models/other --profile thor\n"
        "  appliance model info hf://owner/name@v1.0  its headers are read, nothing is kept\n"
        "  appliance model info https://host/folder --json\n"
        f"{_VARIABLES}"
        "exit codes: 0 told, whether it fits or not; 1, 65, 66, 75 to 77 it could not be read"
    )
    about = "say what a checkpoint is, what a token reads of it, and whether it fits this box"
    parser = add_command(model, "info", about, examples, _info)
    parser.add_argument("checkpoint", nargs="?", metavar="DIR|hf://…", help="default: the model's")
    parser.add_argument("--profile", metavar="BOX", help="spark, thor or demo")
    parser.add_argument("--json", action="store_true", help="for programs")


def _info(options: argparse.Namespace) -> int:
    from appliance.modelinfo import print_info  # as above: it takes its time

    settings = settings_of(options)
    text = options.checkpoint or str(settings.model_dir)
    return print_info(text, settings, as_json=options.json)


# ---- check


def _add_check(model: Any) -> None:
    examples = (
        "  appliance model check                      the checkpoint in APPLIANCE_MODEL_DIR\n"
        "  appliance model check /models/other --hash\n"
        "                                             and every byte, by the hashes of its pull\n"
        "  appliance model check hf://owner/name      headers and scales, before it is fetched\n"
        "it looks for experts and tensors that lack, routers and biases of a wrong size, routers\n"
        "that are quantised, scales that lack, are 0 or not finite, or differ between w1 and w3,\n"
        "KV offsets (vLLM refuses them), an index that does not fit, lacking keys, and code; and\n"
        "where formats are mixed, names, types and scales that vLLM would not find or not take\n"
        "exit codes: 0 no error, 1 an error was found, 65 it is no checkpoint, 66, 75 to 77 it\n"
        "could not be read, 78 --hash without a pull"
    )
    about = "look for what keeps a checkpoint from loading, or makes it talk nonsense"
    parser = add_command(model, "check", about, examples, _check)
    parser.add_argument("checkpoint", nargs="?", metavar="DIR|hf://…", help="default: the model's")
    parser.add_argument("--hash", action="store_true", help="read every file and compare its hash")
    parser.add_argument("--json", action="store_true", help="for programs")


def _check(options: argparse.Namespace) -> int:
    from appliance.modelcheck import print_check  # as above: it takes its time

    text = options.checkpoint or str(settings_of(options).model_dir)
    return print_check(text, with_hashes=options.hash, as_json=options.json)


# ---- shrink


def _add_shrink(model: Any) -> None:
    examples = (
        "  appliance model shrink SRC DST --deleted-experts-file deleted_experts.json\n"
        "  appliance model shrink hf://owner/name DST --deleted-experts-file F --lm-head --verify\n"
        "  appliance model shrink SRC DST --compare-with REF --dry-run --chart errors.svg\n"
        "what delete_experts and quantize_attention of extras/ do, in one pass: the checkpoint\n"
        "between them is not written. Of a remote SRC only what stays is fetched; attention is\n"
        "fetched twice, to measure it and to write it. Quantising needs numpy.\n"
        f"{_VARIABLES}{EXIT_CODES}"
    )
    about = "make a smaller checkpoint: fewer experts, and attention in 8 or 4 bits"
    parser = add_command(model, "shrink", about, examples, _shrink)
    add_folders(parser, "the checkpoint with all experts, its attention in BF16")
    add_pruning(parser)
    add_quantising(parser)
    add_common(parser)


def _shrink(options: argparse.Namespace) -> int:
    from appliance.checkpoint.asked import finish, job_of, pruning_of, quantising_of  # as above

    pruning, quantising = pruning_of(options), quantising_of(options)
    return finish(job_of("appliance model shrink", options, pruning=pruning, quantising=quantising))
