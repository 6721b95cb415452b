import XCTest

@testable import HarnessCore

/// Manifests, plans and bundles that were damaged or made up: each ends in a sentence, and nothing is written.
final class DocumentsTests: FolderCase {
    /// Fields that tell people something; the harness does not look into them.
    private let unread = [
        "quantization", "rewrites", "tool_versions", "schedule", "class_names", "conversion", "input.low", "input.high",
        "output.low", "output.high", "needs.architectures", "parity.psnr_db", "parity.worst_psnr_db", "parity.reason",
        "parity.low_allowed",
    ]

    private func leaves(_ value: Any, _ path: [String] = []) -> [[String]] {
        guard let object = value as? Object else { return [path] }
        return object.flatMap { leaves($1, path + [$0]) }
    }

    private func at(_ value: Any, _ path: [String]) -> Any { path.reduce(value) { ($0 as! Object)[$1]! } }

    private func replaced(_ value: Any, _ path: [String], _ other: Any) -> Any {
        guard let first = path.first else { return other }
        var object = value as! Object
        object[first] = replaced(object[first] ?? NSNull(), Array(path.dropFirst()), other)
        return object
    }

    /// The document with JSON text, which may be none, in place of one value.
    private func text(_ value: Any, _ path: [String], _ literal: String) -> String {
        let marked = String(decoding: data(replaced(value, path, "MARK")), as: UTF8.self)
        XCTAssertEqual(marked.components(separatedBy: "\"MARK\"").count, 2)
        return marked.replacingOccurrences(of: "\"MARK\"", with: literal)
    }

    private func literals(_ leaf: Any) -> [String] {
        let shared = ["{\"x\": 1}", "true"]
        if leaf is [Any] { return shared + ["[]", "[0, 1]", "[1.5]", "[\"1\", 2, 3, 4]", "7", "[1,2,3,4,5]"] }
        if leaf is NSNull { return shared }
        let long = String(repeating: "x", count: 5000)
        if leaf is String {
            return shared + ["null", "7", "\"\\u001b[2Jgone\"", "\"two\\nlines\"", "\"\(long)\"", "\"\"", "bare"]
        }
        let digits = "1" + String(repeating: "0", count: 40)
        return shared + ["null", "NaN", "-Infinity", "1e400", "\"1\"", "-1e30", digits, "007", "+5", "0x1"]
    }

    /// What was done, with the document, each of which has to be refused.
    private func mutations(_ document: Object) -> [(what: String, data: Data)] {
        var result: [(String, Data)] = []
        for path in leaves(document) {
            let name = path.joined(separator: ".")
            if unread.contains(where: { name == $0 || name.hasPrefix("\($0).") }) { continue }
            let allowed = name == "needs.compute_units" ? ["null", "\"\""] : []
            for literal in literals(at(document, path)) where !allowed.contains(literal) {
                result.append(("\(name) \(literal)", Data(text(document, path, literal).utf8)))
            }
        }
        let good = String(decoding: data(document), as: UTF8.self)
        // Not a comma after the last field: Foundation's reader takes one, which says nothing else.
        let deep = String(repeating: "[", count: 100_000)
        let closed = String(repeating: "[", count: 5000) + String(repeating: "]", count: 5000)
        func add(_ what: String, _ text: String) { result.append((what, Data(text.utf8))) }
        add("an unknown key", "{\"<script>\\u001b[2J\": 1, \(good.dropFirst())")
        add("another version", text(document, ["schema_version"], "2"))
        add("nothing", "")
        add("a list", "[]")
        add("deep", deep)
        add("deep and closed", "{\"files\":\(closed)}")
        add("two documents", good + good)
        add("a comment", "/* */\(good)")
        add("too long", "\(good.dropLast())\(String(repeating: " ", count: 5_000_000))}")
        for share in [0.3, 0.9, 0.999] { add("cut", String(good.prefix(Int(share * Double(good.count))))) }
        result.append(("not UTF-8", Data([0xFF, 0xFE]) + Data(good.utf8)))
        result.append(("UTF-16", good.data(using: .utf16LittleEndian)!))
        return result
    }

