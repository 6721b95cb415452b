// The app on Linux: HARNESS_ROOT is its Documents folder, its arguments are the launch arguments, and standard output
// has the lines of its progress. Like the app, it does not end with the run: it ends with its parent or when killed.
//   HARNESS_CHILD   command line of a program that runs the artifact, in place of the runtime that computes tanh
//   HARNESS_FAULT   what goes wrong in the third inference: throw, hang, crash; or swap: channels in reverse order
//   HARNESS_PLACE   device (without it), simulator or host
import Foundation
import HarnessCore
import HarnessFakes

signal(SIGPIPE, SIG_IGN)  // a child that has ended is an error of the runtime
let parent = getppid()
let environment = ProcessInfo.processInfo.environment

func usage(_ sentence: String) -> Never {
    FileHandle.standardError.write(Data("\(sentence)\n".utf8))
    exit(2)
}

guard let root = environment["HARNESS_ROOT"] else { usage("HARNESS_ROOT names no folder") }
guard let place = Place(rawValue: environment["HARNESS_PLACE"] ?? "device") else { usage("HARNESS_PLACE is no place") }
guard let fault = Fault(rawValue: environment["HARNESS_FAULT"] ?? "none") else { usage("HARNESS_FAULT is no fault") }
let lines = ProgressLines { line in
    do {
        try FileHandle.standardOutput.write(contentsOf: Data("\(line)\n".utf8))
    } catch {
        exit(1)  // nobody reads them any more
    }
}

do {
    let folder = URL(fileURLWithPath: root)
    guard let request = try Request(arguments: CommandLine.arguments, root: folder, place: place) else {
        usage("there is no argument --bundle: the app would list its bundles")
    }
    request.removeLeftovers(root: folder)
    let runtime = FaultyRuntime(environment["HARNESS_CHILD"].map { ChildRuntime($0) } ?? TanhRuntime(), fault)
    let benchmark = Benchmark(
        runtime: runtime, device: FakeDevice(), options: request.options, progress: lines.progress)
    lines.ended(benchmark.run(bundle: request.bundle, plan: request.plan, out: request.out))
} catch let error as HarnessError {
    lines.failed(error)
}
while getppid() == parent { sleep(1) }
