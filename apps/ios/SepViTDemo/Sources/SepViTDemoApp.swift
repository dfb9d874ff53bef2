import SepViTKit
import SwiftUI

@main struct SepViTDemoApp: App {
    @State private var model = AppModel()

    var body: some Scene {
        WindowGroup {
            if let request = BenchmarkRequest.ofLaunch {
                RequestedBenchmark(request: request)
            } else {
                RootView().environment(model).task { model.start() }
            }
        }
    }
}

/// Shows a benchmark from the command line; nothing else runs meanwhile.
private struct RequestedBenchmark: View {
    let request: BenchmarkRequest
    @State private var done = false

    var body: some View {
        VStack(spacing: 16) {
            if done {
                Label("Done", systemImage: "checkmark.circle")
            } else {
                ProgressView("Measuring \(request.package)")
            }
        }
        .task {
            UIApplication.shared.isIdleTimerDisabled = true
            await request.run()
            done = true
        }
    }
}

struct RootView: View {
    @Environment(AppModel.self) private var model
    @State private var choosing = false

    var body: some View {
        TabView {
            screen("Camera", "camera") { CameraView(session: $0) }
            screen("Photo", "photo") { PhotoView(session: $0) }
            screen("Benchmark", "gauge.with.needle") { BenchmarkView(session: $0) }
            screen("Self-check", "checkmark.shield") { SelfCheckView(session: $0) }
            screen("About", "info.circle") { AboutView(session: $0) }
        }
        .sheet(isPresented: $choosing) { PackagesView() }
    }

    private func screen(
        _ title: String, _ icon: String, @ViewBuilder content: @escaping (Session) -> some View
    ) -> some View {
        NavigationStack {
            Group {
                switch model.state {
                case .opening: ProgressView("Checking and loading the package")
                case .open(let session): content(session).id(session.package.url)
                case .failed(let message):
                    ContentUnavailableView(
                        "This package cannot be used", systemImage: "exclamationmark.triangle",
                        description: Text(message + ".")
                    )
                case .none:
                    ContentUnavailableView(
                        "No package", systemImage: "shippingbox",
                        description: Text("Import the folder that python -m sepvit_edge.export --target coreml writes.")
                    )
                }
            }
            .navigationTitle(title)
            .toolbar {
                Button { choosing = true } label: {
                    Label(model.current?.lastPathComponent ?? "Packages", systemImage: "shippingbox")
                }
            }
        }
        .tabItem { Label(title, systemImage: icon) }
    }
}

/// Choose, import and remove packages.
private struct PackagesView: View {
    @Environment(AppModel.self) private var model
    @Environment(\.dismiss) private var dismiss
    @State private var importing = false
    @State private var message: String?

    var body: some View {
        NavigationStack {
            List {
                ForEach(model.packages, id: \.self) { url in
                    Button {
                        model.open(url)
                        dismiss()
                    } label: {
                        HStack {
                            Text(url.lastPathComponent)
                            Spacer()
                            if url == model.current { Image(systemName: "checkmark") }
                        }
                    }
                    .accessibilityAddTraits(url == model.current ? .isSelected : [])
                    .deleteDisabled(!model.isImported(url))
                }
                .onDelete { rows in
                    for url in rows.map({ model.packages[$0] }) { attempt { try model.remove(url) } }
                }
                if let message { Text(message + ".").foregroundStyle(.red) }
                Button("Import a folder", systemImage: "square.and.arrow.down") { importing = true }
            }
            .navigationTitle("Packages")
            .toolbar { Button("Done") { dismiss() } }
            .fileImporter(isPresented: $importing, allowedContentTypes: [.folder]) { result in
                attempt {
                    try model.add(result.get())
                    dismiss()
                }
            }
        }
    }

    private func attempt(_ action: () throws -> Void) {
        do {
            message = nil
            try action()
        } catch {
            message = error.localizedDescription
        }
    }
}
