#!/usr/bin/env bash
# The door of the container: check the environment, log in, configure, train.
#
#   autorun.sh              trains what AXOLOTL_* and SFT_* say
#   autorun.sh idle         keeps the container for a shell
#   autorun.sh COMMAND ...  runs that command untouched
#
# Sourced, it only defines its functions. As process 1 of a container it needs an init in
# front (tini -g, docker run --init): the kernel drops a SIGTERM that process 1 does not handle.
set -Eeuo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# The environment that `make setup` makes, unless the image has put its own on PATH.
use_environment() {
  if [[ -x "$here/.venv/bin/envtune" ]]; then
    PATH="$here/.venv/bin:$PATH"
    export PATH
  fi
}

need_envtune() {
  if ! command -v envtune > /dev/null; then
    echo "envtune is not installed: run \`make setup\` in $here first" >&2
    exit 1
  fi
}

# Wrong variables end here, before anything slow; nothing is written.
check() {
  python "$here/scripts/configure.py" --check
}

# A key that is missing or refused is told and stops nothing.
login() {
  envtune login
}

# Prints the folder of the run on stdout, everything else on stderr.
configure() {
  python "$here/scripts/configure.py"
}

idle() {
  echo "envtune is idle. Try: envtune check; scripts/autorun.sh; envtune --help"
  exec sleep infinity
}

main() {
  use_environment
  case "${1:-}" in
    "" | -*) need_envtune ;;
    idle) idle ;;
    *) exec "$@" ;;
  esac
  if (($#)); then
    exec envtune "$@"
  fi
  check
  login
  local folder
  folder="$(configure)"
  exec envtune run --folder "$folder"
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  main "$@"
fi
