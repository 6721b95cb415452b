// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "Core",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "HarnessCore", targets: ["HarnessCore"])],
    targets: [.target(name: "HarnessCore")]
)
