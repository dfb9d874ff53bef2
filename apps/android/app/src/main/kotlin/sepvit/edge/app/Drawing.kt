package sepvit.edge.app

import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.Paint
import kotlin.math.roundToInt
import sepvit.edge.Answer
import sepvit.edge.Boxes
import sepvit.edge.ClassMap
import sepvit.edge.Classes
import sepvit.edge.Size
import sepvit.edge.classOf
import sepvit.edge.colourOf
import sepvit.edge.mapBack

/** Draws an answer on a transparent picture with its image's proportions; null for a classifier. */
fun drawingOf(answer: Answer): Bitmap? = when (answer) {
    is Classes -> null
    is ClassMap -> draw(answer)
    is Boxes -> draw(answer)
}

private fun draw(map: ClassMap): Bitmap {
    val size = shown(map.size)
    val classes = mapBack(map.classes, map.size, size, map.size)
    val colours = IntArray(classes.size) { COVER or colourOf(classOf(classes[it])) }
    return Bitmap.createBitmap(colours, size.width, size.height, Bitmap.Config.ARGB_8888)
}

private fun draw(found: Boxes): Bitmap {
    val size = shown(found.size)
    val picture = Bitmap.createBitmap(size.width, size.height, Bitmap.Config.ARGB_8888)
    val canvas = Canvas(picture)
    val scale = size.width.toFloat() / found.size.width
    val letters = maxOf(size.width, size.height) / 28f
    val frame = Paint().apply { style = Paint.Style.STROKE; strokeWidth = letters / 6 }
    val plate = Paint()
    val text = Paint(Paint.ANTI_ALIAS_FLAG).apply { color = Color.BLACK; textSize = letters }
    for ((label, index, score, box) in found.boxes.asReversed()) { // the best one on top
        frame.color = OPAQUE or colourOf(index)
        plate.color = frame.color
        val (left, top) = box.left * scale to box.top * scale
        canvas.drawRect(left, top, box.right * scale, box.bottom * scale, frame)
        val words = "$label ${(100 * score).roundToInt()} %"
        canvas.drawRect(left, top, left + text.measureText(words) + letters / 2, top + 1.2f * letters, plate)
        canvas.drawText(words, left + letters / 4, top + letters, text)
    }
    return picture
}

/** Returns the size to draw: the image's own, its longer side [LONGEST] pixels. */
private fun shown(size: Size): Size {
    val scale = LONGEST.toDouble() / maxOf(size.width, size.height)
    return Size(maxOf(1, (size.width * scale).roundToInt()), maxOf(1, (size.height * scale).roundToInt()))
}

private const val LONGEST = 640

/** Opacity of a class map. */
private const val COVER = 140 shl 24
