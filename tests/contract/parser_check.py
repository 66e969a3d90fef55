"""Run inside the engine's environment: feeds command lines to vLLM's own argument parser.

Reads ``{"argvs": [[...], ...]}`` from standard input; prints ``{"flags": [...]}``, every flag
that the parser knows. Ends with argparse's code 2, and its words, when one is refused.
"""

import importlib
import json
import sys

# 0.32's home of the parser, then 0.33's
HOMES = ("vllm.entrypoints.launchers.cli_args", "vllm.entrypoints.common.cli_args")


def main() -> None:
    """Parse each; print the flags."""
    argvs = json.load(sys.stdin)["argvs"]
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    for name in HOMES:
        try:
            home = importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        break
    else:
        sys.exit("vLLM's serve parser has moved: look for make_arg_parser")
    parser = home.make_arg_parser(FlexibleArgumentParser())
    for argv in argvs:
        parser.parse_args(argv)
    flags = sorted(flag for action in parser._actions for flag in action.option_strings)
    print(json.dumps({"flags": flags}))


if __name__ == "__main__":
    main()
