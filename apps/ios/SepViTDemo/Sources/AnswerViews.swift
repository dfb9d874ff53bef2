import AVFoundation
import PhotosUI
import SepViTKit
import SwiftUI

/// What a package says about an image, and the time it took.
struct Answered: Sendable {
    let answer: Answer
    let size: SepViTKit.Size
    let preprocessMs, inferenceMs: Double

    init(_ image: Pixels, _ session: Session) throws {
        let package = session.package
        var input: (pixels: [UInt8], content: SepViTKit.Size) = ([], package.manifest.inputSize)
        var outputs: [[Float]] = []
        preprocessMs = try Benchmark.milliseconds { input = try inputPixels(image, package.manifest) }
        inferenceMs = try Benchmark.milliseconds { outputs = try session.run(input.pixels) }
        size = SepViTKit.Size(width: image.width, height: image.height)
        answer = SepViTKit.answer(outputs, package, image: size, content: input.content)
    }
}

/// The answer in words: classes with bars, the legend of a class map, or boxes.
struct AnswerView: View {
    let found: Answered

    var body: some View {
        VStack(alignment: .leading, spacing: 14) {
            switch found.answer {
            case .classes(let classes):
                ForEach(Array(classes.enumerated()), id: \.element.index) { rank, found in
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
            case .classMap(_, let shares):
                ForEach(shares, id: \.index) { entry($0.index, $0.label, $0.share) }
            case .boxes(let boxes):
                if boxes.isEmpty { Text("Nothing was found.") }
                ForEach(Array(boxes.enumerated()), id: \.offset) { _, found in
                    entry(found.index, found.label, Double(found.score))
                }
            }
            Text("model \(milliseconds(found.inferenceMs)) · resizing \(milliseconds(found.preprocessMs))")
                .font(.footnote).foregroundStyle(.secondary).monospacedDigit()
        }
        .padding()
        .background(.background.secondary, in: .rect(cornerRadius: 16))
    }

    private func entry(_ index: Int, _ label: String, _ share: Double) -> some View {
        HStack {
            RoundedRectangle(cornerRadius: 4).fill(Color(ofClass: index)).frame(width: 16, height: 16)
                .accessibilityHidden(true)
            Text(label)
            Spacer()
            Text(share, format: .percent.precision(.fractionLength(1))).monospacedDigit()
        }
        .accessibilityElement(children: .combine)
    }
}

/// The answer drawn over its image, in a view of the image's proportions; nothing for a classifier.
struct AnswerDrawing: View {
    let found: Answered
    var contentMode = ContentMode.fit
    var mirrored = false

    var body: some View {
        Group {
            switch found.answer {
            case .classes: Color.clear
            case .classMap(let map, _):
                if let picture = picture(of: map) {
                    Image(decorative: picture, scale: 1).resizable().interpolation(.none)
                        .opacity(0.55).scaleEffect(x: mirrored ? -1 : 1)
                }
            case .boxes(let boxes):
                GeometryReader { place in
                    // The best one last: on top.
                    ForEach(Array(boxes.reversed().enumerated()), id: \.offset) { _, box in
                        frame(box, place.size)
                    }
                }
            }
        }
        .aspectRatio(Double(found.size.width) / Double(found.size.height), contentMode: contentMode)
        .allowsHitTesting(false)
        .accessibilityHidden(true)
    }

    private func frame(_ found: LabelledBox, _ place: CGSize) -> some View {
        let scale = place.width / Double(self.found.size.width)
        let width = Double(found.box.right - found.box.left) * scale
        let start = Double(found.box.left) * scale
        let colour = Color(ofClass: found.index)
        return Rectangle().stroke(colour, lineWidth: 2)
            .overlay(alignment: .topLeading) {
                Text("\(found.label) \(found.score.formatted(.percent.precision(.fractionLength(0))))")
                    .font(.caption2).foregroundStyle(.black).padding(.horizontal, 3)
                    .background(colour).fixedSize()
            }
            .frame(width: width, height: Double(found.box.bottom - found.box.top) * scale)
            .offset(
                x: mirrored ? place.width - start - width : start, y: Double(found.box.top) * scale
            )
    }

