// swift-tools-version: 5.9
// Compiles the app's own sources where there is no Xcode, against stand-ins of Apple's frameworks that have only the
// members that the app uses, with the signatures of Xcode 16. Warnings are errors: Xcode should show none either.
import PackageDescription

let strict: [SwiftSetting] = [.unsafeFlags(["-strict-concurrency=complete", "-warnings-as-errors"])]

// The Observation library of Swift 6.0 for Linux lacks a function that ends the process when a mutex fails.
let lenient: [LinkerSetting] = [.unsafeFlags(["-Xlinker", "--allow-shlib-undefined"])]

let package = Package(
    name: "app",
    dependencies: [.package(path: "../core")],
    targets: [
        .target(name: "CoreGraphics", path: "StandIns/CoreGraphics", swiftSettings: strict),
        .target(name: "CoreML", path: "StandIns/CoreML", swiftSettings: strict),
        .target(name: "UIKit", path: "StandIns/UIKit", swiftSettings: strict),
        .target(name: "SwiftUI", dependencies: ["CoreGraphics"], path: "StandIns/SwiftUI", swiftSettings: strict),
        .executableTarget(
            name: "HarnessApp",
            dependencies: [
                .product(name: "HarnessCore", package: "core"), "CoreGraphics", "CoreML", "SwiftUI", "UIKit",
            ],
            swiftSettings: strict,
            linkerSettings: lenient
        ),
        .testTarget(
            name: "HarnessAppTests", dependencies: ["HarnessApp"], swiftSettings: strict, linkerSettings: lenient
        ),
    ]
)
