import Foundation

/// A JSON document of any form.
public enum JSON: Decodable, Equatable, Sendable {
    case null
    case bool(Bool)
    case number(Double)
    case string(String)
    case array([JSON])
    case object([String: JSON])

    public init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSON].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSON].self))
        }
    }

    public subscript(key: String) -> JSON? {
        if case .object(let members) = self { members[key] } else { nil }
    }

    var string: String? { if case .string(let value) = self { value } else { nil } }
    var number: Double? { if case .number(let value) = self { value } else { nil } }
    var array: [JSON]? { if case .array(let value) = self { value } else { nil } }
    var object: [String: JSON]? { if case .object(let value) = self { value } else { nil } }
}

/// Validates documents against a JSON Schema.
///
/// It knows the keywords that the schemas in export/ use. Unknown keys are ignored by default, because
/// a minor version may add some.
public struct JSONSchema: Sendable {
    private let root: JSON
    private let rejectsUnknownKeys: Bool

    /// Read a schema.
    ///
    /// - Parameter rejectsUnknownKeys: Whether a key that the schema does not name is a fault, for
    ///   tests of documents that this library writes.
    public init(_ data: Data, rejectsUnknownKeys: Bool = false) throws {
        root = try JSONDecoder().decode(JSON.self, from: data)
        self.rejectsUnknownKeys = rejectsUnknownKeys
    }

    /// Return the first fault of a document and the key that has it; nil if the document is valid.
    public func fault(in document: JSON) -> String? {
        fault(of: document, by: root, at: [])
    }

    private func fault(of value: JSON, by schema: JSON, at path: [String]) -> String? {
        let place = path.isEmpty ? "the document" : path.joined(separator: ".")
        if let reference = schema["$ref"]?.string {
            let target = reference.split(separator: "/").dropFirst().reduce(root) { found, key in
                found[String(key)] ?? .null
            }
            if let fault = fault(of: value, by: target, at: path) { return fault }
        }
        if let key = schema["discriminator"]?["propertyName"]?.string {
            let choices = schema["discriminator"]?["mapping"]?.object ?? [:]
            guard let chosen = choices[value[key]?.string ?? ""] else {
                let names = choices.keys.sorted().joined(separator: ", ")
                return "\(place).\(key): must be one of \(names)"
            }
            return fault(of: value, by: .object(["$ref": chosen]), at: path)
        }
        if let choices = schema["anyOf"]?.array {
            let faults = choices.map { fault(of: value, by: $0, at: path) }
            // The first choice says more than that the value is not null.
            if !faults.contains(nil) { return faults.first ?? nil }
        }
        if let type = schema["type"]?.string, !matches(value, type) {
            return "\(place): must be of type \(type)"
        }
        if let constant = schema["const"], value != constant {
            return "\(place): must have the value that the schema states"
        }
        if let allowed = schema["enum"]?.array, !allowed.contains(value) {
            let names = allowed.compactMap(\.string).joined(separator: ", ")
            return "\(place): must be one of \(names)"
        }
        return fault(ofString: value, by: schema, place)
            ?? fault(ofNumber: value, by: schema, place)
            ?? fault(ofArray: value, by: schema, at: path, place)
            ?? fault(ofObject: value, by: schema, at: path)
    }

    private func matches(_ value: JSON, _ type: String) -> Bool {
        switch (type, value) {
        case ("null", .null), ("boolean", .bool), ("number", .number), ("string", .string),
            ("array", .array), ("object", .object):
            true
        case ("integer", .number(let number)): number == number.rounded()
        default: false
        }
    }

    private func fault(ofString value: JSON, by schema: JSON, _ place: String) -> String? {
        guard let text = value.string, let pattern = schema["pattern"]?.string else { return nil }
        let found = text.range(of: pattern, options: .regularExpression)
        return found == nil ? "\(place): must match \(pattern)" : nil
    }

    private func fault(ofNumber value: JSON, by schema: JSON, _ place: String) -> String? {
        guard let number = value.number else { return nil }
        if let low = schema["minimum"]?.number, number < low {
            return "\(place): must be at least \(low)"
        }
        if let low = schema["exclusiveMinimum"]?.number, number <= low {
            return "\(place): must be more than \(low)"
        }
        if let high = schema["maximum"]?.number, number > high {
            return "\(place): must be at most \(high)"
        }
        return nil
    }

    private func fault(ofArray value: JSON, by schema: JSON, at path: [String], _ place: String)
        -> String?
    {
        guard let items = value.array else { return nil }
        if let low = schema["minItems"]?.number, Double(items.count) < low {
            return "\(place): must have at least \(Int(low)) items"
        }
        if let high = schema["maxItems"]?.number, Double(items.count) > high {
            return "\(place): must have at most \(Int(high)) items"
        }
        let first = schema["prefixItems"]?.array ?? []
        for (i, item) in items.enumerated() {
            guard let rule = i < first.count ? first[i] : schema["items"] else { continue }
            if let fault = fault(of: item, by: rule, at: path + [String(i)]) { return fault }
        }
        return nil
    }

    private func fault(ofObject value: JSON, by schema: JSON, at path: [String]) -> String? {
        guard let members = value.object else { return nil }
        for key in schema["required"]?.array?.compactMap(\.string) ?? [] where members[key] == nil {
            return "\((path + [key]).joined(separator: ".")): is missing"
        }
        let rules = schema["properties"]?.object ?? [:]
        for key in members.keys.sorted() {
            let place = path + [key]
            if let rule = rules[key] {
                if let fault = fault(of: members[key] ?? .null, by: rule, at: place) { return fault }
            } else if rejectsUnknownKeys, !rules.isEmpty {
                return "\(place.joined(separator: ".")) is not a known key"
            } else if let rule = schema["additionalProperties"], rule.object != nil,
                let fault = fault(of: members[key] ?? .null, by: rule, at: place)
            {
                return fault
            }
        }
        return nil
    }
}
