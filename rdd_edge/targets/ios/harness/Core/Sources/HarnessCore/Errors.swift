import Foundation

/// What kind of failure `error.json` reports; the raw value is the Python exception that stands for it.
public enum ErrorKind: String, Sendable, CaseIterable {
    case usage = "UsageError"  // an argument is wrong
    case missing = "MissingError"  // a file or folder is not there or cannot be read
    case corrupt = "CorruptError"  // a file is truncated, foreign, or not what its hash says
    case artifact = "ArtifactError"  // the runtime cannot load or run the artifact, or this device's noise differs
    case storage = "StorageError"  // the disk is full or a path cannot be written
    case threshold = "ThresholdError"  // the artifact's images on this device are too far from the student's
    case device = "DeviceError"  // the run was cancelled, or the device failed in another way
}

/// A failure that a person is told of, in one printable sentence.
public struct HarnessError: Error, Equatable, Sendable {
    public let kind: ErrorKind
    public let sentence: String

    /// Makes the sentence printable, since it may quote a path or what the system says.
    public init(kind: ErrorKind, sentence: String) {
        self.kind = kind
        self.sentence = printable(sentence)
    }

    init(_ kind: ErrorKind, _ sentence: String) {
        self.init(kind: kind, sentence: sentence)
    }

    static func corrupt(_ sentence: String) -> HarnessError {
        HarnessError(.corrupt, sentence)
    }
}

private let mostText = 1000  // Unicode scalars, as Python counts characters

private func isPrintable(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator: false
    case .spaceSeparator: scalar == " "
    default: true
    }
}

/// Whether a record may hold `text`: one line of at most 1,000 characters, each as Python's `str.isprintable` has it.
func isPrintable(_ text: String) -> Bool {
    text.unicodeScalars.count <= mostText && text.unicodeScalars.allSatisfy(isPrintable)
}

/// `text` as a record may hold it: spaces for white space, a question mark for what is not printable.
public func printable(_ text: String) -> String {
    let line = text.trimmingCharacters(in: .whitespacesAndNewlines).unicodeScalars.prefix(mostText)
    return line.reduce(into: "") { result, scalar in
        let other: Unicode.Scalar = scalar.properties.isWhitespace ? " " : "?"
        result.unicodeScalars.append(isPrintable(scalar) ? scalar : other)
    }
}

/// The first line of what somebody else's error says, or its type where it says nothing.
func reason(_ error: Error) -> String {
    if let error = error as? HarnessError { return error.sentence }
    if let number = systemNumber(error) { return String(cString: strerror(number)) }
    // An error that is a Swift type of its own describes itself; localizedDescription has only a number for it.
    let isFoundation = type(of: error) is NSError.Type || error is CustomNSError || error is LocalizedError
    let text = (isFoundation ? error.localizedDescription : "\(error)").trimmingCharacters(in: .whitespacesAndNewlines)
    let first = text.split(whereSeparator: \.isNewline).first.map { String($0.prefix(300)) }
    return first ?? "\(type(of: error))"
}

/// The errno value beneath an error of Foundation, whose own texts are in the language of the device.
func systemNumber(_ error: Error) -> Int32? {
    let error = error as NSError
    guard [NSCocoaErrorDomain, NSPOSIXErrorDomain].contains(error.domain) else { return nil }
    let cause = error.userInfo[NSUnderlyingErrorKey] as? NSError ?? error
    return cause.domain == NSPOSIXErrorDomain ? Int32(exactly: cause.code) : nil
}
