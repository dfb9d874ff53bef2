import SepViTKit
import SwiftUI

struct SelfCheckView: View {
    let session: Session
    @State private var result: Result<SelfCheck, any Error>?

    var body: some View {
        List {
            switch result {
            case nil: ProgressView("Running the golden images")
            case .failure(let error): Text(error.localizedDescription + ".").foregroundStyle(.red)
            case .success(let check): rows(check)
            }
            Button("Check again") { result = nil }
        }
        .task(id: result == nil) {
            guard result == nil else { return }
            let session = session
            result = await Task.detached { Result { try selfCheck(session) } }.value
        }
    }

    @ViewBuilder private func rows(_ check: SelfCheck) -> some View {
        Section {
            Label(
                check.failsAt.map { "Differs from Python at the \($0.rawValue)" }
                    ?? "Same answers as in Python",
                systemImage: check.passed ? "checkmark.seal.fill" : "xmark.seal.fill"
            )
            .font(.headline)
            .foregroundStyle(check.passed ? .green : .red)
            switch check.failsAt {
            case .pixels:
                Text(
                    "Image \(check.image) differs in \(check.differentValues) values, "
                        + "by \(Int(check.maxDifference)) of 255 at most."
                )
            case .tensor: Text("The input tensor of image \(check.image) does not hold its pixels.")
            default: Text("Largest difference of \(check.output) \(check.maxAbsError.formatted()).")
            }
        }
        Section {
            LabeledContent("Golden images", value: "\(check.images)")
            LabeledContent("SQNR against Python's package", value: decibels(check.sqnrDb))
            LabeledContent("Needed", value: decibels(check.minimumSqnrDb))
            LabeledContent(same, value: check.agreement.formatted(.percent))
            if let least = check.minimumAgreement {
                LabeledContent("Needed in common", value: least.formatted(.percent))
            }
            LabeledContent("SQNR against the fp32 reference", value: decibels(check.referenceSqnrDb))
        }
    }

    private var same: String {
        switch session.package.manifest.task {
        case .classification: "Same class"
        case .segmentation: "Pixels of the same class"
        case .detection: "Boxes in common"
        }
    }

    private func decibels(_ value: Double) -> String {
        value >= 200 ? "identical" : String(format: "%.1f dB", value)
    }
}

struct BenchmarkView: View {
    let session: Session
    @Environment(AppModel.self) private var model
    @State private var options = BenchmarkOptions()
    @State private var progress: SepViTKit.Progress?
    @State private var task: Task<Void, Never>?
    @State private var profile: Profile?
    @State private var file: URL?
    @State private var plan: [(where: String, operations: Int)] = []
    @State private var message: String?

    var body: some View {
        @Bindable var model = model
        Form {
            Section {
                Picker("Runs on", selection: $model.units) {
                    ForEach(ComputeUnits.allCases) { Text($0.title).tag($0) }
                }
                number("Warm-up, at most", $options.warmUp, 0...1000)
                number("Runs", $options.runs, 1...100_000)
                Stepper(
                    "Sustained, \(Int(options.sustainedS / 60)) minutes", value: $options.sustainedS,
                    in: 0...7200, step: 60
                )
            }
            .disabled(task != nil)
            Section {
                if let progress, task != nil {
                    ProgressView(value: progress.share) { Text(title(progress.step)) }
                    Button("Stop", role: .cancel) { task?.cancel() }
                } else {
                    Button("Start", action: start)
                }
                if let message { Text(message).foregroundStyle(.red) }
            }
            if let profile { result(profile) }
            if !plan.isEmpty {
                Section("Placement planned by Core ML") {
                    ForEach(plan, id: \.where) { place in
                        LabeledContent(place.where, value: "\(place.operations) operations")
                    }
                }
            }
        }
        .task {
            if let engine = session.engine as? CoreMLEngine {
                plan = (try? await engine.computePlan()) ?? []
            }
        }
        .onDisappear { task?.cancel() }
    }

    private func number(
        _ title: String, _ value: Binding<Int>, _ range: ClosedRange<Int>
    ) -> some View {
        LabeledContent(title) {
            TextField(title, value: value, format: .number)
                .keyboardType(.numberPad)
                .multilineTextAlignment(.trailing)
                .onSubmit { value.wrappedValue = min(max(value.wrappedValue, range.lowerBound), range.upperBound) }
        }
    }

