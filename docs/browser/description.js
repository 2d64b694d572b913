// Read what ssd_zoo writes into an ONNX file: categories, size, thresholds and more, as JSON.

/** Return the description in an ONNX file; throw if it has none. */
export function readDescription(bytes) {
  for (const [number, value] of fields(bytes)) {
    if (number !== METADATA) continue;
    const [key, json] = [...fields(value)].map(([, part]) => new TextDecoder().decode(part));
    if (key === "ssd_zoo") return JSON.parse(json);
  }
  throw new Error("This file was not exported by ssd_zoo: it carries no description of a detector.");
}

// Number of `metadata_props` in onnx.proto.
const METADATA = 14;

/** Yield number and content of the fields of a message in protobuf's format. */
function* fields(bytes) {
  let at = 0;
  const whole = () => {
    for (let value = 0, factor = 1; at < bytes.length; factor *= 128) {
      value += (bytes[at] & 127) * factor;
      if (bytes[at++] < 128) return value;
    }
    throw new Error("This is not an ONNX file.");
  };
  while (at < bytes.length) {
    const tag = whole();
    const kind = tag % 8;
    if (kind === 0) whole();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = whole();
      yield [Math.floor(tag / 8), bytes.subarray(at, at + length)];
      at += length;
    } else throw new Error("This is not an ONNX file.");
  }
}
