import CoreGraphics
import CoreVideo
import Foundation
import ImageIO
import SepViTKit

/// Decodes an image file to upright pixels with the stored colours.
///
/// Drawing an image would turn it, multiply its transparency in and apply its colour profile. So the
/// decoded samples are read from memory as they are.
enum ImageDecoder {
    static func decode(_ file: Data, name: String) throws -> Pixels {
        let options = [kCGImageSourceShouldCache: false] as CFDictionary
        guard let source = CGImageSourceCreateWithData(file as CFData, options),
            CGImageSourceGetStatusAtIndex(source, 0) == .statusComplete,
            let image = CGImageSourceCreateImageAtIndex(source, 0, options)
        else { throw SepViTError("\(name) is not an image, or is damaged; choose another one", .image) }
        try checkSize(image.width, image.height, name: name)
        return try samples(of: image, name: name).oriented(orientation(of: file, source))
    }

    /// Return the orientation: by the core's rule for JPEG and PNG, from ImageIO for HEIC, WebP and others.
    private static func orientation(of file: Data, _ source: CGImageSource) -> Int {
        let own = exifOrientation(of: [UInt8](file))
        if own != 1 { return own }
        let isPlain = file.starts(with: [0xff, 0xd8]) || file.starts(with: [0x89, 0x50])
        let facts = CGImageSourceCopyPropertiesAtIndex(source, 0, nil) as? [CFString: Any]
        return isPlain ? 1 : facts?[kCGImagePropertyOrientation] as? Int ?? 1
    }

    private static func samples(of image: CGImage, name: String) throws -> Pixels {
        let model = image.colorSpace?.model
        let step = image.bitsPerComponent / 8
        let components = image.bitsPerPixel / max(image.bitsPerComponent, 1)
        guard step == 1 || step == 2, model == .rgb || model == .monochrome,
            !image.bitmapInfo.contains(.floatComponents), let data = image.dataProvider?.data as Data?
        else { return try drawn(image, name: name) }
        // Offsets of red, green and blue in a pixel, and the index of the high byte of two.
        let alphaFirst: Set<CGImageAlphaInfo> = [.first, .premultipliedFirst, .noneSkipFirst]
        let colours = model == .monochrome ? [0, 0, 0] : [0, 1, 2]
        let shift = alphaFirst.contains(image.alphaInfo) ? 1 : 0
        let order = image.bitmapInfo.intersection(.byteOrderMask)
        let reversed = order == .byteOrder32Little
        let places = colours.map { reversed ? components - 1 - ($0 + shift) : $0 + shift }
        let high = order == .byteOrder16Little ? step - 1 : 0
        var rgb = [UInt8]()
        rgb.reserveCapacity(image.width * image.height * 3)
        for y in 0..<image.height {
            for x in 0..<image.width {
                let pixel = y * image.bytesPerRow + x * components * step
                for place in places { rgb.append(data[data.startIndex + pixel + place * step + high]) }
            }
        }
        return Pixels(width: image.width, height: image.height, data: rgb)
    }

    /// Draw other formats, such as palettes and CMYK, in sRGB.
    private static func drawn(_ image: CGImage, name: String) throws -> Pixels {
        var rgba = [UInt8](repeating: 0, count: image.width * image.height * 4)
        let done = rgba.withUnsafeMutableBytes { bytes -> Bool in
            guard
                let context = CGContext(
                    data: bytes.baseAddress, width: image.width, height: image.height,
                    bitsPerComponent: 8, bytesPerRow: image.width * 4,
                    space: CGColorSpace(name: CGColorSpace.sRGB)!,
                    bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue
                )
            else { return false }
            context.draw(image, in: CGRect(x: 0, y: 0, width: image.width, height: image.height))
            return true
        }
        guard done else { throw SepViTError("not enough memory for \(name); close other apps and try again", .image) }
        return Pixels(width: image.width, height: image.height, channels: 4, data: rgba)
    }

    /// Convert a BGRA frame of the camera.
    static func pixels(of buffer: CVPixelBuffer) -> Pixels {
        CVPixelBufferLockBaseAddress(buffer, .readOnly)
        defer { CVPixelBufferUnlockBaseAddress(buffer, .readOnly) }
        let (width, height) = (CVPixelBufferGetWidth(buffer), CVPixelBufferGetHeight(buffer))
        let pitch = CVPixelBufferGetBytesPerRow(buffer)
        var rgb = [UInt8](repeating: 0, count: width * height * 3)
        if let base = CVPixelBufferGetBaseAddress(buffer)?.assumingMemoryBound(to: UInt8.self) {
            var to = 0
            for y in 0..<height {
                for x in 0..<width {
                    let from = base + y * pitch + x * 4
                    (rgb[to], rgb[to + 1], rgb[to + 2]) = (from[2], from[1], from[0])
                    to += 3
                }
            }
        }
        return Pixels(width: width, height: height, data: rgb)
    }
}
