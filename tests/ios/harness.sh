#!/bin/sh
# The app without its screen and Core ML, as `swift build` leaves it in core/, with these launch arguments. What was built
# in the root of install_swift.sh runs outside of it with that root's libraries, so that it sees the same files as a test.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=$here/core/.build/debug/harness
root=${RDD_EDGE_SWIFT_ROOT:-/opt/rdd-edge-swift}
loader=$(find "$root/usr/lib64" "$root/usr/lib" -maxdepth 1 -name "ld-linux-*" 2>/dev/null | head -n 1)
if [ -z "$loader" ]; then
    exec "$binary" "$@"
fi
libraries=$(find "$root/usr/lib" -maxdepth 1 -name "*-linux-gnu")
exec "$loader" --library-path "$libraries:$root/usr/libexec/swift/lib/swift/linux" "$binary" "$@"
