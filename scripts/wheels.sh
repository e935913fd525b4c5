#!/usr/bin/env bash
# Collects the wheels of the environments with this machine's own pip, so that its settings, its
# certificates and its cache serve every installation after it: wheels.sh FLAVOR FOLDER LOCK...
#
# A folder holds one flavour: of two builds of torch an installer takes the CPU's, whose version is
# the higher. A lock that has not changed since is not asked for again. FOLDER/uv then installs them.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

flavor="$1" folder="$2"
if [[ "$flavor" == cuda ]]; then
  # Where a machine is set up for CPUs, its own list of places would give the other build. The
  # index and the certificate stay, if they are in the environment.
  export PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS="" PIP_EXTRA_INDEX_URL=""
  export DS_BUILD_OPS=0  # DeepSpeed comes as source and compiles its parts where they are needed
fi

collect() {
  "$folder/tools/bin/pip" -qq wheel --disable-pip-version-check --wheel-dir "$folder" "$@"
}

# The public index has the build for GPUs alone on this processor, other places that for CPUs.
make_sure_of_torch() {
  if ! grep -q '^torch==' "$1" || [[ "$(uname -m)" != x86_64 ]]; then return; fi
  local has_cpu=no
  if compgen -G "$folder/torch-*+cpu-*.whl" > /dev/null; then has_cpu=yes; fi
  case "$flavor-$has_cpu" in
    cpu-yes | cuda-no) return ;;
    cpu-no) echo "$1: torch's CPU build did not come from this machine's index;" \
      "set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu" >&2 ;;
    cuda-yes) echo "$1: torch's CPU build came from this machine's index; set PIP_INDEX_URL" >&2 ;;
  esac
  rm -f "$folder"/torch-*.whl
  exit 1
}

mkdir -p "$folder/locks"
if [[ ! -x "$folder/uv" ]]; then
  "${PYTHON:-python3}" -m venv "$folder/tools"
  # This pip collects in half the time of Debian's.
  "$folder/tools/bin/pip" -qq install --disable-pip-version-check pip==26.3 uv==0.13.9
  collect uv==0.13.9 editables==0.6 "$(sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml)"
  ln -s tools/bin/uv "$folder/uv"
fi
for lock in "${@:3}"; do
  if ! cmp -s "$lock" "$folder/locks/$lock"; then
    collect --no-deps -r "$lock"
    make_sure_of_torch "$lock"
    cp "$lock" "$folder/locks/"
    echo "$lock: $(compgen -G "$folder/*.whl" | wc -l) wheels, $(du -sh "$folder" | cut -f1), $SECONDS s"
  fi
done
