#!/usr/bin/env bash
# The door of the container: check the environment, log in, configure, train.
#
#   autorun.sh              trains what AXOLOTL_* and SFT_* say
#   autorun.sh idle         keeps the container for a shell
#   autorun.sh COMMAND ...  runs that command untouched
#
# Sourced, it only defines its functions. As process 1 of a container it needs an init in
# front (tini -g, docker run --init): the kernel drops a SIGTERM that process 1 does not handle.
# A stop before the run ends it with 143 and a last word, whoever of its processes is told.
set -Eeuo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# The environment that `make setup` makes, unless the image has put its own on PATH.
use_environment() {
  if [[ -x "$here/.venv/bin/envtune" ]]; then
    export PATH="$here/.venv/bin:$PATH"
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
  python -P "$here/scripts/configure.py" --check
}

# A key that is missing or refused is told and stops nothing.
login() {
  envtune login
}

# Prints the folder of the run on stdout, everything else on stderr.
configure() {
  python -P "$here/scripts/configure.py"
}

# Ends as SFT_ON_FAIL says with the exit code of what failed before the run.
finish() {
  case "$1" in
    5 | 200 | 201 | 202) echo "\`envtune doctor\` looks what this machine lacks" >&2 ;;
  esac
  exec envtune finish "$1"
}

# Does a part so that a stop interrupts it: bash looks at no signal while it waits in the
# foreground. A job has a process group of its own, and is not told twice.
part() {
  set -m
  "$@" &
  child=$!
  set +m
  wait "$child"
}

# Ends what is being done, by SIGKILL after two seconds, and this script with the code.
stopped() {
  trap '' TERM INT HUP
  if [[ -n "${child:-}" ]] && kill -TERM -- "-$child"; then
    for _ in {1..20}; do kill -0 -- "-$child" && sleep 0.1; done
    kill -KILL -- "-$child" || true
  fi 2> /dev/null
  finish "$1"
}

idle() {
  envtune welcome || echo "the shell is there all the same" >&2
  exec sleep infinity
}

main() {
  trap 'stopped 143' TERM
  trap 'stopped 130' INT
  use_environment
  . "$here/scripts/volume.sh"
  if ((EUID)) && [[ "$(id -g)" == 0 ]]; then  # a cluster's next user has only the group in common
    umask 0002
  fi
  case "${1:-}" in
    "" | -* | idle) need_envtune ;;
    *) exec "$@" ;;
  esac
  if (($$ == 1 || PPID == 1)); then  # the container's own start, not one from a shell
    "$here/scripts/shells.sh" || echo "what is said above stays closed; going on" >&2
  fi
  case "${1:-}" in
    "") ;;
    idle) idle ;;
    *) exec envtune "$@" ;;
  esac
  part check || finish "$?"
  part login
  local folder
  exec 3<> <(:)  # a pipe that holds the one line
  part configure >&3 || finish "$?"
  read -r folder <&3
  exec 3>&-
  # Until Python has its handlers a stop waits.
  exec env --block-signal=TERM --block-signal=INT envtune run --folder "$folder"
}

if [[ "${BASH_SOURCE[0]}" == "$0" ]]; then
  main "$@"
fi
