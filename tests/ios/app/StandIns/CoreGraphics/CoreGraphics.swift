import Foundation

/// Bitmaps of four bytes a pixel, without drawing.
public final class CGContext {
    public let data: UnsafeMutableRawPointer?
    private let width: Int
    private let height: Int
    private let count: Int

    public init?(
        data: UnsafeMutableRawPointer?, width: Int, height: Int, bitsPerComponent: Int, bytesPerRow: Int,
        space: CGColorSpace, bitmapInfo: UInt32
    ) {
        guard data == nil, bitsPerComponent == 8, bytesPerRow >= 4 * width, bitmapInfo == 5, width * height > 0 else {
            return nil
        }
        (self.width, self.height, count) = (width, height, bytesPerRow * height)
        self.data = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 16)
    }

    deinit { data?.deallocate() }

    public func makeImage() -> CGImage? {
        CGImage(width: width, height: height, bytes: [UInt8](UnsafeRawBufferPointer(start: data, count: count)))
    }
}

public final class CGImage: Sendable {
    public let width: Int
    public let height: Int
    /// What the stand-in was made from, for tests.
    public let bytes: [UInt8]

    init(width: Int, height: Int, bytes: [UInt8]) {
        (self.width, self.height, self.bytes) = (width, height, bytes)
    }
}

public final class CGColorSpace: Sendable {}

public func CGColorSpaceCreateDeviceRGB() -> CGColorSpace { CGColorSpace() }

public enum CGImageAlphaInfo: UInt32, Sendable {
    case none, premultipliedLast, premultipliedFirst, last, first, noneSkipLast, noneSkipFirst, alphaOnly
}
