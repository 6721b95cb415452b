import CoreGraphics
import Foundation
import HarnessCore
import Observation
import UIKit

/// What the screen shows, and the one run that is under way.
@MainActor
@Observable
final class Session {
    private(set) var text = ""  // the last line of the run, or what to do
    private(set) var image: CGImage?  // the first images of the last run
    private(set) var bundles: [URL] = []  // folders to be tapped; none where a driver started the app
    private(set) var isRunning = false

    @ObservationIgnored private let root: URL
    @ObservationIgnored private let makeRuntime: @Sendable () -> ModelRuntime
    @ObservationIgnored private var isStarted = false
    @ObservationIgnored private var isDriven = false
    @ObservationIgnored private var hasRun = false
    // Made after launch: before that there is no UIApplication to ask.
    @ObservationIgnored private lazy var device = AppleDevice()

    /// Paths of a request are relative to `root`; `makeRuntime` is called once a run, on the run's own thread.
    init(root: URL = .documentsDirectory, makeRuntime: @escaping @Sendable () -> ModelRuntime = { CoreMLRuntime() }) {
        self.root = root
        self.makeRuntime = makeRuntime
    }

    /// Runs what the launch arguments ask for. The view may appear several times; only the first one counts.
    func start(arguments: [String]) {
        guard !isStarted else { return }
        isStarted = true
        UIApplication.shared.isIdleTimerDisabled = true  // the system suspends the app when the screen goes dark
        do {
            // The Files app shows the folder of an app only where it holds something; and a folder that a driver's copy
            // made would not be the app's.
            for name in ["bundles", "driver"] {
                let folder = root.appendingPathComponent(name, isDirectory: true)
                try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            }
            if let request = try Request(arguments: arguments, root: root, place: AppleDevice.place) {
                isDriven = true
                request.removeLeftovers(root: root)
                return run(request)
            }
            offerBundles()
        } catch {
            isDriven = true
            let failure = error as? HarnessError ?? HarnessError(kind: .storage, sentence: error.localizedDescription)
            ProgressLines(write: printLine).failed(failure)
            text = "error \(failure.kind.rawValue) \(failure.sentence)"
        }
    }

    /// Lists the folders in Documents/bundles, unless a run is under way.
    func offerBundles() {
        guard isStarted, !isDriven, !isRunning else { return }
        let found = try? FileManager.default.contentsOfDirectory(
            at: bundlesFolder, includingPropertiesForKeys: nil, options: .skipsHiddenFiles)
        bundles = (found ?? []).filter(\.hasDirectoryPath).sorted { $0.lastPathComponent < $1.lastPathComponent }
        guard !hasRun else { return }  // its last line stays on the screen
        let none = "Put a bundle into this app's folder “bundles”, by Finder or the Files app, and pull down."
        text = bundles.isEmpty ? none : "Tap a bundle to run it."
    }

    /// Runs a bundle by its own plan, unless a run is under way.
    func tap(_ bundle: URL) {
        guard !isRunning else { return }
        let out = root.appendingPathComponent("runs/\(bundle.lastPathComponent)", isDirectory: true)
        run(Request(bundle: bundle, plan: nil, out: out, options: Options(place: AppleDevice.place)))
    }

    private var bundlesFolder: URL { root.appendingPathComponent("bundles", isDirectory: true) }

    private func run(_ request: Request) {
        (isRunning, hasRun, image, text) = (true, true, nil, request.bundle.lastPathComponent)
        let (events, continuation) = AsyncStream.makeStream(of: RunEvent.self)
        // A thread, since a run blocks for minutes and Swift's own pool has one thread a core for everything.
        Thread.detachNewThread { [device, makeRuntime] in
            perform(request, runtime: makeRuntime(), device: device, events: continuation)
        }
        Task {
            for await event in events {
                switch event {
                case .line(let line): text = line
                case .grid(let grid): image = grid?.image()
                }
            }
            isRunning = false
            offerBundles()
        }
    }
}

/// What the thread of a run tells the screen: lines, and at the end the images.
private enum RunEvent: Sendable {
    case line(String)
    case grid(Grid?)
}

/// Runs a request to its end, on the thread that calls it.
private func perform(
    _ request: Request, runtime: ModelRuntime, device: AppleDevice, events: AsyncStream<RunEvent>.Continuation
) {
    let lines = ProgressLines { line in
        printLine(line)
        let mark = "rdd-edge: "  // which a person need not read
        events.yield(.line(line.hasPrefix(mark) ? String(line.dropFirst(mark.count)) : line))
    }
    let benchmark = Benchmark(runtime: runtime, device: device, options: request.options) { lines.progress($0, $1) }
    let outcome = benchmark.run(bundle: request.bundle, plan: request.plan, out: request.out)
    lines.ended(outcome)
    if case .finished(let folder, let bundle, _, _) = outcome {
        let (shape, samples) = (bundle.manifest.shape, folder.appendingPathComponent("samples.u8"))
        events.yield(.grid(Grid(samples: samples, channels: shape[1], height: shape[2], width: shape[3])))
    }
    events.finish()
}

/// Writes a line to the standard output at once: `print` keeps lines back where that is no terminal.
private func printLine(_ line: String) {
    try? FileHandle.standardOutput.write(contentsOf: Data("\(line)\n".utf8))
}
