// The editor of a mask: by pointer, finger or keyboard, with undo.

import { COLOURS } from "./overlay.js";

const UNDOS = 30;
const find = (selector) => document.querySelector(selector);
const [dialog, canvas, brush] = [find("#editor"), find("#paint"), find("#brush")];
let state = null; // { picture, mask, context, history, cursor, down, keep }

const adds = () => find("#tools [name=tool]:checked").value === "add";
const radius = () => (Number(brush.value) / 250) * Math.max(canvas.width, canvas.height);

// Opens the editor on a picture (an <img>) with a mask (Uint8Array of 0 and 1); `keep` gets the corrected mask as a PNG.
export function edit(title, picture, { width, height, mask }, keep) {
  [canvas.width, canvas.height] = [width, height];
  const layer = new OffscreenCanvas(width, height);
  const context = layer.getContext("2d", { willReadFrequently: true });
  const image = context.createImageData(width, height);
  mask.forEach((inside, pixel) => (image.data[4 * pixel + 3] = inside ? 255 : 0));
  context.putImageData(image, 0, 0);
  state = { picture, layer, context, history: [], cursor: null, down: false, keep };
  find("#editor-title").textContent = title;
  dialog.showModal();
  canvas.focus();
  show();
}

// Draws picture, mask and brush.
function show() {
  const view = canvas.getContext("2d");
  const { picture, layer, cursor } = state;
  view.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const tint = new OffscreenCanvas(canvas.width, canvas.height);
  const tinted = tint.getContext("2d");
  tinted.drawImage(layer, 0, 0);
  tinted.globalCompositeOperation = "source-in";
  tinted.fillStyle = COLOURS[0];
  tinted.fillRect(0, 0, canvas.width, canvas.height);
  view.globalAlpha = 0.5;
  view.drawImage(tint, 0, 0);
  view.globalAlpha = 1;
  if (!cursor) return;
  view.beginPath();
  view.arc(cursor.x, cursor.y, radius(), 0, 2 * Math.PI);
  view.lineWidth = Math.max(1, canvas.width / 300);
  view.strokeStyle = adds() ? "#fff" : "#000";
  view.stroke();
}

function remember() {
  state.history.push(state.context.getImageData(0, 0, canvas.width, canvas.height));
  if (state.history.length > UNDOS) state.history.shift();
}

// Paints or erases from one point to another.
function stroke(from, to) {
  const { context } = state;
  context.globalCompositeOperation = adds() ? "source-over" : "destination-out";
  context.lineWidth = 2 * radius();
  context.lineCap = "round";
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(to.x + 0.01, to.y);
  context.stroke();
}

// The place of an event on the canvas, which may be shown with bars beside it.
function place(event) {
  const box = canvas.getBoundingClientRect();
  const scale = Math.min(box.width / canvas.width, box.height / canvas.height);
  return {
    x: (event.clientX - box.left - (box.width - canvas.width * scale) / 2) / scale,
    y: (event.clientY - box.top - (box.height - canvas.height * scale) / 2) / scale,
  };
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  remember();
  state.down = true;
  state.cursor = place(event);
  stroke(state.cursor, state.cursor);
  show();
});
canvas.addEventListener("pointermove", (event) => {
  const points = event.getCoalescedEvents?.() ?? [];
  for (const each of points.length ? points : [event]) {
    const next = place(each);
    if (state.down) stroke(state.cursor, next);
    state.cursor = next;
  }
  show();
});
for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => (state.down = false));
canvas.addEventListener("pointerleave", () => {
  state.cursor = null;
  show();
});

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
canvas.addEventListener("keydown", (event) => {
  state.cursor ??= { x: canvas.width / 2, y: canvas.height / 2 };
  const before = { ...state.cursor };
  if (event.key in ARROWS) {
    const step = Math.max(1, radius());
    const limit = (value, most) => Math.min(most, Math.max(0, value));
    state.cursor.x = limit(before.x + step * ARROWS[event.key][0], canvas.width);
    state.cursor.y = limit(before.y + step * ARROWS[event.key][1], canvas.height);
    if (event.shiftKey) stroke(before, state.cursor);
  } else if (event.key === " ") {
    remember();
    stroke(before, before);
  } else if (event.key === "e" || event.key === "E") {
    find(`#tools [name=tool][value=${adds() ? "remove" : "add"}]`).checked = true;
  } else if (event.key === "z" || event.key === "Z") undo();
  else if (event.key === "+") brush.stepUp(2);
  else if (event.key === "-") brush.stepDown(2);
  else return;
  event.preventDefault();
  show();
});

function undo() {
  const before = state.history.pop();
  if (before) state.context.putImageData(before, 0, 0);
  show();
}

find("#undo").addEventListener("click", undo);
find("#clear").addEventListener("click", () => {
  remember();
  state.context.clearRect(0, 0, canvas.width, canvas.height);
  show();
});
find("#discard").addEventListener("click", () => dialog.close());
find("#keep").addEventListener("click", async () => {
  const { context, keep } = state;
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 0; at < image.data.length; at += 4) {
    image.data[at] = image.data[at + 1] = image.data[at + 2] = image.data[at + 3] > 127 ? 255 : 0;
    image.data[at + 3] = 255;
  }
  const opaque = new OffscreenCanvas(canvas.width, canvas.height);
  opaque.getContext("2d").putImageData(image, 0, 0);
  dialog.close();
  await keep(await opaque.convertToBlob({ type: "image/png" }));
});
