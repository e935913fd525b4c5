#!/usr/bin/env bash
# Writes the hashes of all that a lock pins into it, as the index tells them: lock.sh LOCK...
#
# The names and versions of a lock stay, and so do its comments. Every file of a version counts, for
# each processor and as source. Where the index is a mirror, PIP_INDEX_URL says so.
set -Eeuo pipefail
cd "$(dirname "$0")/.."

# torch's builds for CPUs have the version of the plain build and lie in an index of their own:
# cp311 for x86_64 and for aarch64. A lock takes either build, by its bytes.
torch_cpu=(
  torch==2.13.0
  sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
  sha256:84453b69508ec79902f899c5ed9495acb9e2bbe9fda5f1d5d6f19e3c3842e1a7
)

pins() {
  sed -n 's/^\([A-Za-z0-9][^ ;]*==[^ \\]*\).*/\1/p' "$1"
}

hashed() {
  .venv/bin/uv pip compile --quiet --no-config --no-deps --generate-hashes --no-annotate --no-header \
    --python-version 3.11 --default-index "${PIP_INDEX_URL:-https://pypi.org/simple}" -
}

with_torch_cpu() {
  sed "s/^${torch_cpu[0]} /&\\\\\n    --hash=${torch_cpu[1]} \\\\\n    --hash=${torch_cpu[2]} /"
}

for lock in "$@"; do
  if [[ "$(pins "$lock" | grep '^torch==')" != "${torch_cpu[0]}" ]] && grep -q '^torch==' "$lock"; then
    echo "$lock: scripts/lock.sh has the hashes of the CPU builds of ${torch_cpu[0]} alone" >&2
    exit 1
  fi
  { grep '^#' "$lock"; pins "$lock" | hashed | with_torch_cpu; } > "$lock.new"
  mv "$lock.new" "$lock"
  echo "$lock: $(pins "$lock" | wc -l) packages, $(grep -c 'hash=' "$lock") hashes"
done
