"use strict";
// The page shows the best arms without this script. It unpacks all of them, and sorts, filters and pages them.

const packed = document.getElementById("arms");
const form = document.querySelector(".filters");
const table = document.querySelector("#all table");
const atOnce = Number(packed.dataset.atOnce);
const state = { text: "", workload: "", outcome: "", sort: "", order: "", page: 0 };
let arms = [];

async function unpacked() {
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

const sortedBy = (row, key) => (/^\d+$/.test(key) ? row.values[key] : row[key]);

function chosen() {
  const wanted = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = arms.filter((row) =>
    (!state.workload || row.workload === state.workload) &&
    (!state.outcome || row.outcome === state.outcome) &&
    wanted.every((word) => row.words.includes(word)));
  if (!state.sort) return found;
  const sign = state.order === "descending" ? -1 : 1;
  // What is unknown stays at the end whichever way the rest is sorted.
  return found.sort((one, other) => {
    const [first, second] = [sortedBy(one, state.sort), sortedBy(other, state.sort)];
    if (first === null || second === null) return (first === null) - (second === null);
    return sign * (typeof first === "string" ? first.localeCompare(second) : first - second);
  });
}

function cell(name, text, kind) {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function line(row) {
  const made = document.createElement("tr");
  const name = cell("th", row.techniques);
  name.scope = "row";
  if (row.note) name.append(cell("span", row.note, "differs"));
  made.append(cell("td", row.workload), name, cell("td", row.outcome));
  made.append(...row.texts.map((text) => cell("td", text, "figure")));
  return made;
}

function show() {
  const found = chosen();
  const pages = Math.max(1, Math.ceil(found.length / atOnce));
  state.page = Math.min(Math.max(0, state.page), pages - 1);
  const from = state.page * atOnce;
  const shown = found.slice(from, from + atOnce);
  table.tBodies[0].replaceChildren(...shown.map(line));
  const { back, on } = form.elements;
  back.disabled = state.page === 0;
  on.disabled = state.page === pages - 1;
  const which = shown.length ? `${from + 1} to ${from + shown.length}` : "none";
  form.querySelector("output").textContent = `${which} of ${found.length}, of ${arms.length} arms`;
  for (const header of table.querySelectorAll("thead th")) {
    header.setAttribute("aria-sort", header.dataset.key === state.sort ? state.order : "none");
  }
  const told = Object.entries(state).filter(([, value]) => value);
  const address = new URLSearchParams(told).toString();
  history.replaceState(null, "", address ? `#${address}` : location.pathname + location.search);
}

function readAddress() {
  const told = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(state)) state[name] = told.get(name) ?? "";
  state.page = Number(state.page) || 0;
  for (const name of ["text", "workload", "outcome"]) {
    form.elements[name].value = state[name];
    if (form.elements[name].selectedIndex === -1) state[name] = form.elements[name].value = "";
  }
}

async function start() {
  arms = await unpacked();
  for (const row of arms) row.words = `${row.workload} ${row.techniques} ${row.outcome} ${row.note}`.toLowerCase();
  for (const header of table.querySelectorAll("thead th")) {
    const button = cell("button", header.textContent);
    button.type = "button";
    button.addEventListener("click", () => {
      const first = header.className === "figure" ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      const isAgain = state.sort === header.dataset.key && state.order === first;
      Object.assign(state, { sort: header.dataset.key, order: isAgain ? second : first, page: 0 });
      show();
    });
    header.replaceChildren(button);
  }
  form.addEventListener("input", () => {
    for (const name of ["text", "workload", "outcome"]) state[name] = form.elements[name].value;
    state.page = 0;
    show();
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.elements.back.addEventListener("click", () => { state.page -= 1; show(); });
  form.elements.on.addEventListener("click", () => { state.page += 1; show(); });
  window.addEventListener("hashchange", () => { readAddress(); show(); });
  readAddress();
  form.hidden = false;
  show();
}

start();