    @discardableResult
    private func refused(_ what: String, _ read: () throws -> Void) -> String {
        let before = everything()
        defer { XCTAssertEqual(before, everything(), what) }
        do {
            try read()
        } catch let error as HarnessError {
            XCTAssert(error.sentence.count >= 10 && isPrintable(error.sentence), error.sentence)
            return error.sentence
        } catch {
            XCTFail("\(what): \(error)")
        }
        XCTFail("\(what) was accepted")
        return ""
    }

    func testEveryMutatedManifestIsRefusedWithASentence() throws {
        for classes in [nil, 10] {
            let bundle = try bundle(classes: classes)
            let file = bundle.appendingPathComponent("manifest.json")
            let good = try Data(contentsOf: file)
            let mutations = mutations(object(good))
            XCTAssertGreaterThan(mutations.count, 250)
            for (what, data) in mutations {
                try data.write(to: file)
                refused(what) { _ = try ModelBundle.read(bundle) }
            }
            try good.write(to: file)
            XCTAssertEqual(sha256(good), try ModelBundle.read(bundle).sha256)
        }
    }

    func testEveryMutatedPlanIsRefusedWithASentence() throws {
        let file = below("plan.json")
        let mutations = mutations(plan())
        XCTAssertGreaterThan(mutations.count, 90)
        for (what, data) in mutations {
            try data.write(to: file)
            refused(what) { _ = try Plan.read(file, limit: 1 << 16) }
        }
        try Data("{}".utf8).write(to: file)
        let (plain, own) = (try Plan.read(file, limit: 100), try Plan.read(planFile(plan()), limit: 1000))
        XCTAssertEqual([plain.runs, plain.samples, plain.threads], [1024, 2000, 2])
        XCTAssertEqual(own.seed, planSeed)
        XCTAssertEqual(NSDictionary(dictionary: object(try own.json.data())), NSDictionary(dictionary: plan()))
    }

    func testASentenceNamesTheField() throws {
        for (path, literal, expected) in [
            (["performance", "runs"], "0", "performance.runs is outside 1...10000000"),
            (["performance", "runs"], "\"7\"", "performance.runs has another type: Expected to decode"),
            (["accuracy", "seed"], "null", "accuracy.seed is null"),
            (["accuracy", "odd"], "1", "accuracy.odd is not a field of its schema"),
            (["schema_version"], "2", "schema_version is not 1, the version that this harness reads"),
        ] {
            try Data(text(plan(), path, literal).utf8).write(to: below("plan.json"))
            let sentence = refused(literal) { _ = try Plan.read(below("plan.json"), limit: 1000) }
            XCTAssert(sentence.hasPrefix("\(below("plan.json").path): \(expected)"), sentence)
        }
        let bundle = try bundle { $0["needs"] = ["backend": "coreml"] }
        let sentence = refused("needs") { _ = try ModelBundle.read(bundle) }
        XCTAssert(sentence.hasSuffix("manifest.json: needs.runtime.name is missing"), sentence)
    }

    func testEveryFieldThatADeviceNeedsIsRead() throws {
        let manifest = try ModelBundle.read(bundle(batch: 2, classes: 10)).manifest
        XCTAssertEqual(manifest.shape, [2, 3, 4, 6])
        XCTAssertEqual([manifest.batch, manifest.imageSize, manifest.classes], [2, 72, 10])
        XCTAssertEqual([manifest.input.name, manifest.output.name, manifest.label?.name], ["z", "x", "label"])
        XCTAssertEqual(manifest.label?.type, "int32")
        XCTAssertEqual([manifest.needs.backend, manifest.needs.computeUnits], ["coreml", "cpuAndNeuralEngine"])
        XCTAssertEqual([manifest.needs.system.name, manifest.needs.system.least], ["iOS", "17"])
        XCTAssertNil(manifest.needs.system.below)
    }

