# shellcheck shell=bash
# Read by scripts that start containers, from the project's folder: what .env says, and how they end.
# Each names itself in SCRIPT first.

fail() { # WHAT HINT: end, with what is wrong and what to type
    echo "${SCRIPT:?}: $1" >&2
    echo "  -> $2" >&2
    exit 1
}

value() { # NAME: of the environment, or else of .env, as Compose reads it
    local name=$1
    if [ -n "${!name:-}" ]; then
        echo "${!name}"
    elif [ -f .env ]; then
        sed -n "s/^$name=//p" .env | tail -n 1 | sed 's/^"\(.*\)"$/\1/'
    fi
}
