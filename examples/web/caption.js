// Captions a chosen or dropped picture with one ONNX file, inside the browser.
import * as ort from './ort/ort.wasm.min.mjs';

const element = (id) => document.getElementById(id);
const [file, drop, caption, details, preview] = ['file', 'drop', 'caption', 'details', 'preview'].map(
  element,
);

// One thread: more of them need a server that isolates the page from all others.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = new URL('./ort/', import.meta.url).href;

// What was looked at last and what came out: for the console, and for tests.
globalThis.edgecap = { pixels: null, outputs: null };

const loading = ort.InferenceSession.create(new URL('caption.onnx', import.meta.url).href);
let queue = Promise.resolve();

/** A picture as the model takes it: Uint8Array of S * S * 3, squashed, alpha laid over white. */
function squash(bitmap, size) {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = size;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingQuality = 'high';
  context.fillStyle = 'white';
  context.fillRect(0, 0, size, size);
  context.drawImage(bitmap, 0, 0, size, size);
  const rgba = context.getImageData(0, 0, size, size).data;
  return Uint8Array.from({ length: size * size * 3 }, (_, i) => rgba[4 * Math.floor(i / 3) + (i % 3)]);
}

async function describe(picture) {
  const session = await loading;
  caption.textContent = 'Looking…';
  details.textContent = '';
  let bitmap;
  try {
    bitmap = await createImageBitmap(picture);
  } catch {
    caption.textContent = `${picture.name} is no picture that this browser can read.`;
    return;
  }
  const shape = session.inputMetadata[0].shape;
  const pixels = squash(bitmap, shape[0]);
  bitmap.close();
  URL.revokeObjectURL(preview.src);
  preview.src = URL.createObjectURL(picture);
  preview.hidden = false;

  const begin = performance.now();
  const outputs = await session.run({ image: new ort.Tensor('uint8', pixels, shape) });
  const took = Math.round(performance.now() - begin);
  const sentence = outputs.caption.data[0];
  preview.alt = sentence;
  globalThis.edgecap = { pixels, outputs };
  const confidence = Math.round(100 * outputs.confidence.data[0]);
  details.textContent = `${confidence} % confident, ${took} ms`;
  caption.textContent = outputs.sure.data[0] ? sentence : `${sentence} (not sure)`;
}

/** Pictures are taken one after another: a session runs one at a time. */
function show(picture) {
  queue = queue.then(() => describe(picture)).catch((error) => {
    caption.textContent = `That did not work: ${error.message}`;
  });
}

file.addEventListener('change', () => file.files.length && show(file.files[0]));
for (const kind of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle('over', kind === 'dragenter' || kind === 'dragover');
    if (kind === 'drop' && event.dataTransfer.files.length) show(event.dataTransfer.files[0]);
  });
}

loading.then(
  () => {
    file.disabled = false;
    caption.textContent = 'Ready.';
  },
  (error) => {
    caption.textContent = `The model cannot be loaded: ${error.message}`;
  },
);
