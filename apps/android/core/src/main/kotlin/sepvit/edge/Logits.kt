package sepvit.edge

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Runs a classifier on images of a computer, which makes the accuracy on this device of the result.
 *
 * @param pixels uint8 (N, side, side, 3), as the model's input takes them.
 * @return the logits, float32 (N, classes), little endian.
 * @throws Refusal if the package is not a classifier, or the pixels do not make whole images.
 */
fun logitsOf(session: Session, pixels: ByteArray): ByteArray {
    val manifest = session.packed.manifest
    if (manifest.task != Task.CLASSIFICATION) throw Refusal(
        Refusal.Kind.TASK, "a package for ${manifest.task.key} has no logits; give a classifier",
    )
    val (width, height) = manifest.inputSize
    val each = 3 * width * height
    if (pixels.isEmpty() || pixels.size % each != 0) throw Refusal(
        Refusal.Kind.INVALID, "${pixels.size} bytes are not images of $width x $height pixels; send them again",
    )
    val images = pixels.size / each
    val found = ByteBuffer.allocate(4 * images * manifest.model.numClasses).order(ByteOrder.LITTLE_ENDIAN)
    for (i in 0 until images) {
        val image = Pixels(width, height, pixels.copyOfRange(i * each, (i + 1) * each))
        session.run(session.tensor(image)).single().forEach(found::putFloat)
    }
    return found.array()
}