    func testWhatIsWellFormedAndUntrueIsRefused() throws {
        try Data("elsewhere".utf8).write(to: below("secret"))
        let hash = sha256(Data("elsewhere".utf8))
        let hostile = ["../secret", below("secret").path, "a/../../secret", "./model", "manifest.json", "a//b", ""]
        for path in hostile {
            let bundle = try bundle { $0["files"] = ($0["files"] as! Object).merging([path: hash]) { $1 } }
            XCTAssert(refused(path) { _ = try ModelBundle.read(bundle) }.contains("no path inside the bundle"), path)
        }
        for path in hostile + ["parity", "parity/z.f32", "nothing", "model"] {
            let bundle = try bundle { $0["artifact"] = path }
            refused(path) { _ = try ModelBundle.read(bundle) }
        }
    }

    func testEveryDamagedFileIsRefused() throws {
        let aside = below("aside")
        let harms: [(String, (URL) throws -> Void)] = [
            ("SHA-256 differs", { try (Data(contentsOf: $0) + [0]).write(to: $0) }),
            (
                "SHA-256 differs",
                { file in
                    var data = try Data(contentsOf: file)
                    data[data.count / 2] ^= 1
                    try data.write(to: file)
                }
            ),
            ("missing from", { try self.files.removeItem(at: $0) }),
            (
                "symbolic link",
                { file in
                    try? self.files.removeItem(at: aside)
                    try self.files.moveItem(at: file, to: aside)
                    try self.files.createSymbolicLink(at: file, withDestinationURL: aside)
                }
            ),
            (
                "missing from",
                { file in
                    try self.files.removeItem(at: file)
                    try self.files.createDirectory(at: file, withIntermediateDirectories: true)
                }
            ),
        ]
        for name in ["model.mlpackage/Data/weight.bin", "parity/z.f32", "parity/x.f32", "parity/label.i64"] {
            for (word, harm) in harms {
                let bundle = try bundle(classes: 10)
                try harm(bundle.appendingPathComponent(name))
                let sentence = refused("\(name) \(word)") { _ = try ModelBundle.read(bundle) }
                XCTAssert(sentence.contains(word), "\(name) \(word): \(sentence)")
            }
        }
    }

    func testLinksPipesAndForeignFilesAreRefusedWhereverTheyLie() throws {
        let bundle = try bundle()
        let (link, deep) = (bundle.appendingPathComponent("parity/loop"), bundle.appendingPathComponent("deep/er"))
        for target in [bundle, below("nothing")] {
            try files.createSymbolicLink(at: link, withDestinationURL: target)
            XCTAssert(refused("a link") { _ = try ModelBundle.read(bundle) }.contains("parity/loop is a symbolic link"))
            try files.removeItem(at: link)
        }
        try files.createDirectory(at: deep, withIntermediateDirectories: true)
        _ = try ModelBundle.read(bundle)
        try Data("x".utf8).write(to: deep.appendingPathComponent("foreign"))
        let sentence = refused("a foreign file") { _ = try ModelBundle.read(bundle) }
        XCTAssert(sentence.contains("deep/er/foreign is foreign"), sentence)
        try files.removeItem(at: deep.appendingPathComponent("foreign"))
        XCTAssertEqual(mkfifo(bundle.appendingPathComponent("pipe").path, 0o600), 0)
        XCTAssert(refused("a pipe") { _ = try ModelBundle.read(bundle) }.contains("neither a file nor a folder"))
    }

    func testWhatASystemLeavesInAFolderThatItOpensIsIgnored() throws {
        let bundle = try bundle()
        let before = try ModelBundle.read(bundle).artifactBytes
        XCTAssertEqual(before, 6)
        for name in [
            ".DS_Store", "model.mlpackage/.DS_Store", "parity/._z.f32", "Thumbs.db", "deep/desktop.ini",
            "a/__pycache__/b.pyc",
        ] {
            let file = bundle.appendingPathComponent(name)
            try files.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data("x".utf8).write(to: file)
        }
        XCTAssertEqual(before, try ModelBundle.read(bundle).artifactBytes)
    }

