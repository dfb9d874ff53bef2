import AVFoundation
import SepViTKit

/// The camera's frames, one at a time. Frames that arrive during the work on another are dropped.
final class CameraFeed: NSObject, AVCaptureVideoDataOutputSampleBufferDelegate, @unchecked Sendable {
    let session = AVCaptureSession()
    private let queue = DispatchQueue(label: "camera", qos: .userInitiated)
    private let output = AVCaptureVideoDataOutput()
    private var handle: (@Sendable (Pixels) -> Void)?

    /// Ask for the camera and start it.
    ///
    /// - Throws: `SepViTError` if the camera is missing or not allowed.
    func start(
        _ position: AVCaptureDevice.Position, _ handle: @escaping @Sendable (Pixels) -> Void
    ) async throws {
        guard await AVCaptureDevice.requestAccess(for: .video) else {
            throw SepViTError("The camera is not allowed: allow it in Settings and start again")
        }
        guard let camera = AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: position)
        else { throw SepViTError("This camera is missing on this device; choose a photo instead") }
        let input = try AVCaptureDeviceInput(device: camera)
        await withCheckedContinuation { done in
            queue.async { [self] in
                self.handle = handle
                session.beginConfiguration()
                session.sessionPreset = .hd1280x720
                session.inputs.forEach(session.removeInput)
                if session.canAddInput(input) { session.addInput(input) }
                if session.outputs.isEmpty, session.canAddOutput(output) {
                    output.videoSettings = [
                        kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA
                    ]
                    output.alwaysDiscardsLateVideoFrames = true
                    output.setSampleBufferDelegate(self, queue: queue)
                    session.addOutput(output)
                }
                session.commitConfiguration()
                if !session.isRunning { session.startRunning() }
                done.resume()
            }
        }
    }

    func stop() {
        queue.async { [self] in
            handle = nil
            session.stopRunning()
        }
    }

    /// Turn frames with the app, as the screen shows them.
    func turn(to angle: CGFloat) {
        queue.async { [self] in
            guard let connection = output.connection(with: .video),
                connection.isVideoRotationAngleSupported(angle)
            else { return }
            connection.videoRotationAngle = angle
        }
    }

    func captureOutput(
        _: AVCaptureOutput, didOutput sample: CMSampleBuffer, from _: AVCaptureConnection
    ) {
        guard let buffer = CMSampleBufferGetImageBuffer(sample) else { return }
        handle?(ImageDecoder.pixels(of: buffer))
    }
}
