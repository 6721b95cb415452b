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

extension Document {
    /// Reads the file, of at most `limit` bytes. Throws `HarnessError` with the first thing that is wrong.
    static func read(_ file: URL, limit: Int) throws -> Self { try read(readFile(file, limit: limit), file) }

    static func read(_ data: Data, _ file: URL) throws -> Self { try decode(Read<Self>.self, data, file).document }
}

private struct Read<D: Document>: Decodable {
    let document: D

    init(from decoder: Decoder) throws { document = try D(Fields(decoder)) }
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
    case .valueNotFound(_, let context): return at(context.codingPath, "is null")
    case .typeMismatch(_, let context): return at(context.codingPath, "has another type: \(context.debugDescription)")
    case .dataCorrupted(let context) where context.codingPath.isEmpty: return " is not JSON: truncated?"
    case .dataCorrupted(let context): return at(context.codingPath, context.debugDescription)
    default: return " cannot be read: \(error)"
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

    private let container: KeyedDecodingContainer<Key>?  // nil: the object is missing, and each field has its default
    private let path: [CodingKey]
    private var known: Set<String> = []

    fileprivate init(_ decoder: Decoder) throws {
        (container, path) = (try decoder.container(keyedBy: Key.self), decoder.codingPath)
    }

    private init(_ container: KeyedDecodingContainer<Key>?, _ path: [CodingKey]) {
        (self.container, self.path) = (container, path)
    }

    /// The error of the field `key`.
    func wrong(_ key: String, _ why: String) -> DecodingError {
        .dataCorrupted(.init(codingPath: path + [Key(stringValue: key)], debugDescription: why))
    }

    func value<T: Decodable>(_ key: String, default other: T? = nil) throws -> T {
        try read(key) { try $0.decode(T.self, forKey: $1) } ?? other ?? missing(key)
    }

    /// The object `key`; an empty one where there is none.
    func section(_ key: String) throws -> Fields {
        Fields(try read(key) { try $0.nestedContainer(keyedBy: Key.self, forKey: $1) }, path + [Key(stringValue: key)])
    }

    /// nil where the field is null. A field that is missing is an error.
    func optional<T>(_ key: String, _ field: (String) throws -> T) throws -> T? {
        let isNull = try read(key) { try $0.decodeNil(forKey: $1) } ?? missing(key)
        return isNull ? nil : try field(key)
    }

    private func read<T>(_ key: String, _ use: (KeyedDecodingContainer<Key>, Key) throws -> T) throws -> T? {
        known.insert(key)
        guard let container, container.contains(Key(stringValue: key)) else { return nil }
        return try use(container, Key(stringValue: key))
    }

    private func missing<T>(_ key: String) throws -> T { throw wrong(key, "is missing") }

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

    /// Refuses another version of the schema, before anything else is looked at.
    func checkVersion() throws {
        guard try value("schema_version", default: 1) == 1 else {
            throw wrong("schema_version", "is not 1, the version that this harness reads")
        }
    }

    /// Refuses unknown keys. `unread`: keys that tell people something and the harness nothing.
    func finish(_ unread: String...) throws {
        let unknown = Set(container?.allKeys.map(\.stringValue) ?? []).subtracting(known).subtracting(unread)
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
