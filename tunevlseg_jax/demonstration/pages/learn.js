// Corrections, and a training on them with its progress.

import { ask } from "./server.js";

const SECONDS = 1; // between two looks at a running training
const find = (selector) => document.querySelector(selector);
let timer = null;
let last = {}; // what is shown

export function listen({ trained, mistake }) {
  find("#training-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const json = { model: find("#start").value, epochs: Number(find("#epochs").value) };
    try {
      show(await ask("/training", { method: "POST", json }), trained, mistake);
    } catch (error) {
      mistake(error.message);
    }
  });
  find("#cancel").addEventListener("click", async () => {
    try {
      show(await ask("/training", { method: "DELETE" }), trained, mistake);
    } catch (error) {
      mistake(error.message);
    }
  });
}

// Shows corrections and training, and looks again while it runs; `trained` is called when a run has come.
export function show(next, trained, mistake) {
  const { corrections, images, training, folder } = (last = { ...last, ...next });
  find("#corrections").replaceChildren(...corrections.map((one) => card(one, trained, mistake)));
  const runs = training !== null && ["running", "stopping"].includes(training.state);
  find("#train").disabled = runs || images < 2;
  find("#cancel").hidden = !runs;
  find("#cancel").disabled = training?.state === "stopping";
  const missing = 2 - images;
  find("#training-hint").textContent =
    missing > 0
      ? `Correct masks of ${missing} more image${missing > 1 ? "s" : ""} to train: find something, then choose Correct below a mask.`
      : `${corrections.length} corrected masks of ${images} images, kept in ${folder}. One image of four is for validation.`;
  find("#training").hidden = training === null;
  if (training !== null) progress(training);
  clearTimeout(timer);
  if (runs) {
    timer = setTimeout(async () => {
      try {
        const next = await ask("/training");
        if (next.training.state === "done") await trained();
        show(next, trained, mistake);
      } catch (error) {
        mistake(error.message);
      }
    }, 1000 * SECONDS);
  }
}

function card({ number, phrase, thumbnail }, trained, mistake) {
  const [item, image, row, text, remove] = ["li", "img", "div", "span", "button"].map((tag) => document.createElement(tag));
  [image.src, image.alt] = [thumbnail, `corrected mask of ${phrase}`];
  [text.textContent, text.title] = [phrase, phrase];
  [remove.textContent, remove.type, remove.className] = ["✕", "button", "quiet"];
  remove.setAttribute("aria-label", `Remove the corrected mask of ${phrase}`);
  remove.addEventListener("click", async () => {
    try {
      show(await ask(`/corrections/${number}`, { method: "DELETE" }), trained, mistake);
    } catch (error) {
      mistake(error.message);
    }
  });
  row.append(text, remove);
  item.append(image, row);
  return item;
}

function progress({ state, epochs, curve, message }) {
  const bar = find("#progress");
  [bar.max, bar.value] = [epochs, curve.length];
  if (state === "running" && !curve.length) bar.removeAttribute("value"); // compiling
  const words = { running: "Training", stopping: "Stopping after this epoch", done: "Trained", cancelled: "Stopped", failed: "Failed" };
  const last = curve.at(-1);
  const dice = last ? ` · validation Dice ${last.val.toFixed(3)}` : "";
  find("#training-message").textContent = `${words[state]}: ${message}${dice}`;
  find("#training-message").dataset.state = state;
  const line = (kind) => {
    const points = curve.map((one) => `${10 + (280 * (one.epoch - 1)) / Math.max(1, epochs - 1)},${92 - 84 * one[kind]}`);
    const polyline = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    polyline.setAttribute("points", points.join(" "));
    polyline.setAttribute("class", kind);
    return polyline;
  };
  find("#curve").replaceChildren(line("train"), line("val"));
}
