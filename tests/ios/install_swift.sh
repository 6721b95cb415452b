#!/bin/sh
# Swift for `make test-ios` where there is none: Debian 13's, which needs newer libraries than Debian 12 has, in a root of
# its own (3 GB) for tests/ios/swift.sh. Succeeds where there is Swift in the end.
set -u
cd "$(dirname "$0")" || exit 1
sh swift.sh >/dev/null 2>&1 && exit 0
root=${RDD_EDGE_SWIFT_ROOT:-/opt/rdd-edge-swift}
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "the iOS harness was not tested: it needs Swift 5.9 or newer, from swift.org or Debian 13's package swiftlang" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive PATH="$PATH:/usr/sbin"
log=$(mktemp)
[ -d "$root" ] || {
    command -v debootstrap || { apt-get update && apt-get install -y --no-install-recommends debootstrap; }
    rm -rf "$root.new"
    debootstrap --variant=minbase trixie "$root.new" http://deb.debian.org/debian &&
        chroot "$root.new" apt-get install -y --no-install-recommends swiftlang libc6-dev libstdc++-14-dev libssl-dev &&
        chroot "$root.new" apt-get clean && mv "$root.new" "$root"
} >"$log" 2>&1
sh swift.sh >>"$log" 2>&1 && exit 0
tail -n 3 "$log" >&2
echo "the iOS harness was not tested: Debian 13's Swift cannot be installed in $root, or cannot be run there" >&2
exit 1