    func testABundleMayBeNamedThroughALink() throws {
        let bundle = try bundle()
        try files.createSymbolicLink(at: below("link"), withDestinationURL: bundle)
        XCTAssertEqual(try ModelBundle.read(bundle).sha256, try ModelBundle.read(below("link")).sha256)
    }

    func testWhatIsNoBundleIsMissing() throws {
        for name in ["nothing", "file/inside"] {
            try Data("x".utf8).write(to: below("file"))
            XCTAssert(refused(name) { _ = try ModelBundle.read(below(name)) }.contains("it has no manifest.json"))
        }
    }

    func testVectorsOfAnotherSizeOrWithNaNAreRefused() throws {
        let bundle = try bundle(classes: 3)
        let read = try ModelBundle.read(bundle)
        XCTAssertEqual(try read.parityLabels(), [0, 1, 2, 0, 1])
        try bytes([Int64](repeating: 0, count: 4)).write(to: bundle.appendingPathComponent("parity/label.i64"))
        refused("too short") { _ = try read.parityLabels() }
        try bytes([Int64](repeating: 0, count: 6)).write(to: bundle.appendingPathComponent("parity/label.i64"))
        refused("too long") { _ = try read.parityLabels() }
        try bytes([Float](repeating: .nan, count: 360)).write(to: bundle.appendingPathComponent("parity/x.f32"))
        XCTAssert(refused("NaN") { _ = try read.parityFloats("x.f32") }.contains("not finite"))
    }

    /// The documents of rdd_edge/schemas/golden, which every reader accepts or refuses alike.
    private func judged(_ name: String, _ read: (URL) throws -> Void) throws {
        let file = below("\(name).json")
        let accepted = golden(name)["accepted"] as! [Object]
        for document in accepted {
            try data(document).write(to: file)
            try read(file)
        }
        let cases = golden(name)["refused"] as! [Object]
        XCTAssertGreaterThan(cases.count, 10)
        for row in cases {
            try Data(text(accepted[0], row["at"] as! [String], row["json"] as! String).utf8).write(to: file)
            refused("\(row)") { try read(file) }
        }
    }

    func testTheGoldenPlansAndManifestsAreAcceptedOrRefusedAsTheySay() throws {
        try judged("plan") { _ = try Plan.read($0, limit: 1 << 16) }
        try judged("manifest") { _ = try Manifest.read($0, limit: 1 << 20) }
    }

    func testTheGoldenTextsAreAllowedOrNotAsTheySayAndMadeSo() throws {
        // A text of Swift has no half of a pair. A document that has one is refused as a whole.
        let half = "\"\\ud83d\""
        let raw = try String(contentsOf: schemaFile("text"), encoding: .utf8)
        XCTAssert(raw.contains(half))
        let rows = object(Data(raw.replacingOccurrences(of: half, with: "\"\\ue000\"").utf8))["cases"] as! [Object]
        XCTAssertGreaterThan(rows.count, 10)
        for row in rows {
            let text = row["text"] as! String
            XCTAssertEqual(isPrintable(text), row["allowed"] as! Bool, "\(row)")
            XCTAssert(isPrintable(printable(text)), "\(row)")
        }
        let file = try bundle().appendingPathComponent("manifest.json")
        let manifest = object(try Data(contentsOf: file))
        try Data(text(manifest, ["precision"], half).utf8).write(to: file)
        refused("half of a pair") { _ = try Manifest.read(file, limit: 1 << 20) }
    }

    func testTextIsMadePrintable() {
        XCTAssertEqual(printable(" a\u{1b}[2Jb\nc\u{a0}ü\u{202e}\t"), "a?[2Jb c ü?")
        XCTAssertEqual(printable(String(repeating: "x", count: 5000)).count, 1000)
        XCTAssertEqual(printable("\u{1F600}\u{e000}"), "\u{1F600}?")
        XCTAssertEqual(printable("\u{2028}"), "")
        XCTAssertEqual(printable("a\r\nb"), "a  b")
        XCTAssertFalse(isPrintable("\u{2028}"))
    }
}
