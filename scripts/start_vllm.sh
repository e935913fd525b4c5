#!/usr/bin/env bash
# Serves what was trained with vLLM until it is stopped, as `envtune serve` does:
#
#   start_vllm.sh CONFIG.yaml [--FLAG VALUE ...]   flags of vLLM in a file (vllm_config_example.yaml)
#   start_vllm.sh RUN [--FLAG VALUE ...]           a run, by its name or its folder
set -Eeuo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ -x "$here/.venv/bin/envtune" ]]; then
  export PATH="$here/.venv/bin:$PATH"
fi
if (($# == 0)) || [[ "$1" == -* ]]; then
  sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 1
fi

# --max-model-len 64, --max-model-len=64 and a bare --enforce-eager -> SFT_SERVE_<FLAG>=VALUE
words=("$1")
shift
while (($#)); do
  word="$1" value=true
  shift
  if [[ "$word" == --* ]]; then
    flag="${word#--}"
    if [[ "$flag" == *=* ]]; then
      value="${flag#*=}" flag="${flag%%=*}"
    elif (($#)) && [[ "$1" != --* ]]; then
      value="$1"
      shift
    fi
    flag="${flag//-/_}"
    word="SFT_SERVE_${flag^^}=$value"
  fi
  words+=("$word")
done
exec envtune serve "${words[@]}"
