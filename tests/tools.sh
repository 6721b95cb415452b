#!/bin/sh
# Programs that some tests drive: an OpenSSH server on the loopback address, and a browser for the page.
set -u
PATH="$PATH:/usr/sbin"
packages=""
need() { # program package
    command -v "$1" >/dev/null || packages="$packages $2"
}
need sshd openssh-server
need ssh openssh-client
need ps procps
command -v google-chrome >/dev/null || need chromium "chromium fonts-dejavu-core"
[ -n "$packages" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    { apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages; } >/dev/null 2>&1 && exit 0
    echo "apt-get could not install$packages: the tests that need them will skip" >&2
else
    echo "to run every test, install$packages as root; without them the tests that need them will skip" >&2
fi
