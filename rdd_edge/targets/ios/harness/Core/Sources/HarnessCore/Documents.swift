import Foundation

/// A JSON value to be written. Its texts are made printable; a missing value is null.
enum JSON: Encodable, Equatable {
    case null, flag(Bool), int(Int64), seed(UInt64), double(Double), text(String), list([JSON]), object([String: JSON])

    init(_ flag: Bool?) { self = flag.map(JSON.flag) ?? .null }
    init(_ number: Int?) { self = number.map { .int(Int64($0)) } ?? .null }
    init(_ number: Int64?) { self = number.map(JSON.int) ?? .null }
    init(_ number: Double?) { self = number.map(JSON.double) ?? .null }
    init(_ text: String?) { self = text.map { .text(printable($0)) } ?? .null }

    func encode(to encoder: Encoder) throws {
        var container = encoder.singleValueContainer()
        switch self {
        case .null: try container.encodeNil()
        case .flag(let value): try container.encode(value)
        case .int(let value): try container.encode(value)
        case .seed(let value): try container.encode(value)
        case .double(let value): try container.encode(value)
        case .text(let value): try container.encode(value)
        case .list(let value): try container.encode(value)
        case .object(let value): try container.encode(value)
        }
    }

    /// The document as a file: one line, its keys in order.
    func data() throws -> Data {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self) + Data("\n".utf8)
    }
}

/// What is read from a JSON object field by field.
protocol Document {
    init(_ fields: Fields) throws
}

private struct Read<D: Document>: Decodable {
    let document: D

    init(from decoder: Decoder) throws { document = try D(Fields(decoder)) }
}

extension Document {
    /// Reads the file, of at most `limit` bytes. Throws `HarnessError` with the first thing that is wrong.
    static func read(_ file: URL, limit: Int) throws -> Self {
        try decode(Read<Self>.self, readFile(file, limit: limit), file).document
    }

    static func read(_ data: Data, _ file: URL) throws -> Self {
        try decode(Read<Self>.self, data, file).document
    }
}

/// Decodes UTF-8 JSON; `file` is where the data is from, for the sentences of its errors.
func decode<D: Decodable>(_ type: D.Type, _ data: Data, _ file: URL) throws -> D {
    // JSONDecoder would take UTF-16 and UTF-32 as well; in them an ASCII character has a byte that is zero.
    guard !data.contains(0), String(data: data, encoding: .utf8) != nil else {
        throw HarnessError.corrupt("\(file.path) is not UTF-8 text")
    }
    do {
        return try JSONDecoder().decode(type, from: data)
    } catch let error as DecodingError {
        throw HarnessError.corrupt("\(file.path)\(sentence(error))")
    }
}

/// What is wrong, with the path of the field.
private func sentence(_ error: DecodingError) -> String {
    func at(_ path: [CodingKey], _ what: String) -> String {
        path.isEmpty ? " \(what)" : ": \(path.map(\.stringValue).joined(separator: ".").prefix(200)) \(what)"
    }
    switch error {
    case .keyNotFound(let key, let context): return at(context.codingPath + [key], "is missing")
    case .valueNotFound(_, let context): return at(context.codingPath, "is null")
    case .typeMismatch(_, let context): return at(context.codingPath, "has another type: \(context.debugDescription)")
    case .dataCorrupted(let context) where context.codingPath.isEmpty: return " is not JSON: truncated?"
    case .dataCorrupted(let context): return at(context.codingPath, context.debugDescription)
    @unknown default: return " cannot be read"
    }
}

/// The bytes of a file, which may be named through a link.
func readFile(_ file: URL, limit: Int) throws -> Data {
    guard let size = regularSize(file.resolvingSymlinksInPath()) else {
        throw HarnessError(.missing, "there is no \(file.path)")
    }
    guard size <= limit else { throw HarnessError.corrupt("\(file.path) has more than \(limit) bytes") }
    do {
        return try Data(contentsOf: file)
    } catch {
        throw HarnessError(.missing, "cannot read \(file.path): \(reason(error))")
    }
}

