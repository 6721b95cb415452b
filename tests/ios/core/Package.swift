// swift-tools-version: 5.9
// The harness's core where there is no Xcode: the same sources, with a stand-in for Apple's CryptoKit on Linux, over
// OpenSSL (Debian's libssl-dev). Here, `sh ../swift.sh swift test` runs the tests, and `sh ../swift.sh swift build`
// makes the executable `harness`, which tests/targets/test_ios_harness.py and the driver's tests take for the app.
import PackageDescription

let core = Target.target(name: "HarnessCore")
var standIns: [Target] = []
#if os(Linux)
core.dependencies = ["CryptoKit"]
standIns = [
    .systemLibrary(name: "COpenSSL", providers: [.apt(["libssl-dev"])]),
    .target(name: "CryptoKit", dependencies: ["COpenSSL"]),
]
#endif

let package = Package(
    name: "core",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "HarnessCore", targets: ["HarnessCore"]),
        .executable(name: "harness", targets: ["harness"]),
    ],
    targets: standIns + [
        core,
        .target(name: "HarnessFakes", dependencies: ["HarnessCore"]),
        .executableTarget(name: "harness", dependencies: ["HarnessCore", "HarnessFakes"]),
        .testTarget(name: "HarnessCoreTests", dependencies: ["HarnessCore", "HarnessFakes"]),
    ]
)
