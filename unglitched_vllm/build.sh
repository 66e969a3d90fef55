#!/usr/bin/env bash
# From vLLM's own release to our engine. The work is in source/*.py; --help says what there is.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-python3}"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "build: $python is no Python 3.11 or newer" >&2
    echo "  -> PYTHON=python3.12 $0 $*" >&2
    exit 1
fi
PYTHONPATH="${here%/*}${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m unglitched_vllm.source "$@"
