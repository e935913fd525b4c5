#!/usr/bin/env bash
# Collects the wheels of the environments with this machine's own pip, so that its settings, its
# certificates and its cache serve every installation after it: wheels.sh FOLDER LOCK...
#
# A lock that has not changed since is not asked for again. FOLDER/uv then installs them.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

folder="$1"
collect() {
  "$folder/tools/bin/pip" -qq wheel --disable-pip-version-check --wheel-dir "$folder" "$@"
}

# For this machine's processor the public index has the build for GPUs alone, which wants more.
make_sure_of_torch() {
  if grep -q '^torch==' "$1" && [[ "$(uname -m)" == x86_64 ]] &&
    ! compgen -G "$folder/torch-*+cpu-*.whl" > /dev/null; then
    echo "$1: torch's CPU build did not come from this machine's index;" \
      "set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu" >&2
    rm -f "$folder"/torch-*.whl
    exit 1
  fi
}

mkdir -p "$folder/locks"
if [[ ! -x "$folder/uv" ]]; then
  "${PYTHON:-python3}" -m venv "$folder/tools"
  # This pip collects in half the time of Debian's.
  "$folder/tools/bin/pip" -qq install --disable-pip-version-check pip==26.3 uv==0.13.9
  collect uv==0.13.9 editables==0.6 "$(sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml)"
  ln -s tools/bin/uv "$folder/uv"
fi
for lock in "${@:2}"; do
  if ! cmp -s "$lock" "$folder/locks/$lock"; then
    collect --no-deps -r "$lock"
    make_sure_of_torch "$lock"
    cp "$lock" "$folder/locks/"
    echo "$lock: $(compgen -G "$folder/*.whl" | wc -l) wheels, $(du -sh "$folder" | cut -f1), $SECONDS s"
  fi
done
