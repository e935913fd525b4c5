#!/usr/bin/env bash
# Lets people in where a variable asks for it, and nobody otherwise:
#
#   PUBLIC_KEY         sshd on SSH_PORT (22), for the owner of that key alone
#   JUPYTER_PASSWORD   Jupyter on JUPYTER_PORT (8888), behind that password
#
# Both work as this user and stay beside the run. A program that is not installed is told.
set -Eeuo pipefail

missing() {
  echo "$1 is set and $2 is not installed: nothing listens" >&2
}

# Everything is in a folder of its own: the home may be a volume that others use too.
#
# Whatever is asked for runs in a login shell where the container works: commands get its variables
# (profile.sh) too, and `outputs` is the run's. For that sftp is a program here, not sshd itself.
start_sshd() {
  local sshd folder session
  sshd="$(command -v sshd)" || { missing PUBLIC_KEY sshd; return; }
  folder="$(mktemp -d)"
  ssh-keygen -q -t ed25519 -N "" -f "$folder/host"
  echo "$PUBLIC_KEY" > "$folder/authorized"
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

if [[ -n "${PUBLIC_KEY:-}" ]]; then
  start_sshd
fi
if [[ -n "${JUPYTER_PASSWORD:-}" ]]; then
  start_jupyter
fi
