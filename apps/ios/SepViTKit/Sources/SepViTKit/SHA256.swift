import Foundation

#if canImport(CryptoKit)
import CryptoKit

/// SHA-256 in hexadecimal.
public func sha256(_ data: Data) -> String {
    CryptoKit.SHA256.hash(data: data).map { String(format: "%02x", $0) }.joined()
}
#else
/// SHA-256 in hexadecimal (FIPS 180-4), where there is no CryptoKit.
public func sha256(_ data: Data) -> String {
    var state: [UInt32] = [
        0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a,
        0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19,
    ]
    data.withUnsafeBytes { bytes in
        let whole = bytes.count / 64 * 64
        var words = [UInt32](repeating: 0, count: 64)
        for block in stride(from: 0, to: whole, by: 64) {
            compress(&state, &words, UnsafeRawBufferPointer(rebasing: bytes[block..<block + 64]))
        }
        var tail = [UInt8](bytes[whole...]) + [0x80]
        while tail.count % 64 != 56 { tail.append(0) }
        let bits = UInt64(bytes.count) * 8
        tail += (0..<8).map { UInt8(truncatingIfNeeded: bits >> (56 - 8 * $0)) }
        tail.withUnsafeBytes { padded in
            for block in stride(from: 0, to: padded.count, by: 64) {
                compress(&state, &words, UnsafeRawBufferPointer(rebasing: padded[block..<block + 64]))
            }
        }
    }
    return state.map { String(format: "%08x", $0) }.joined()
}

/// Round constants: the first 32 bits of the fractional parts of the primes' cube roots.
private let constants: [UInt32] = {
    var found: [UInt32] = []
    var candidate = 2
    while found.count < 64 {
        if (2..<candidate).allSatisfy({ candidate % $0 != 0 }) {
            found.append(cubeRootFraction(of: candidate))
        }
        candidate += 1
    }
    return found
}()

/// In whole numbers, so that no rounding can change a bit: floor(cbrt(n) * 2^32) mod 2^32.
private func cubeRootFraction(of number: Int) -> UInt32 {
    var low: UInt64 = 0
    var high: UInt64 = 8 << 32 // the cube root of the 64th prime, 311, is below 8
    while high - low > 1 {
        let middle = (low + high) / 2
        // middle^3 <= number * 2^96, compared as 192-bit numbers in pieces of 64.
        let square = middle.multipliedFullWidth(by: middle)
        let lower = square.low.multipliedFullWidth(by: middle)
        let upper = square.high.multipliedFullWidth(by: middle)
        let (second, carry) = lower.high.addingReportingOverflow(upper.low)
        let top = upper.high + (carry ? 1 : 0)
        let bound = UInt64(number) << 32
        let below = top == 0 && (second < bound || (second == bound && lower.low == 0))
        if below { low = middle } else { high = middle }
    }
    return UInt32(truncatingIfNeeded: low)
}

private func compress(
    _ state: inout [UInt32], _ words: inout [UInt32], _ block: UnsafeRawBufferPointer
) {
    func rotated(_ x: UInt32, _ n: UInt32) -> UInt32 { x >> n | x << (32 - n) }
    for i in 0..<16 {
        words[i] = UInt32(bigEndian: block.loadUnaligned(fromByteOffset: 4 * i, as: UInt32.self))
    }
    for i in 16..<64 {
        let x = words[i - 15]
        let y = words[i - 2]
        let s0 = rotated(x, 7) ^ rotated(x, 18) ^ x >> 3
        let s1 = rotated(y, 17) ^ rotated(y, 19) ^ y >> 10
        words[i] = words[i - 16] &+ s0 &+ words[i - 7] &+ s1
    }
    var (a, b, c, d) = (state[0], state[1], state[2], state[3])
    var (e, f, g, h) = (state[4], state[5], state[6], state[7])
    for i in 0..<64 {
        let s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)
        let first = h &+ s1 &+ (e & f ^ ~e & g) &+ constants[i] &+ words[i]
        let s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)
        let second = s0 &+ (a & b ^ a & c ^ b & c)
        (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ second)
    }
    for (i, value) in [a, b, c, d, e, f, g, h].enumerated() { state[i] &+= value }
}
#endif
