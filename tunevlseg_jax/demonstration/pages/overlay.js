// Draws masks of any threshold from maps of probabilities; nothing is asked of the server.

export const COLOURS = ["#ff5a4f", "#00b8d9", "#ffc400", "#9b6dff", "#2fbf71", "#ff6fb5", "#4d8dff", "#a6d100"];
const TINT = 110; // of 255, the opacity inside of an outline

const words = COLOURS.map((colour) => {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const rgb = (blue << 16) | (green << 8) | red; // little endian: the alpha is the highest byte
  return { inside: ((TINT << 24) | rgb) >>> 0, edge: ((255 << 24) | rgb) >>> 0 };
});

// The levels (0 to 99) of a grey PNG, and for each threshold the number of pixels in its mask.
export async function decode(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const rgba = context.getImageData(0, 0, canvas.width, canvas.height).data;
  const levels = new Uint8Array(canvas.width * canvas.height);
  const above = new Uint32Array(101);
  for (let pixel = 0; pixel < levels.length; pixel++) above[(levels[pixel] = rgba[4 * pixel])]++;
  for (let level = 99; level >= 0; level--) above[level] += above[level + 1];
  return { levels, above, width: canvas.width, height: canvas.height };
}

// The highest level of each pixel and the phrase that has it, among the phrases that are shown.
export function combine(maps, shown) {
  const size = maps[0].levels.length;
  const best = new Uint8Array(size);
  const phrase = new Uint8Array(size);
  maps.forEach(({ levels }, number) => {
    if (!shown[number]) return;
    for (let pixel = 0; pixel < size; pixel++) {
      if (levels[pixel] > best[pixel]) {
        best[pixel] = levels[pixel];
        phrase[pixel] = number;
      }
    }
  });
  return { best, phrase, width: maps[0].width, height: maps[0].height };
}

// Tints and outlines the pixels at or above a threshold, from 1 to 99.
export function draw(canvas, { best, phrase, width, height }, threshold) {
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  const image = (canvas.pixels ??= context.createImageData(width, height));
  const out = new Uint32Array(image.data.buffer);
  const other = (a, b) => best[b] < threshold || phrase[b] !== phrase[a];
  for (let y = 0, pixel = 0; y < height; y++) {
    for (let x = 0; x < width; x++, pixel++) {
      if (best[pixel] < threshold) {
        out[pixel] = 0;
        continue;
      }
      const edge =
        (x > 0 && other(pixel, pixel - 1)) || (x < width - 1 && other(pixel, pixel + 1)) ||
        (y > 0 && other(pixel, pixel - width)) || (y < height - 1 && other(pixel, pixel + width));
      out[pixel] = edge ? words[phrase[pixel]].edge : words[phrase[pixel]].inside;
    }
  }
  context.putImageData(image, 0, 0);
}