    private func picture(of map: [UInt16]) -> CGImage? {
        var colours: [UInt16: (red: UInt8, green: UInt8, blue: UInt8)] = [:]
        var bytes: [UInt8] = []
        bytes.reserveCapacity(map.count * 4)
        for index in map {
            let known = colours[index] ?? colour(ofClass: Int(index))
            colours[index] = known
            bytes += [known.red, known.green, known.blue, 255]
        }
        guard let data = CGDataProvider(data: Data(bytes) as CFData) else { return nil }
        return CGImage(
            width: found.size.width, height: found.size.height, bitsPerComponent: 8,
            bitsPerPixel: 32, bytesPerRow: 4 * found.size.width,
            space: CGColorSpaceCreateDeviceRGB(),
            bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.noneSkipLast.rawValue),
            provider: data, decode: nil, shouldInterpolate: false, intent: .defaultIntent
        )
    }
}

extension Color {
    fileprivate init(ofClass index: Int) {
        let (red, green, blue) = colour(ofClass: index)
        self.init(red: Double(red) / 255, green: Double(green) / 255, blue: Double(blue) / 255)
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
    @State private var answer: Answered?
    @State private var message: String?
    @Environment(\.scenePhase) private var phase
    @Environment(\.openURL) private var openURL

    var body: some View {
        ScrollView {
            VStack(spacing: 16) {
                if running {
                    CameraPreview(feed: feed)
                        .aspectRatio(3 / 4, contentMode: .fit)
                        .overlay {
                            if let answer {
                                AnswerDrawing(
                                    found: answer, contentMode: .fill, mirrored: position == .front
                                )
                            }
                        }
                        .clipShape(.rect(cornerRadius: 16))
                        .accessibilityLabel("Camera preview")
                        .overlay(alignment: .bottomTrailing) {
                            Button("Use the other camera", systemImage: "arrow.triangle.2.circlepath") {
                                position = position == .back ? .front : .back
                                start()
                            }
                            .labelStyle(.iconOnly).buttonStyle(.bordered).padding()
                        }
                    if let answer { AnswerView(found: answer) }
                    Button("Stop", action: stop)
                } else {
                    ContentUnavailableView {
                        Label("Camera", systemImage: "camera")
                    } description: {
                        Text(message ?? "Every frame is looked at on this device; none leaves it.")
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
                    let found = Result { try Answered(frame, session) }
                    Task { @MainActor in show(found) }
                }
                (running, message) = (true, nil)
            } catch {
                message = error.localizedDescription + "."
            }
        }
    }

    private func show(_ found: Result<Answered, any Error>) {
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
    @State private var answer: Answered?
    @State private var message: String?

    var body: some View {
        ScrollView {
            VStack(spacing: 16) {
                if let photo {
                    Image(uiImage: photo).resizable().scaledToFit()
                        .overlay { if let answer { AnswerDrawing(found: answer) } }
                        .clipShape(.rect(cornerRadius: 16))
                        .accessibilityLabel("The chosen photo")
                }
                PhotosPicker(
                    photo == nil ? "Choose a photo" : "Choose another photo", selection: $item,
                    matching: .images, preferredItemEncoding: .current
                )
                .buttonStyle(.borderedProminent)
                if let message { Text(message).foregroundStyle(.red) }
                if let answer { AnswerView(found: answer) }
            }
            .padding()
        }
        .task(id: item) { await run() }
    }

    private func run() async {
        guard let item else { return }
        (answer, message) = (nil, nil)
        do {
            guard let file = try await item.loadTransferable(type: Data.self) else {
                throw SepViTError("The photo cannot be read; choose another one")
            }
            photo = UIImage(data: file)
            let session = session
            answer = try await Task.detached {
                try Answered(ImageDecoder.decode(file, name: "the photo"), session)
            }.value
        } catch {
            (photo, message) = (nil, error.localizedDescription + ".")
        }
    }
}
