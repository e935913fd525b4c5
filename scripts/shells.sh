#!/usr/bin/env bash
# Lets people in where a variable asks for it, and nobody otherwise:
#
#   PUBLIC_KEY         sshd on SSH_PORT (22), for the owners of those keys alone; SSH_KEY adds more
#   JUPYTER_PASSWORD   Jupyter on JUPYTER_PORT (8888), behind that password; JUPYTER_DISABLE keeps it shut
#
# Both work as this user and stay beside the run. A program that is not installed is told.
set -Eeuo pipefail

missing() {
  echo "$1 is set and $2 is not installed: nothing listens" >&2
}

# RunPod's variable for all of an account's keys, and the one for a pod's own.
keys="${PUBLIC_KEY:-}${SSH_KEY:+
$SSH_KEY}"

# A key that sshd would pass over in silence is told, and none is printed.
check_keys() {
  if ! ssh-keygen -l -f "$1" > /dev/null 2>&1; then
    echo "PUBLIC_KEY and SSH_KEY hold no public key of SSH (ssh-ed25519 AAAA...): sshd does not start" >&2
    return 1
  fi
}

# Everything is in a folder of its own: the home may be a volume that others use too.
#
# Whatever is asked for runs in a login shell where the container works: commands get its variables
# (profile.sh) too, and `outputs` is the run's. For that sftp is a program here, not sshd itself.
start_sshd() {
  local sshd folder session name=SSH_KEY
  if [[ -n "${PUBLIC_KEY:-}" ]]; then name=PUBLIC_KEY; fi
  sshd="$(command -v sshd)" || { missing "$name" sshd; return; }
  folder="$(mktemp -d)"
  ssh-keygen -q -t ed25519 -N "" -f "$folder/host"
  echo "$keys" > "$folder/authorized"
  check_keys "$folder/authorized" || return 0
  if ((EUID == 0)); then
    mkdir -p /run/sshd  # where it separates its privileges
  fi
  # shellcheck disable=SC2016  # the session's shell fills it in
  session="cd ${PWD@Q}; "'exec bash -l ${SSH_ORIGINAL_COMMAND:+-c "$SSH_ORIGINAL_COMMAND"}'
  "$sshd" -f /dev/null -h "$folder/host" -p "${SSH_PORT:-22}" -E "$folder/log" \
    -o AuthorizedKeysFile="$folder/authorized" -o StrictModes=no -o PidFile=none -o UsePAM=no \
    -o Subsystem="sftp /usr/lib/openssh/sftp-server" -o ForceCommand="$session" \
    -o PasswordAuthentication=no -o KbdInteractiveAuthentication=no -o PermitRootLogin=prohibit-password
}

# The password goes by the environment: a command line can be read by anybody.
start_jupyter() {
  command -v jupyter > /dev/null || { missing JUPYTER_PASSWORD jupyter; return; }
  JUPYTER_TOKEN="$JUPYTER_PASSWORD" nohup jupyter lab --no-browser --allow-root \
    --ip=0.0.0.0 --port="${JUPYTER_PORT:-8888}" > /dev/null 2>&1 &
}

if [[ -n "${keys//[[:space:]]/}" ]]; then
  start_sshd
fi
case "${JUPYTER_DISABLE:-}" in
  "" | 0 | false | False | FALSE | no) if [[ -n "${JUPYTER_PASSWORD:-}" ]]; then start_jupyter; fi ;;
  *) if [[ -n "${JUPYTER_PASSWORD:-}" ]]; then echo "JUPYTER_DISABLE is set: Jupyter stays shut" >&2; fi ;;
esac
