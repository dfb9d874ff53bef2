/// Return a percentile, interpolated linearly: with n samples, the p-th is at position (n - 1) p / 100.
public func percentile(_ samples: [Double], _ p: Double) -> Double {
    let sorted = samples.sorted()
    let position = Double(sorted.count - 1) * p / 100
    let low = Int(position)
    let high = min(low + 1, sorted.count - 1)
    return sorted[low] + (sorted[high] - sorted[low]) * (position - Double(low))
}

public func mean(_ samples: [Double]) -> Double {
    samples.reduce(0, +) / Double(samples.count)
}

/// Round milliseconds to four decimals.
func rounded(_ ms: Double) -> Double {
    (ms * 1e4).rounded() / 1e4
}
