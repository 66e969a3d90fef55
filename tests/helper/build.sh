#!/usr/bin/env bash
# Builds the helper in every form that its tests need, into build/helper; what is fresh stays.
# One at a time: the workers of a parallel run wait for the first.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=build/helper
source=unglitched_vllm/force_swap.cpp
here=tests/helper

declare -A package=([g++]=g++ [aarch64-linux-gnu-g++]=g++-aarch64-linux-gnu [flock]=util-linux
    [qemu-aarch64-static]=qemu-user-static [clang++]=clang [clang-tidy]=clang-tidy
    [clang-format]=clang-format)
missing=()
for tool in "${!package[@]}"; do
    command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
if [ "${#missing[@]}" -gt 0 ]; then
    echo "the helper's tests need: apt-get install -y ${missing[*]}" >&2
    exit 1
fi

mkdir -p "$out"
exec 9>"$out/.lock"
flock 9

warnings=(-std=c++20 -Wall -Wextra -Wconversion -Werror)
sanitize=(-g1 -O0 "-fsanitize=address,undefined" -fno-sanitize-recover=all -fno-omit-frame-pointer)

# make TARGET SOURCE... -- COMMAND...: runs the command when the target is older than a source;
# two at a time.
make() {
    while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
    compile "$@" &
}
compile() {
    local target=$out/$1 stale="" file
    shift
    while [ "$1" != -- ]; do
        file=$1
        if [ ! "$target" -nt "$file" ]; then stale=1; fi
        shift
    done
    shift
    if [ -n "$stale" ] || [ ! "$target" -nt "$here/build.sh" ]; then
        mkdir -p "$(dirname "$target")"
        "$@" -o "$target.new"
        mv "$target.new" "$target"
    fi
}

make native "$source" -- g++ -O2 "${warnings[@]}" "$source"
make sanitized "$source" -- g++ "${sanitize[@]}" "${warnings[@]}" "$source"
make aarch64 "$source" -- aarch64-linux-gnu-g++ -O2 "${warnings[@]}" "$source"
make static "$source" -- g++ -O2 -static -DFORCE_SWAP_NO_CUDA "${warnings[@]}" "$source"
make bounded "$source" "$here/bounded.cpp" -- \
    g++ -O1 "${warnings[@]}" -DFORCE_SWAP_NO_MAIN -Wno-unused-function "$here/bounded.cpp"
make fuzz "$source" "$here/fuzz.cpp" -- \
    clang++ -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -std=c++20 \
    -DFORCE_SWAP_NO_MAIN -Wno-unused-function "$here/fuzz.cpp"
for arch in native aarch64; do
    compiler=g++
    if [ "$arch" = aarch64 ]; then compiler=aarch64-linux-gnu-g++; fi
    stub=$here/stub_cuda.cpp
    make "cuda-$arch/libcuda.so.1" "$stub" -- "$compiler" -shared -fPIC -O1 "${warnings[@]}" "$stub"
    make "cuda-$arch-old/libcuda.so.1" "$stub" -- \
        "$compiler" -shared -fPIC -O1 -DWITHOUT_TOTAL_MEM "${warnings[@]}" "$stub"
done
while [ -n "$(jobs -p)" ]; do wait -n; done
