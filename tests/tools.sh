#!/bin/sh
# Programs that some tests drive: a C++ compiler, an OpenSSH server on the loopback address, adb, and a browser for the
# page; with the argument arm64, the cross compiler and the emulator of `make test-arm64` in place of the last three.
set -u
PATH="$PATH:/usr/sbin"
packages=""
need() { # program package
    command -v "$1" >/dev/null || packages="$packages $2"
}
need g++ g++
if [ "${1:-}" = arm64 ]; then
    need aarch64-linux-gnu-g++ "g++-aarch64-linux-gnu"
    need qemu-aarch64-static qemu-user-static
    need qemu-aarch64 qemu-user
else
    need sshd openssh-server
    need ssh openssh-client
    need ps procps
    need adb adb
    command -v google-chrome >/dev/null || need chromium "chromium fonts-dejavu-core"
fi
[ -n "$packages" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >/dev/null 2>&1 && exit 0
    echo "apt-get could not install$packages: the tests that need them will skip" >&2
else
    echo "to run every test, install$packages as root; without them the tests that need them will skip" >&2
fi
