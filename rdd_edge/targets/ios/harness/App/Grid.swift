import CoreGraphics
import Foundation

/// The first images of a run, eight to a row, with a grey line between them.
struct Grid: Sendable, Equatable {
    static let columns = 8

    let width: Int
    let height: Int
    /// Red, green, blue and an unused byte of each pixel, row by row.
    let pixels: [UInt8]

    /// Reads at most 64 images of `samples`, a file of bytes in the order N H W C. Returns nil where there is no image,
    /// or where the images are neither grey nor coloured.
    init?(samples: URL, channels: Int, height: Int, width: Int) {
        let size = channels * height * width
        guard channels == 1 || channels == 3, size > 0, let file = try? FileHandle(forReadingFrom: samples),
            let data = try? file.read(upToCount: Self.columns * Self.columns * size), data.count >= size
        else { return nil }
        let bytes = [UInt8](data)
        let count = bytes.count / size
        let rows = (count + Self.columns - 1) / Self.columns
        let (right, down) = (width + 1, height + 1)  // from one image to the next
        self.width = Self.columns * right - 1
        self.height = rows * down - 1
        var pixels = [UInt8](repeating: 128, count: 4 * self.width * self.height)
        for pixel in 0..<count * height * width {
            let (image, at) = pixel.quotientAndRemainder(dividingBy: height * width)
            let x = image % Self.columns * right + at % width
            let y = image / Self.columns * down + at / width
            for colour in 0..<3 {
                pixels[4 * (y * self.width + x) + colour] = bytes[pixel * channels + min(colour, channels - 1)]
            }
        }
        self.pixels = pixels
    }

    /// The same pixels for the screen.
    func image() -> CGImage? {
        // The context owns its memory, which an image made from it may go on using.
        let context = CGContext(
            data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width,
            space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        guard let context, let data = context.data else { return nil }
        data.copyMemory(from: pixels, byteCount: pixels.count)
        return context.makeImage()
    }
}
