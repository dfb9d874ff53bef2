import Foundation

/// A class and its probability.
public struct ClassProbability: Equatable, Sendable {
    public let index: Int
    public let label: String
    public let probability: Double
}

/// Compute the softmax in double precision, shifted so that it cannot overflow.
public func softmax(_ logits: [Float]) -> [Double] {
    let top = Double(logits.max() ?? 0)
    let exponentials = logits.map { exp(Double($0) - top) }
    let sum = exponentials.reduce(0, +)
    return exponentials.map { $0 / sum }
}

/// Return the most probable classes. Equal ones keep the order of the labels.
public func topClasses(_ logits: [Float], labels: [String], count: Int = 3) -> [ClassProbability] {
    softmax(logits).enumerated()
        .sorted { ($1.element, $0.offset) < ($0.element, $1.offset) }
        .prefix(count)
        .map { ClassProbability(index: $0.offset, label: labels[$0.offset], probability: $0.element) }
}
