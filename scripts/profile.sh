# shellcheck shell=sh
# For /etc/profile.d: a shell that sshd has opened gets the container's variables and its PATH.
#
# They are read from process 1, where the container's runtime has put them, and lie in no file.
# What the login has set for itself (HOME, TERM, ...) stays. Another user than the container's
# may not read them and gets none. Only bash can: sh has no way to split at the zero bytes.
# Whoever looks at the shell is told how the newest run stands.
if [ -n "${BASH_VERSION:-}" ] && [ -r /proc/1/environ ]; then
  # shellcheck disable=SC3045
  while IFS= read -r -d '' pair; do
    name="${pair%%=*}"
    case "$name" in
      "" | [0-9]* | *[!A-Za-z0-9_]*) continue ;;
      PATH) ;;
      *) if printenv "$name" > /dev/null; then continue; fi ;;
    esac
    export "${pair?}"
  done < /proc/1/environ
  unset pair name
fi
# shellcheck disable=SC1091
if [ -r /opt/envtune/scripts/volume.sh ]; then . /opt/envtune/scripts/volume.sh; fi
case "$-" in
  *i*) if command -v envtune > /dev/null; then envtune welcome; fi ;;
esac
