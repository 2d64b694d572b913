// Resize pictures as ssd_zoo does, so that the detector sees the same pixels here and in Python.

/**
 * Return a picture as R, G and B planes from 0 to 1, resized bilinearly; the aspect ratio is not kept.
 *
 * With `antialias`, pixels are averaged where the picture is scaled down.
 */
export function toPlanes({ data, width, height }, [toHeight, toWidth], antialias) {
  const columns = taps(width, toWidth, antialias);
  const rows = taps(height, toHeight, antialias);
  const planes = new Float32Array(3 * toHeight * toWidth);
  const narrow = new Float32Array(height * toWidth);
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < toWidth; x++) {
        const { first, weights } = columns[x];
        let sum = 0;
        for (let i = 0, at = 4 * (y * width + first) + channel; i < weights.length; i++, at += 4) {
          sum += weights[i] * data[at];
        }
        narrow[y * toWidth + x] = sum / 255;
      }
    }
    for (let y = 0; y < toHeight; y++) {
      const { first, weights } = rows[y];
      const start = (channel * toHeight + y) * toWidth;
      for (let i = 0, at = first * toWidth; i < weights.length; i++, at += toWidth) {
        for (let x = 0; x < toWidth; x++) planes[start + x] += weights[i] * narrow[at + x];
      }
    }
  }
  return planes;
}

/** Return for each pixel along a resized side the first pixel that it is made of, and the weights from there on. */
function taps(from, to, antialias) {
  const scale = from / to;
  const reach = antialias ? Math.max(scale, 1) : 1;
  return Array.from({ length: to }, (_, i) => {
    const centre = scale * (i + 0.5);
    const first = Math.max(Math.floor(centre - reach + 0.5), 0);
    const last = Math.min(Math.floor(centre + reach + 0.5), from);
    const weights = Array.from({ length: last - first }, (_, k) =>
      Math.max(0, 1 - Math.abs(first + k + 0.5 - centre) / reach),
    );
    const sum = weights.reduce((a, b) => a + b);
    return { first, weights: Float32Array.from(weights, (weight) => weight / sum) };
  });
}
