import AVFoundation
import PhotosUI
import SepViTKit
import SwiftUI

/// The most probable classes of an image, and the time it took.
struct Answer: Sendable {
    let classes: [ClassProbability]
    let preprocessMs, inferenceMs: Double

    init(_ image: Pixels, _ session: Session) throws {
        var pixels: [UInt8] = []
        var logits: [Float] = []
        preprocessMs = try Benchmark.milliseconds {
            pixels = try preprocess(image, session.package.manifest.input)
        }
        inferenceMs = try Benchmark.milliseconds { logits = try session.run(pixels) }
        classes = topClasses(logits, labels: session.package.labels)
    }
}

struct AnswerView: View {
    let answer: Answer

    var body: some View {
        VStack(alignment: .leading, spacing: 14) {
            ForEach(Array(answer.classes.enumerated()), id: \.element.index) { rank, found in
                VStack(alignment: .leading, spacing: 4) {
                    HStack(alignment: .firstTextBaseline) {
                        Text(found.label).font(rank == 0 ? .title.bold() : .body.weight(.medium))
                        Spacer()
                        Text(found.probability, format: .percent.precision(.fractionLength(1)))
                            .monospacedDigit()
                    }
                    ProgressView(value: found.probability).accessibilityHidden(true)
                }
                .accessibilityElement(children: .combine)
            }
            Text("model \(milliseconds(answer.inferenceMs)) · resizing \(milliseconds(answer.preprocessMs))")
                .font(.footnote).foregroundStyle(.secondary).monospacedDigit()
        }
        .padding()
        .background(.background.secondary, in: .rect(cornerRadius: 16))
    }
}

func milliseconds(_ value: Double) -> String {
    String(format: value < 10 ? "%.2f ms" : "%.1f ms", value)
}

struct CameraView: View {
    let session: Session
    @State private var feed = CameraFeed()
    @State private var position = AVCaptureDevice.Position.back
    @State private var running = false
    @State private var answer: Answer?
    @State private var message: String?
    @Environment(\.scenePhase) private var phase
    @Environment(\.openURL) private var openURL

    var body: some View {
        ScrollView {
            VStack(spacing: 16) {
                if running {
                    CameraPreview(feed: feed)
                        .aspectRatio(3 / 4, contentMode: .fit)
                        .clipShape(.rect(cornerRadius: 16))
                        .accessibilityLabel("Camera preview")
                        .overlay(alignment: .bottomTrailing) {
                            Button("Use the other camera", systemImage: "arrow.triangle.2.circlepath") {
                                position = position == .back ? .front : .back
                                start()
                            }
                            .labelStyle(.iconOnly).buttonStyle(.bordered).padding()
                        }
                    if let answer { AnswerView(answer: answer) }
                    Button("Stop", action: stop)
                } else {
                    ContentUnavailableView {
                        Label("Camera", systemImage: "camera")
                    } description: {
                        Text(message ?? "Every frame is classified on this device; none leaves it.")
                    } actions: {
                        Button("Start the camera", action: start).buttonStyle(.borderedProminent)
                        if message != nil, let settings = URL(string: UIApplication.openSettingsURLString) {
                            Button("Open Settings") { openURL(settings) }
                        }
                    }
                }
            }
            .padding()
        }
        .onDisappear(perform: stop)
        .onChange(of: phase) { _, now in if now != .active { stop() } }
    }

    private func start() {
        Task {
            do {
                let session = session
                try await feed.start(position) { frame in
                    let found = Result { try Answer(frame, session) }
                    Task { @MainActor in show(found) }
                }
                (running, message) = (true, nil)
            } catch {
                message = error.localizedDescription + "."
            }
        }
    }

    private func show(_ found: Result<Answer, any Error>) {
        switch found {
        case .success(let found): answer = found
        case .failure(let error):
            stop()
            message = error.localizedDescription + "."
        }
    }

    private func stop() {
        feed.stop()
        (running, answer) = (false, nil)
    }
}

private struct CameraPreview: UIViewRepresentable {
    let feed: CameraFeed

    final class Preview: UIView {
        var feed: CameraFeed?
        override class var layerClass: AnyClass { AVCaptureVideoPreviewLayer.self }
        var preview: AVCaptureVideoPreviewLayer? { layer as? AVCaptureVideoPreviewLayer }

        /// Keep the picture upright in every orientation of the device.
        override func layoutSubviews() {
            super.layoutSubviews()
            let angle: CGFloat =
                switch window?.windowScene?.interfaceOrientation {
                case .landscapeLeft: 180
                case .landscapeRight: 0
                case .portraitUpsideDown: 270
                default: 90
                }
            if let connection = preview?.connection, connection.isVideoRotationAngleSupported(angle) {
                connection.videoRotationAngle = angle
            }
            feed?.turn(to: angle)
        }
    }

    func makeUIView(context _: Context) -> Preview {
        let view = Preview()
        view.feed = feed
        view.preview?.session = feed.session
        view.preview?.videoGravity = .resizeAspectFill
        return view
    }

    func updateUIView(_ view: Preview, context _: Context) { view.setNeedsLayout() }
}

struct PhotoView: View {
    let session: Session
    @State private var item: PhotosPickerItem?
    @State private var photo: UIImage?
    @State private var answer: Answer?
    @State private var message: String?

    var body: some View {
        ScrollView {
            VStack(spacing: 16) {
                if let photo {
                    Image(uiImage: photo).resizable().scaledToFit().clipShape(.rect(cornerRadius: 16))
                        .accessibilityLabel("The chosen photo")
                }
                PhotosPicker(
                    photo == nil ? "Choose a photo" : "Choose another photo", selection: $item,
                    matching: .images, preferredItemEncoding: .current
                )
                .buttonStyle(.borderedProminent)
                if let message { Text(message).foregroundStyle(.red) }
                if let answer { AnswerView(answer: answer) }
            }
            .padding()
        }
        .task(id: item) { await classify() }
    }

    private func classify() async {
        guard let item else { return }
        (answer, message) = (nil, nil)
        do {
            guard let file = try await item.loadTransferable(type: Data.self) else {
                throw SepViTError("The photo cannot be read; choose another one")
            }
            photo = UIImage(data: file)
            let session = session
            answer = try await Task.detached {
                try Answer(ImageDecoder.decode(file, name: "the photo"), session)
            }.value
        } catch {
            (photo, message) = (nil, error.localizedDescription + ".")
        }
    }
}
