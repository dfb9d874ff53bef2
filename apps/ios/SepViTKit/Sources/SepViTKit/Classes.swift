import Foundation

/// A class and how probable it is.
public struct ClassProbability: Equatable, Sendable {
    public let index: Int
    public let label: String
    public let probability: Double
}

/// Softmax in double precision, shifted so that it cannot overflow.
public func softmax(_ logits: [Float]) -> [Double] {
    let top = Double(logits.max() ?? 0)
    let exponentials = logits.map { exp(Double($0) - top) }
    let sum = exponentials.reduce(0, +)
    return exponentials.map { $0 / sum }
}

/// Name the most probable classes; equal ones keep the order of the labels, in every language.
public func topClasses(_ logits: [Float], labels: [String], count: Int = 3) -> [ClassProbability] {
    softmax(logits).enumerated()
        .sorted { ($1.element, $0.offset) < ($0.element, $1.offset) }
        .prefix(count)
        .map { ClassProbability(index: $0.offset, label: labels[$0.offset], probability: $0.element) }
}
