#!/bin/sh
# Runs a command with Swift in the current folder: with the Swift on the PATH, or with Debian 13's, which
# install_swift.sh puts into a root of its own. There the project has the same path as outside.
#   swift.sh                   its version; fails where there is none
#   swift.sh COMMAND …         e.g. swift.sh swift test
set -eu
root=${RDD_EDGE_SWIFT_ROOT:-/opt/rdd-edge-swift}
[ $# -gt 0 ] || set -- swift --version
if command -v swift >/dev/null && swift --version 2>/dev/null | grep -q "Swift version"; then
    exec "$@"
fi
[ "$(id -u)" = 0 ] && [ -x "$root/usr/libexec/swift/bin/swift" ] || exit 3
project=$(cd "$(dirname "$0")/../.." && pwd)
# A name space of its own, whose mounts end with the command.
exec unshare --mount sh -eu -c '
    root=$1 project=$2 here=$3
    shift 3
    mkdir -p "$root$project"
    for path in /proc /dev "$project"; do mount --rbind "$path" "$root$path"; done
    exec chroot "$root" sh -c "cd \"\$0\" && exec \"\$@\"" "$here" "$@"
' sh "$root" "$project" "$PWD" "$@"
