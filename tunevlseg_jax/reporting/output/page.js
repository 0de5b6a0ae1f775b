// What the report's page does: sorts tables, shows samples with masks over them, shows each run's configuration and command.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// Tables: numbers by their value, missing ones last whichever way, words by the alphabet.

function compare(one, other, sign) {
  const [a, b] = [one, other].map((cell) => cell.dataset.value);
  if (a !== undefined && b !== undefined) return sign * (Number(a) - Number(b));
  if (a !== undefined || b !== undefined) return a === undefined ? 1 : -1;
  return sign * one.textContent.localeCompare(other.textContent, "en", { numeric: true });
}

function headers(table) {
  return [...[...table.tHead.rows].at(-1).cells];
}

function sort(table, column) {
  const heads = headers(table);
  const body = table.tBodies[0];
  const numeric = [...body.rows].some((row) => row.cells[column].dataset.value !== undefined);
  const before = heads[column].getAttribute("aria-sort");
  const next = before === null ? (numeric ? "descending" : "ascending") : before === "ascending" ? "descending" : "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", next);
  table.classList.add("sorted");
  const sign = next === "ascending" ? 1 : -1;
  body.append(...[...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], sign)));
}

for (const table of document.querySelectorAll("table.sortable")) {
  headers(table).forEach((head, column) => {
    head.querySelector("button")?.addEventListener("click", () => sort(table, column));
  });
}

// Samples: one card a record, of the chosen data set and combination.

const browser = document.getElementById("browser");

function choices(select, names, kept) {
  select.replaceChildren(...names.map((name) => make("option", { value: name, textContent: name })));
  if (names.includes(kept)) select.value = kept;
}

function card(record, who) {
  const predicted = record.predicted[who];
  const stack = make("div", { className: "stack" },
    make("img", { src: record.image, alt: `record ${record.id}` }),
    make("img", { src: record.truth, alt: `outline of the true mask of ${record.prompt}`, className: "truth" }));
  if (predicted.mask) stack.append(make("img", { src: predicted.mask, alt: `mask predicted by ${who}`, className: "predicted" }));
  const caption = make("p", {}, make("strong", { textContent: `Dice ${predicted.dice.toFixed(3)}` }), ` ${record.prompt} (${record.why})`);
  return make("li", { title: record.id }, stack, caption);
}

function show() {
  const { set, who, order, truth, predicted } = browser.elements;
  const records = [...data.sets[set.value]];
  const names = Object.keys(records[0].predicted);
  choices(who, names, who.value);
  records.sort((a, b) => Number(order.value) * (a.predicted[who.value].dice - b.predicted[who.value].dice));
  const cards = document.getElementById("cards");
  cards.replaceChildren(...records.map((record) => card(record, who.value)));
  cards.classList.toggle("no-truth", !truth.checked);
  cards.classList.toggle("no-predicted", !predicted.checked);
  document.getElementById("truth-swatch").style.background = data.truth;
  document.getElementById("predicted-swatch").style.background = data.colours[who.value];
  document.getElementById("browser-status").textContent = `${records.length} records of ${set.value}, ${who.value}`;
}

if (browser) {
  choices(browser.elements.set, Object.keys(data.sets));
  browser.addEventListener("change", show);
  browser.addEventListener("submit", (event) => event.preventDefault());
  show();
}

// Runs: a filter by words, and a dialog with a run's configuration and command.

const rows = [...document.getElementById("run-table").tBodies[0].rows];
const filter = document.getElementById("filter");

filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/);
  for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("filter-status").textContent = `${shown} of ${rows.length} runs`;
});

const how = document.getElementById("how");

function describe(run) {
  document.getElementById("how-title").textContent = `${run.combination} of ${run.model} on ${run.data}, ${run.name}`;
  const command = document.getElementById("how-command");
  const without = run.trained ? "No configuration of a clone was at hand." : "No training: this is the model as it is.";
  document.getElementById("how-folder").textContent = run.folder;
  command.querySelector("pre").textContent = run.command ?? without;
  command.querySelector("button").hidden = run.command === null;
  const changes = Object.entries(run.changes).map(([field, value]) =>
    make("tr", {}, make("th", { scope: "row", textContent: field }), make("td", { className: "words", textContent: value })));
  how.querySelector("tbody").replaceChildren(...changes);
  how.showModal();
}

document.getElementById("run-table").addEventListener("click", (event) => {
  const button = event.target.closest("button.how");
  if (button) describe(data.runs[Number(button.dataset.run)]);
});

document.getElementById("copy").addEventListener("click", async (event) => {
  const command = how.querySelector("pre");
  try {
    await navigator.clipboard.writeText(command.textContent);
    event.target.textContent = "copied";
  } catch { // the browser doesn't let pages copy: then it is marked, for the keyboard
    getSelection().selectAllChildren(command);
  }
});
how.addEventListener("close", () => (document.getElementById("copy").textContent = "copy"));