/// Size of a regular file in bytes; nil for anything else, such as a link.
func regularSize(_ file: URL) -> Int64? {
    let attributes = try? FileManager.default.attributesOfItem(atPath: file.path)
    guard attributes?[.type] as? FileAttributeType == .typeRegular else { return nil }
    return (attributes?[.size] as? NSNumber)?.int64Value
}

/// The fields of one JSON object, each read with its type and range; `finish` refuses keys that were not read.
///
/// A number is never taken for a text nor a text for a number. A field that is missing has its default or is refused.
final class Fields {
    private struct Key: CodingKey {
        let stringValue: String
        var intValue: Int? { nil }

        init(stringValue: String) { self.stringValue = stringValue }
        init?(intValue: Int) { nil }
    }

    private let container: KeyedDecodingContainer<Key>
    private var known: Set<String> = []

    fileprivate init(_ decoder: Decoder) throws { container = try decoder.container(keyedBy: Key.self) }

    /// The error of the field `key`.
    func wrong(_ key: String, _ why: String) -> DecodingError {
        let path = container.codingPath + [Key(stringValue: key)]
        return .dataCorrupted(.init(codingPath: path, debugDescription: why))
    }

    func value<T: Decodable>(_ key: String, default other: T? = nil) throws -> T {
        known.insert(key)
        let name = Key(stringValue: key)
        if let other, !container.contains(name) { return other }
        return try container.decode(T.self, forKey: name)
    }

    /// A text of which `pattern`, a regular expression, matches the whole.
    func text(_ key: String, _ pattern: String = ".*") throws -> String {
        let text: String = try value(key)
        guard isPrintable(text) else { throw wrong(key, "is not one printable line") }
        guard matches(text, pattern) else { throw wrong(key, "has not the form \(pattern)") }
        return text
    }

    func name(_ key: String) throws -> String { try text(key, "[a-z0-9][a-z0-9_-]{0,63}") }

    func sha256(_ key: String) throws -> String { try text(key, "[0-9a-f]{64}") }

    func int(_ key: String, _ range: ClosedRange<Int>, default other: Int? = nil) throws -> Int {
        try inside(range, key, value(key, default: other))
    }

    func double(_ key: String, _ range: ClosedRange<Double>, default other: Double? = nil) throws -> Double {
        try inside(range, key, value(key, default: other))
    }

    func ints(_ key: String, _ range: ClosedRange<Int>) throws -> [Int] {
        try (value(key) as [Int]).map { try inside(range, key, $0) }
    }

    /// The object `key`; `other` where there is none.
    func part<D: Document>(_ key: String, default other: D? = nil) throws -> D {
        if let other, !container.contains(Key(stringValue: key)) { return other }
        return try (value(key) as Read<D>).document
    }

    func isNull(_ key: String) throws -> Bool {
        known.insert(key)
        return try container.decodeNil(forKey: Key(stringValue: key))
    }

    /// Refuses another version of the schema, before anything else is looked at.
    func checkVersion() throws {
        guard try value("schema_version", default: 1) == 1 else {
            throw wrong("schema_version", "is not 1, the version that this harness reads")
        }
    }

    /// Refuses unknown keys. `unread`: keys that tell people something and the harness nothing.
    func finish(_ unread: String...) throws {
        let unknown = container.allKeys.map(\.stringValue).filter { !known.contains($0) && !unread.contains($0) }
        if let key = unknown.min() { throw wrong(key, "is not a field of its schema") }
    }

    private func inside<T: Comparable>(_ range: ClosedRange<T>, _ key: String, _ value: T) throws -> T {
        guard range.contains(value) else { throw wrong(key, "is outside \(range)") }
        return value
    }
}

/// Whether the regular expression matches the whole text.
func matches(_ text: String, _ pattern: String) -> Bool {
    text.range(of: "\\A(?:\(pattern))\\z", options: .regularExpression) != nil
}