    private func title(_ step: SepViTKit.Progress.Step) -> String {
        switch step {
        case .checking: "Self-check"
        case .warmingUp: "Warming up"
        case .timing: "Timing"
        case .preprocessing: "Timing the resizing"
        case .sustained: "Sustained run"
        }
    }

    @ViewBuilder private func result(_ profile: Profile) -> some View {
        Section("Latency") {
            LabeledContent("p50", value: milliseconds(profile.latency.p50Ms))
            LabeledContent("p90", value: milliseconds(profile.latency.p90Ms))
            LabeledContent("p99", value: milliseconds(profile.latency.p99Ms))
            LabeledContent("max", value: milliseconds(profile.latency.maxMs))
            LabeledContent("Resizing", value: milliseconds(profile.preprocessing.p50Ms))
            if let memory = profile.memory?.peakMb {
                LabeledContent("Memory", value: String(format: "%.0f MB", memory))
            }
            if let last = profile.sustained?.points.last {
                LabeledContent("p50 after \(Int(last.timeS)) s", value: milliseconds(last.p50Ms))
            }
            if let file { ShareLink("Share the JSON", item: file) }
        }
    }

    private func start() {
        (profile, file, message) = (nil, nil, nil)
        progress = SepViTKit.Progress(step: .checking, share: 0)
        let benchmark = Benchmark(options, probe: PhoneProbe(), appVersion: appVersion)
        let session = session
        UIApplication.shared.isIdleTimerDisabled = true
        task = Task {
            let work = Task.detached {
                try benchmark.run(session) { step in Task { @MainActor in progress = step } }
            }
            let result = await withTaskCancellationHandler {
                await work.result
            } onCancel: {
                work.cancel()
            }
            do {
                let found = try result.get()
                let name = "profile-\(found.package.variant)-\(found.package.precision.rawValue).json"
                let url = URL.temporaryDirectory.appendingPathComponent(name)
                try found.json().write(to: url, options: .atomic)
                (profile, file) = (found, url)
            } catch {
                message = error.localizedDescription + "."
            }
            task = nil
            UIApplication.shared.isIdleTimerDisabled = false
        }
    }
}

struct AboutView: View {
    let session: Session

    var body: some View {
        let manifest = session.package.manifest
        List {
            Section(manifest.model.name) {
                LabeledContent("Classes", value: "\(manifest.model.numClasses)")
                LabeledContent("Input", value: "\(manifest.inputSize.width) x \(manifest.inputSize.height)")
                LabeledContent("Parameters", value: manifest.model.parameters.formatted())
                LabeledContent("Multiply-accumulates", value: manifest.model.macs.formatted())
                LabeledContent("Precision", value: manifest.precision.rawValue)
                LabeledContent("Model file", value: session.package.size.formatted(.byteCount(style: .file)))
                LabeledContent("Weights trained on", value: manifest.source.trainedOn ?? "not stated")
            }
            if let parity = manifest.parity {
                Section("Against the fp32 reference") {
                    LabeledContent("Compared on", value: "\(parity.images) images of \(parity.data)")
                    LabeledContent("SQNR", value: String(format: "%.1f dB", parity.sqnrDb))
                    LabeledContent("Agreement", value: parity.top1Agreement.formatted(.percent))
                }
            }
            if let quantization = manifest.quantization {
                Section("Quantisation") {
                    Text(quantization.scheme)
                    LabeledContent("Layers left in float", value: "\(quantization.floatLayers.count)")
                }
            }
            Section("Runtime") {
                LabeledContent("Here", value: "Core ML \(session.engine.runtime.version)")
                LabeledContent("Exported with", value: "\(manifest.runtime.name) \(manifest.runtime.version)")
            }
            Section("Files") {
                ForEach(manifest.files, id: \.path) { file in
                    VStack(alignment: .leading) {
                        LabeledContent(file.path, value: file.size.formatted(.byteCount(style: .file)))
                        Text(file.sha256).font(.caption2.monospaced()).foregroundStyle(.secondary)
                    }
                }
            }
        }
    }
}
