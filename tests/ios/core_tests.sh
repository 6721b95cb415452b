#!/bin/sh
# Checks the form of the iOS harness's Swift, where swift-format comes with Swift, then builds and tests its core.
set -eu
cd "$(dirname "$0")"
harness=../../rdd_edge/targets/ios/harness
if sh swift.sh swift format --version >/dev/null 2>&1; then
    sh swift.sh swift format lint --strict --configuration $harness/.swift-format --recursive $harness \
        core/Sources/harness core/Sources/HarnessFakes core/Sources/CryptoKit core/Tests app/Tests
fi
cd core
mkdir -p .build
if ! sh ../swift.sh swift test -Xswiftc -strict-concurrency=complete >.build/log 2>&1; then
    cat .build/log
    exit 1
fi
grep Executed .build/log | tail -n 1
