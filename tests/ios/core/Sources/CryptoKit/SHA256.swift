// The members of Apple's CryptoKit that the harness uses, over OpenSSL.
import COpenSSL
import Foundation

public struct SHA256Digest: Sequence {
    fileprivate let bytes: [UInt8]

    public func makeIterator() -> Array<UInt8>.Iterator { bytes.makeIterator() }
}

public struct SHA256 {
    // Apple's is a value: a copy goes on by itself. This one is not to be copied once it was updated.
    private final class Context {
        let pointer = EVP_MD_CTX_new()

        init() { precondition(EVP_DigestInit_ex(pointer, EVP_sha256(), nil) == 1) }
        deinit { EVP_MD_CTX_free(pointer) }
    }

    private let context = Context()

    public init() {}

    public static func hash<D: DataProtocol>(data: D) -> SHA256Digest {
        var digest = SHA256()
        digest.update(data: data)
        return digest.finalize()
    }

    public mutating func update<D: DataProtocol>(data: D) {
        for region in data.regions { region.withUnsafeBytes { update(bufferPointer: $0) } }
    }

    public mutating func update(bufferPointer: UnsafeRawBufferPointer) {
        precondition(EVP_DigestUpdate(context.pointer, bufferPointer.baseAddress, bufferPointer.count) == 1)
    }

    public func finalize() -> SHA256Digest {
        var bytes = [UInt8](repeating: 0, count: 32)
        let copy = EVP_MD_CTX_new()
        defer { EVP_MD_CTX_free(copy) }
        precondition(EVP_MD_CTX_copy_ex(copy, context.pointer) == 1 && EVP_DigestFinal_ex(copy, &bytes, nil) == 1)
        return SHA256Digest(bytes: bytes)
    }
}
