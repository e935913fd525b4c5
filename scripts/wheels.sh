#!/usr/bin/env bash
# Collects the wheels of the environments with this machine's own pip, so that its settings, its
# certificates and its cache serve every installation after it: wheels.sh FLAVOR FOLDER LOCK...
#
# A folder holds one flavour: of two builds of torch an installer takes the CPU's, whose version is
# the higher. A lock that has not changed since is not asked for again. FOLDER/uv then installs them.
#
# What comes has the bytes that the lock names. FOLDER/own/LOCK names those that lie here then: a
# wheel that is made of a source on this machine has bytes that no index knows.
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
  asked "$1" > "$folder/asked.txt"
  "$folder/tools/bin/pip" -qq wheel --disable-pip-version-check --wheel-dir "$folder" \
    --no-deps --require-hashes -r "$folder/asked.txt"
}

# Where both builds of torch are offered pip takes that of which it knows the hash before it has the
# file: the index's, not the one in a folder. For this processor each flavour has one by its name.
asked() {
  if [[ "$flavor-$(uname -m)" == cpu-x86_64 ]]; then sed 's/^torch==[^ ]*/&+cpu/' "$1"; else cat "$1"; fi
}

# A name of a lock has a - where a wheel has a _ or a dot; torch's build is behind its version.
own_lock() {
  local name version wheels
  sed -n 's/^\([^ #]*\)==\([^ ;\\]*\).*/\1 \2/p' "$1" | while read -r name version; do
    mapfile -t wheels < <(find "$folder" -maxdepth 1 -iname "${name//[-_.]/?}-${version}[-+]*.whl")
    if ((!${#wheels[@]})); then
      echo "$1: no wheel of $name $version lies in $folder" >&2
      return 1
    fi
    echo "$name==$version $(sha256sum "${wheels[@]}" | sed 's/ .*//; s/^/--hash=sha256:/' | paste -sd ' ')"
  done > "$folder/own/$1.new"
  mv "$folder/own/$1.new" "$folder/own/$1"
}

# The public index has the build for GPUs alone on this processor, other places that for CPUs.
explain() {
  if ! grep -q '^torch==' "$1"; then return; fi
  case "$flavor" in
    cpu) echo "$1: where torch's CPU build is what does not come, set" \
      "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu" ;;
    cuda) echo "$1: where torch's CPU build is what comes, set PIP_INDEX_URL" ;;
  esac >&2
}

make_sure_of_torch() {
  if [[ "$flavor" == cuda ]] && compgen -G "$folder/torch-*+cpu-*.whl" > /dev/null; then
    rm -f "$folder"/torch-*.whl
    return 1
  fi
}

mkdir -p "$folder/locks" "$folder/own"
build=requirements-build.txt
if [[ ! -x "$folder/uv" ]]; then
  "${PYTHON:-python3}" -m venv "$folder/tools"
  # This pip collects in half the time of Debian's.
  "$folder/tools/bin/pip" -qq install --disable-pip-version-check --no-deps --require-hashes -r "$build"
  ln -s tools/bin/uv "$folder/uv"
fi
for lock in "$build" "${@:3}"; do
  if ! cmp -s "$lock" "$folder/locks/$lock"; then
    { collect "$lock" && make_sure_of_torch; } || { explain "$lock"; exit 1; }
    own_lock "$lock"
    cp "$lock" "$folder/locks/"
    echo "$lock: $(compgen -G "$folder/*.whl" | wc -l) wheels, $(du -sh "$folder" | cut -f1), $SECONDS s"
  fi
done
