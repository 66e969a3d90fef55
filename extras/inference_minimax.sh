#!/usr/bin/env bash
# The bare engine, without the appliance: vLLM with the flags of the appliance's Spark profile.
# For people who have copied this folder into a checkpoint and nothing else. A test holds the
# flags equal to those of appliance/launch.py.
set -euo pipefail

usage() {
    cat <<'USAGE'
usage: inference_minimax.sh [MODEL_DIR] [-- VLLM_FLAG...]

Serves MODEL_DIR (default: the folder above this script) as "Nikola" on 127.0.0.1:8000,
in the first container runner that is installed (dockless, docker, podman), or bare.
Flags after -- go to vLLM after ours, so they win.

variables:
  RUNNER=docker     dockless, docker, podman or bare, instead of the first one found
  IMAGE=...         the container image       (default: vllm/vllm-openai:v0.33.0)
  VLLM=vllm         bare: how vLLM is started
  HOST=127.0.0.1    address; 0.0.0.0 serves the network: set VLLM_API_KEY too
  PORT=8000         port
  VLLM_API_KEY=...  the key that clients must send
  DRY_RUN=1         print the command, a word a line, and start nothing

examples:
  extras/inference_minimax.sh                              the checkpoint above extras/
  RUNNER=bare extras/inference_minimax.sh /models/Nikola
  extras/inference_minimax.sh /models/Nikola -- --max-model-len 16384
USAGE
}

fail() {
    echo "inference_minimax.sh: $1" >&2
    echo "  -> $2" >&2
    exit "${3:-1}"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
model=$(dirname "$here")
case "${1:-}" in
-h | --help)
    usage
    exit 0
    ;;
"" | --) ;;
-*) fail "$1 is no option of this script" "vLLM's flags come after --; see --help" 2 ;;
*)
    model=$1
    shift
    ;;
esac
[ "${1:-}" != "--" ] || shift

[ -d "$model" ] || fail "the model folder $model does not exist" "name the checkpoint's folder"
[ -f "$model/config.json" ] || fail "$model has no config.json" "name the checkpoint's folder"
model=$(cd "$model" && pwd)

runner=${RUNNER:-}
if [ -z "$runner" ]; then
    for candidate in dockless docker podman; do
        if command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
            runner=$candidate
            break
        fi
    done
    runner=${runner:-bare}
fi

host=${HOST:-127.0.0.1}
port=${PORT:-8000}
case "$host" in
127.* | localhost | ::1) ;;
*)
    [ -n "${VLLM_API_KEY:-}" ] ||
        fail "HOST=$host would serve everybody on the network" "set VLLM_API_KEY, or leave HOST out" 2
    ;;
esac

# In a container the model and this folder are seen under fixed names.
case "$runner" in
bare) model_seen=$model extras_seen=$here ;;
dockless | docker | podman) model_seen=/model extras_seen=/extras ;;
*) fail "RUNNER=$runner is no runner" "use dockless, docker, podman or bare" 2 ;;
esac

# The memory is that of a Spark with 121.69 GiB, of which 116 are available before the start:
# 95.72 of weights, 3.28 of KV cache, 4.50 of activations, graphs and CUDA's own, 6 of vLLM's
# processes; 6.5 GiB stay available, 3 of them to grow into. "appliance plan" computes it for your
# machine. --kv-cache-memory-bytes sizes the cache; the utilization is what vLLM asks to be
# available before it loads. Where a start asks for more than there is, or more is to spare,
# change all three together.
flags=(
    --served-model-name Nikola
    --host "$host"
    --port "$port"
    --disable-access-log-for-endpoints "/health,/metrics"
    --enable-prompt-tokens-details
    --gpu-memory-utilization 0.8505
    --kv-cache-memory-bytes 3517972480
    --max-model-len 27648
    --max-num-seqs 2
    --max-num-batched-tokens 2048
    --kv-cache-dtype fp8
    --enable-prefix-caching
    --enable-chunked-prefill
    --async-scheduling
    --attention-backend FLASHINFER
    --moe-backend marlin
    --load-format auto
    --no-enable-flashinfer-autotune
    --cudagraph-capture-sizes 1 2 4
    --enable-auto-tool-choice
    --tool-call-parser minimax_m2
    --reasoning-parser-plugin "$extras_seen/minimax_m2_optthink_reasoning_parser.py"
    --chat-template "$extras_seen/chat_template.jinja"
    --reasoning-parser minimax_m2_optthink
    --override-generation-config '{"temperature": 1.0, "top_p": 0.95, "top_k": 40}'
)

environment=(
    DO_NOT_TRACK=1
    HF_HUB_OFFLINE=1
    PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True
    TRANSFORMERS_OFFLINE=1
    VLLM_HOST_IP=127.0.0.1
    VLLM_MEDIA_URL_ALLOW_REDIRECTS=0
    VLLM_NO_USAGE_STATS=1
)
# Triton's bundled ptxas does not know Thor (sm_110a); the system's CUDA does.
if grep -qsi thor /proc/device-tree/model; then
    environment+=(TRITON_PTXAS_PATH=/usr/local/cuda/bin/ptxas)
fi

if [ "$runner" = bare ]; then
    read -r -a engine <<<"${VLLM:-vllm}"
    command -v "${engine[0]}" >/dev/null ||
        fail "${engine[0]} is not installed" "install vLLM, set VLLM=, or install a container runner"
    command=(env "${environment[@]}" "${engine[@]}" serve "$model_seen" "${flags[@]}" "$@")
else
    # --network host: vLLM itself listens on $host, loopback unless told otherwise
    command=("$runner" run --rm --init --network host --shm-size 16g)
    case "$runner" in
    podman) command+=(--device nvidia.com/gpu=all) ;;
    *) command+=(--gpus all) ;;
    esac
    for entry in "${environment[@]}"; do command+=(--env "$entry"); done
    command+=(--env VLLM_API_KEY) # by name: the key stays out of the command line
    command+=(--volume "$model:/model:ro" --volume "$here:/extras:ro" --entrypoint vllm)
    command+=("${IMAGE:-vllm/vllm-openai:v0.33.0}" serve "$model_seen" "${flags[@]}" "$@")
fi

if [ -n "${DRY_RUN:-}" ]; then
    printf '%s\n' "${command[@]}"
    exit 0
fi
echo "serving $model with $runner on http://$host:$port/v1" >&2
exec "${command[@]}"
