# shellcheck shell=sh
# Sourced by the door and by shells: where a volume lies on a part of the working folder alone, the
# caches go there too, as runs and logs do (machine/volumes.py). What the user has set stays.
for volume in /workspace/data/axolotl-artifacts /workspace/data; do
  if [ "${XDG_CACHE_HOME:-}" = /workspace/.cache ] && mountpoint -q "$volume" && ! mountpoint -q /workspace; then
    export XDG_CACHE_HOME="$volume/.cache"
    export TRITON_CACHE_DIR="$XDG_CACHE_HOME/triton" TORCHINDUCTOR_CACHE_DIR="$XDG_CACHE_HOME/inductor"
  fi
done
unset volume
