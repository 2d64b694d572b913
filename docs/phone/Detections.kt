// What surrounds an exported detector on a phone: a photo's pixels before it, and its raw output after it.
// Of the Kotlin standard library alone; copy the file. It belongs to ssd_zoo, BSD 3-Clause License.

import kotlin.math.ceil
import kotlin.math.exp
import kotlin.math.floor
import kotlin.math.ln
import kotlin.math.max
import kotlin.math.min

/** What the file's description says: `size`, `score_function`, `antialias`, and its `thresholds`; null is no limit. */
class Settings(
    val height: Int,
    val width: Int,
    val softmax: Boolean,
    val antialias: Boolean,
    val scoreThresh: Float,
    val nmsThresh: Float,
    val topkCandidates: Int?,
    val detectionsPerImg: Int,
    val clipBeforeNms: Boolean
)

/** A class's number, its score, and left, top, right and bottom in pixels of the photo. */
class Detection(val label: Int, val score: Float, val box: FloatArray)

/**
 * The detector's input, planes of red, green and blue from 0 to 1.
 * @param argb pixels of a photo, row by row, as Android's `Bitmap.getPixels` gives them
 */
fun inputOf(argb: IntArray, photoHeight: Int, photoWidth: Int, to: Settings): FloatArray {
    val columns = weights(photoWidth, to.width, to.antialias)
    val rows = weights(photoHeight, to.height, to.antialias)
    val result = FloatArray(3 * to.height * to.width)
    for (channel in 0..2) {
        val shift = 16 - 8 * channel
        val narrow = Array(photoHeight) { y ->
            FloatArray(to.width) { x -> columns[x].sum { i -> ((argb[y * photoWidth + i] shr shift) and 255) / 255f } }
        }
        for (y in 0 until to.height) for (x in 0 until to.width)
            result[(channel * to.height + y) * to.width + x] = rows[y].sum { i -> narrow[i][x] }
    }
    return result
}

/** Weights of the pixels, from the first on, that make one pixel of a resized line. */
class Weights(val first: Int, val values: FloatArray) {
    inline fun sum(pixel: (Int) -> Float): Float {
        var sum = 0f
        for (i in values.indices) sum += values[i] * pixel(first + i)
        return sum
    }
}

/** Bilinear weights; with antialias they reach as far as pixels are averaged. */
fun weights(from: Int, to: Int, antialias: Boolean): List<Weights> {
    val scale = from.toFloat() / to
    val reach = if (antialias) max(scale, 1f) else 1f
    return List(to) { i ->
        val centre = (i + 0.5f) * scale - 0.5f
        val first = max(ceil(centre - reach).toInt(), 0)
        val last = min(floor(centre + reach).toInt(), from - 1)
        val values = FloatArray(last - first + 1) { max(0f, 1 - Math.abs(first + it - centre) / reach) }
        val sum = values.sum()
        Weights(first, FloatArray(values.size) { values[it] / sum })
    }
}

/**
 * The detections in a photo, best first.
 * @param logits `cls_logits`, D default boxes × C classes, background first
 * @param offsets `bbox_regression`, D × 4
 * @param defaults `default_boxes`, D × 4
 */
fun detectionsOf(
    logits: FloatArray, offsets: FloatArray, defaults: FloatArray, photoHeight: Int, photoWidth: Int, by: Settings
): List<Detection> {
    val classes = 4 * logits.size / defaults.size
    val found = ArrayList<Detection>()
    for (d in 0 until defaults.size / 4) {
        val row = logits.copyOfRange(d * classes, (d + 1) * classes)
        var top = row[0]
        for (logit in row) top = max(top, logit)
        var sum = 0f
        for (logit in row) sum += exp(logit - top)
        for (label in 1 until classes) {
            val score = if (by.softmax) exp(row[label] - top) / sum else 1 / (1 + exp(-row[label]))
            if (score <= by.scoreThresh) continue
            val box = decode(offsets, defaults, 4 * d)
            found.add(Detection(label, score, if (by.clipBeforeNms) clip(box, by) else box))
        }
    }
    found.sortByDescending { it.score }
    val ofClass = IntArray(classes)
    val kept = ArrayList<Detection>()
    for (one in found) {
        if (kept.size == by.detectionsPerImg) break
        if (by.topkCandidates != null && ofClass[one.label]++ >= by.topkCandidates) continue
        if (kept.none { it.label == one.label && iou(it.box, one.box) > by.nmsThresh }) kept.add(one)
    }
    val scale = floatArrayOf(photoWidth.toFloat() / by.width, photoHeight.toFloat() / by.height)
    return kept.map { Detection(it.label, it.score, clip(it.box, by)) }
        // Boxes that lie outside the photo.
        .filter { by.clipBeforeNms || it.box[0] < it.box[2] && it.box[1] < it.box[3] }
        .map { one -> Detection(one.label, one.score, FloatArray(4) { one.box[it] * scale[it % 2] }) }
}

/** A box in pixels of the input, from its offsets to a default box. */
private fun decode(offsets: FloatArray, defaults: FloatArray, at: Int): FloatArray {
    val box = FloatArray(4)
    for (axis in 0..1) {
        val low = defaults[at + axis]
        val high = defaults[at + axis + 2]
        val centre = offsets[at + axis] / 10 * (high - low) + (low + high) / 2
        val half = exp(min(offsets[at + axis + 2] / 5, ln(1000f / 16))) * (high - low) / 2
        box[axis] = centre - half
        box[axis + 2] = centre + half
    }
    return box
}

private fun clip(box: FloatArray, to: Settings): FloatArray {
    val edge = floatArrayOf(to.width.toFloat(), to.height.toFloat())
    return FloatArray(4) { min(max(box[it], 0f), edge[it % 2]) }
}

private fun iou(a: FloatArray, b: FloatArray): Float {
    val width = min(a[2], b[2]) - max(a[0], b[0])
    val height = min(a[3], b[3]) - max(a[1], b[1])
    val common = max(width, 0f) * max(height, 0f)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)
}
