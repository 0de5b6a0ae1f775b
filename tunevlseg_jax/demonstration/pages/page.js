// The page: takes an image and phrases, shows the masks of all models, and moves the threshold.

import * as capture from "./capture.js";
import * as learn from "./learn.js";
import { COLOURS, combine, decode, draw } from "./overlay.js";
import { edit } from "./paint.js";
import { ask, base64 } from "./server.js";

const find = (selector) => document.querySelector(selector);
let image = null; // the File
let panels = []; // { name, maps, shown, combined, element }
let answer = null; // of the server, with the File that it is about
let waiting = null; // AbortController of the request that is under way
let preview = null; // URL of the chosen image

const phrases = () => [...new Set(find("#phrases").value.split(",").map((text) => text.trim()).filter(Boolean))];
const threshold = () => Number(find("#threshold").value);
const phrase = (text) => ["phrase", text]; // in a query

function mistake(message) {
  const place = find("#message");
  place.textContent = message ? message[0].toUpperCase() + message.slice(1) : "";
  place.hidden = !message;
}

async function guarded(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") mistake(error.message);
  }
}

function take(file) {
  image = file;
  mistake("");
  if (preview) URL.revokeObjectURL(preview);
  preview = URL.createObjectURL(file);
  const chosen = find("#chosen");
  chosen.onload = () => (chosen.hidden = false);
  chosen.onerror = () => (chosen.hidden = true); // a format that only the server reads
  chosen.src = preview;
  chosen.alt = file.name;
  if (phrases().length) segment();
}

async function segment() {
  if (!image) return mistake("Choose an image first.");
  if (!phrases().length) {
    find("#phrases").focus();
    return mistake("Say what to find.");
  }
  waiting?.abort();
  const [own, file] = [(waiting = new AbortController()), image];
  find("#panels").setAttribute("aria-busy", "true");
  await guarded(async () => {
    const next = await ask("/segment", { method: "POST", query: phrases().map(phrase), body: file, signal: own.signal });
    const maps = await Promise.all(next.models.map((model) => Promise.all(model.maps.map((map) => decode(map.levels)))));
    if (own !== waiting) return;
    mistake("");
    show({ ...next, file }, maps);
  });
  if (own === waiting) find("#panels").setAttribute("aria-busy", "false");
}

function show(next, maps) {
  answer = next;
  panels = next.models.map((model, number) => panel(model, maps[number]));
  find("#panels").replaceChildren(...panels.map(({ element }) => element));
  find("#empty").hidden = true;
  find("#bar").hidden = false;
  redraw();
  if (matchMedia("(max-width: 760px)").matches) find("#results").scrollIntoView();
}

function panel(model, maps) {
  const element = find("#panel").content.firstElementChild.cloneNode(true);
  element.querySelector(".name").textContent = model.name;
  element.querySelector(".about").textContent = model.about;
  const base = element.querySelector("img");
  base.src = answer.preview;
  base.alt = `${answer.file.name} with the masks of ${model.name}`;
  const own = { ...model, decoded: maps, shown: maps.map(() => true), element, base };
  own.rows = answer.phrases.map((text, number) => row(own, text, number));
  element.querySelector(".found").append(...own.rows);
  own.combined = combine(maps, own.shown);
  return own;
}

function row(own, text, number) {
  const item = find("#found").content.firstElementChild.cloneNode(true);
  item.style.setProperty("--colour", COLOURS[number]);
  item.querySelector(".phrase").textContent = text;
  item.querySelector("meter").value = own.maps[number].highest;
  item.querySelector(".confidence span").textContent = `probability up to ${Math.round(100 * own.maps[number].highest)} %`;
  item.querySelector("input").addEventListener("change", (event) => {
    own.shown[number] = event.target.checked;
    own.combined = combine(own.decoded, own.shown);
    redraw();
  });
  const correct = item.querySelector(".correct");
  correct.setAttribute("aria-label", `Correct the mask of ${text} by ${own.name}`);
  correct.addEventListener("click", () => repaint(own, text, number));
  return item;
}

