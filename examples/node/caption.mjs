// Captions a picture with one ONNX file and a stock ONNX Runtime.
//
//     edgecap export default --single-file caption.onnx
//     npm install --ignore-scripts
//     node caption.mjs caption.onnx photo.rgb
//
// photo.rgb holds S * S * 3 bytes: the rows of an S x S picture, red, green and blue of each pixel.
// ImageMagick makes one: convert photo.jpg -resize '224x224!' -depth 8 rgb:photo.rgb
import { readFile } from 'node:fs/promises';
import { InferenceSession, Tensor } from 'onnxruntime-node';

const [model, picture] = process.argv.slice(2);
if (!picture) {
  console.error('usage: node caption.mjs MODEL.onnx PICTURE.rgb');
  process.exit(2);
}
const session = await InferenceSession.create(model);
const shape = session.inputMetadata[0].shape;
const pixels = new Uint8Array(await readFile(picture));
const expected = shape.reduce((a, b) => a * b, 1);
if (pixels.length !== expected) {
  console.error(`${picture} has ${pixels.length} bytes; give ${expected}, ${shape.join(' x ')}`);
  process.exit(2);
}
const found = await session.run({ image: new Tensor('uint8', pixels, shape) });
console.log(
  JSON.stringify({
    caption: found.caption.data[0],
    tokens: Array.from(found.tokens.data.slice(0, Number(found.length.data[0])), Number),
    score: found.score.data[0],
    confidence: found.confidence.data[0],
    sure: Boolean(found.sure.data[0]),
  }),
);
