// What a file with NMS outside leaves to its caller: raw output to detections. It needs no other file.

/**
 * Return the detections in a picture, in descending order of score: `{ label, score, box }` each, with the box as
 * x1, y1, x2, y2 in pixels of the picture.
 *
 * @param raw The file's outputs for one picture as arrays: `cls_logits`, D default boxes × C classes;
 *   `bbox_regression` and `default_boxes`, D × 4.
 * @param description What the file says of its detector.
 * @param picture Its `width` and `height`.
 */
export function detectionsOf(raw, description, { width, height }) {
  const { categories, size, thresholds: by } = description;
  const boxes = decode(raw.bbox_regression, raw.default_boxes);
  const clipped = boxes.map((value, i) => Math.min(Math.max(value, 0), size[(i + 1) % 2]));
  const areas = by.clip_before_nms ? clipped : boxes;
  const ofClass = new Array(categories.length).fill(0);
  const kept = [];
  for (const one of candidates(raw.cls_logits, description)) {
    if (kept.length === by.detections_per_img) break;
    if (by.topk_candidates !== null && ofClass[one.label]++ >= by.topk_candidates) continue;
    const hides = (other) => other.label === one.label && iou(areas, other.at, one.at) > by.nms_thresh;
    if (!kept.some(hides)) kept.push(one);
  }
  const scale = [width / size[1], height / size[0]];
  return kept
    .filter(({ at }) => by.clip_before_nms || (clipped[at] < clipped[at + 2] && clipped[at + 1] < clipped[at + 3]))
    .map(({ label, score, at }) => ({
      label: categories[label],
      score,
      box: Array.from(clipped.subarray(at, at + 4), (value, i) => value * scale[i % 2]),
    }));
}

/** Return what scores above the threshold, the best first; `at` is where the box begins. */
function candidates(logits, { categories, score_function, thresholds }) {
  const found = [];
  const classes = categories.length;
  for (let box = 0; box < logits.length / classes; box++) {
    const row = logits.subarray(box * classes, (box + 1) * classes);
    const top = Math.max(...row);
    const sum = row.reduce((total, logit) => total + Math.exp(logit - top), 0);
    // Class 0 is the background.
    for (let label = 1; label < classes; label++) {
      const score = score_function === "softmax" ? Math.exp(row[label] - top) / sum : 1 / (1 + Math.exp(-row[label]));
      if (score > thresholds.score_thresh) found.push({ label, score, at: 4 * box });
    }
  }
  return found.sort((a, b) => b.score - a.score);
}

/** Return boxes in pixels of the input, from their offsets to the default boxes. */
function decode(offsets, defaults) {
  const boxes = new Float32Array(defaults.length);
  for (let at = 0; at < boxes.length; at += 4) {
    for (const axis of [at, at + 1]) {
      const side = defaults[axis + 2] - defaults[axis];
      const centre = (offsets[axis] / 10) * side + (defaults[axis] + defaults[axis + 2]) / 2;
      const half = (Math.exp(Math.min(offsets[axis + 2] / 5, Math.log(1000 / 16))) * side) / 2;
      boxes[axis] = centre - half;
      boxes[axis + 2] = centre + half;
    }
  }
  return boxes;
}

function iou(boxes, a, b) {
  const overlap = (axis) => Math.min(boxes[a + axis + 2], boxes[b + axis + 2]) - Math.max(boxes[a + axis], boxes[b + axis]);
  const area = (at) => (boxes[at + 2] - boxes[at]) * (boxes[at + 3] - boxes[at + 1]);
  const common = Math.max(overlap(0), 0) * Math.max(overlap(1), 0);
  return common / (area(a) + area(b) - common);
}