// Draws all masks at the threshold and says how large they are.
function redraw() {
  performance.mark("threshold");
  const least = threshold();
  find("#threshold-value").textContent = (least / 100).toFixed(2);
  const visible = find("#show-masks").checked;
  for (const { element, combined, decoded, rows } of panels) {
    const canvas = element.querySelector("canvas");
    canvas.hidden = !visible;
    if (visible) draw(canvas, combined, least);
    rows.forEach((item, number) => size(item, decoded[number], least));
  }
  performance.measure("threshold", "threshold");
}

function size(item, map, least) {
  const share = map.above[least] / map.levels.length;
  const exact = map.levels.length === answer.width * answer.height;
  const pixels = Math.round(share * answer.width * answer.height).toLocaleString("en");
  const percent = (100 * share).toFixed(share < 0.01 ? 2 : 1);
  item.classList.toggle("absent", share === 0);
  item.querySelector(".area").textContent = share ? `${percent} % of the image, ${exact ? "" : "about "}${pixels} pixels` : "not found";
}

function repaint(own, text, number) {
  const { levels, width, height } = own.decoded[number];
  const mask = levels.map((level) => (level >= threshold() ? 1 : 0));
  const { file } = answer;
  edit(`Correct “${text}”`, own.base, { width, height, mask }, (png) =>
    guarded(async () => {
      const json = { phrase: text, image: await base64(file), mask: await base64(png) };
      learn.show(await ask("/corrections", { method: "POST", json }), reload, mistake);
      mistake("");
    }),
  );
}

async function download() {
  await guarded(async () => {
    const { file, phrases: asked } = answer;
    const query = [...asked.map(phrase), ["threshold", threshold() / 100], ["name", file.name]];
    const zip = await ask("/download", { method: "POST", query, body: file, raw: true });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(zip);
    link.download = `${file.name.replace(/\.\w+$/, "") || "image"}_masks.zip`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

function examples(all) {
  find("#examples").hidden = !all.length;
  find("#examples ul").replaceChildren(
    ...all.map(({ name, phrases: named, thumbnail }, number) => {
      const [item, button, picture] = ["li", "button", "img"].map((tag) => document.createElement(tag));
      button.type = "button";
      [picture.src, picture.alt, button.title] = [thumbnail, `${name}: ${named.join(", ")}`, named.join(", ")];
      button.addEventListener("click", () =>
        guarded(async () => {
          const blob = await ask(`/examples/${number}`, { raw: true });
          find("#phrases").value = named.join(", ");
          take(new File([blob], `${name}.png`));
        }),
      );
      button.append(picture);
      item.append(button);
      return item;
    }),
  );
}

function models(all) {
  const chosen = find("#start").value;
  find("#start").replaceChildren(...all.map(({ name, about }) => new Option(`${name} (${about})`, name)));
  find("#start").value = all.some(({ name }) => name === chosen) ? chosen : all.at(-1).name;
}

// Asks for the models again, of which a training has added one, and for their masks.
async function reload() {
  const state = await ask("/state");
  models(state.models);
  find("#start").value = state.models.at(-1).name;
  if (image && phrases().length) await segment();
  return state;
}

find("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  segment();
});
find("#threshold").addEventListener("input", redraw);
find("#show-masks").addEventListener("change", redraw);
find("#download").addEventListener("click", download);
document.addEventListener("mistake", (event) => mistake(event.detail));
const root = document.documentElement;
root.dataset.theme = localStorage.getItem("theme") ?? "";
find("#theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.setItem("theme", (root.dataset.theme = dark ? "light" : "dark"));
});
capture.listen(take);
learn.listen({ trained: reload, mistake });
guarded(async () => {
  const state = await ask("/state");
  models(state.models);
  [find("#epochs").value, find("#epochs").max] = [state.epochs, state.limits.epochs];
  learn.show(state, reload, mistake);
  document.body.dataset.ready = "true";
  examples(await ask("/examples"));
});
