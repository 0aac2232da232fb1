"use strict";
// The page is whole without this script. It adds sorting, filtering, copying, the figures that the matrix can show,
// marks that follow an arm through all pictures, and an address that leads back to what is chosen.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

function chooseTheme() {
  const button = document.getElementById("theme");
  const themes = ["system", "light", "dark"];
  let theme = "system";
  // A page opened from a file may have no storage.
  try { theme = localStorage.getItem("trainpace-theme") || theme; } catch {}
  const apply = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  };
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem("trainpace-theme", theme); } catch {}
    apply();
  });
  button.hidden = false;
  if (!document.documentElement.dataset.theme) apply();
}

function makeTableLive(changed) {
  const table = document.querySelector("#arms table");
  const form = document.querySelector(".filters");
  const arms = all("tbody.arm", table);
  const headers = all("thead th", table);
  const measured = new Map(arms.map((arm, index) => [arm, index]));
  // Not the further figures: that nothing was compiled would make every arm one that has to do with compile.
  const told = (arm) => all("tr:first-child, p", arm).map((part) => part.textContent).join(" ");
  const words = new Map(arms.map((arm) => [arm, told(arm).toLowerCase()]));

  const value = (arm, key) => {
    const cell = arm.querySelector(`tr:first-child [data-key="${key}"]`);
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (first, second) => (typeof first === "string" ? first.localeCompare(second) : first - second);

  function sort(key, direction) {
    const sign = direction === "descending" ? -1 : 1;
    // What is unknown stays at the end whichever way the rest is sorted.
    arms.sort((one, other) => {
      if (!key) return measured.get(one) - measured.get(other);
      const [first, second] = [value(one, key), value(other, key)];
      if (first === null || second === null) return (first === null) - (second === null);
      return sign * compare(first, second) || measured.get(one) - measured.get(other);
    });
    headers.forEach((header) => header.setAttribute("aria-sort", header.dataset.key === key ? direction : "none"));
    table.append(...arms);
  }

  function show() {
    const { text, workload, outcome } = form.elements;
    const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const arm of arms) {
      arm.hidden = !(
        wanted.every((word) => words.get(arm).includes(word)) &&
        (!workload.value || arm.dataset.workload === workload.value) &&
        (!outcome.value || arm.dataset.outcome === outcome.value)
      );
      shown += !arm.hidden;
    }
    form.querySelector("output").textContent = `${shown} of ${arms.length} arms`;
  }

  // The best end first: of a speed-up or a rate the large one, of everything else the small one.
  const bestFirst = (key) => (/^(speedup|tokens_per_s|mfu)$/.test(key) ? "descending" : "ascending");
  const sorting = { key: "", direction: "" };
  function sortBy(key, direction) {
    Object.assign(sorting, { key, direction });
    sort(key, direction);
    form.elements.sort.value = key;
  }

  for (const header of headers) {
    const { key } = header.dataset;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const first = bestFirst(key);
      const second = first === "ascending" ? "descending" : "ascending";
      sortBy(key, header.getAttribute("aria-sort") === first ? second : first);
      changed();
    });
    form.elements.sort.add(new Option(button.textContent, key));
  }
  form.elements.sort.addEventListener("change", ({ target }) => {
    sortBy(target.value, target.value && bestFirst(target.value));
    changed();
  });
  form.addEventListener("input", () => { show(); changed(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  show();
  return {
    read: () => ({
      text: form.elements.text.value,
      workload: form.elements.workload.value,
      outcome: form.elements.outcome.value,
      sort: sorting.key,
      order: sorting.direction === bestFirst(sorting.key) ? "" : sorting.direction,
    }),
    write(state) {
      for (const name of ["text", "workload", "outcome"]) {
        form.elements[name].value = state[name];
        // A link from another run may name what is not here.
        if (form.elements[name].selectedIndex === -1) form.elements[name].value = "";
      }
      const known = headers.some((header) => header.dataset.key === state.sort);
      const key = known ? state.sort : "";
      sortBy(key, key && (["ascending", "descending"].includes(state.order) ? state.order : bestFirst(key)));
      show();
    },
  };
}

function makeMatrixLive(changed) {
  const form = document.querySelector(".switch");
  const tiles = all(".matrix .tile");
  const choices = all('.switch input[name="figure"]');
  // Without an arm, or where nothing is known of any, there is nothing to choose.
  if (!choices.length) return { read: () => ({}), write() {} };
  const caption = document.getElementById("shown");
  const chosen = () => choices.find((choice) => choice.checked) ?? choices[0];

  function show() {
    const { value, parentElement: label } = chosen();
    caption.textContent = `${label.textContent.trim()}: ${label.title}.`;
    for (const tile of tiles) {
      const text = tile.dataset[value];
      // An arm that failed says so; one that has no such figure has none.
      tile.querySelector(".value").textContent = text ?? (tile.dataset.start || tile.dataset.speedup ? "unknown" : tile.dataset.outcome);
      tile.style.setProperty("--shade", tile.dataset[`${value}Shade`] ?? 0);
    }
  }

  // One stop for the Tab key, and the arrow keys from there on.
  const rows = all(".matrix tbody tr").map((row) => all("td", row));
  const reach = (tile) => {
    for (const other of tiles) other.tabIndex = other === tile ? 0 : -1;
  };
  const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
  for (const [at, row] of rows.entries()) {
    for (const [column, tile] of row.entries()) {
      tile.addEventListener("keydown", (event) => {
        const step = steps[event.key];
        const next = step && rows[at + step[0]]?.[column + step[1]];
        if (!next?.classList.contains("tile")) return;
        event.preventDefault();
        reach(next);
        next.focus();
      });
    }
  }
  reach(tiles[0]);

  form.addEventListener("input", () => { show(); changed(); });
  form.hidden = choices.length < 2;
  return {
    read: () => ({ figure: chosen() === choices[0] ? "" : chosen().value }),
    write(state) {
      (choices.find((choice) => choice.value === state.figure) ?? choices[0]).checked = true;
      show();
    },
  };
}

// Pointing at an arm in one picture marks it in all. A click keeps it marked.
function linkArms(changed) {
  const parts = new Map();
  for (const part of all("[data-arm]")) {
    if (!parts.has(part.dataset.arm)) parts.set(part.dataset.arm, []);
    parts.get(part.dataset.arm).push(part);
  }
  let kept = "";
  const mark = (arm, on) => {
    for (const part of parts.get(arm) ?? []) part.classList.toggle("linked", on || arm === kept);
  };
  function keep(arm) {
    const before = kept;
    kept = parts.has(arm) ? arm : "";
    mark(before, false);
    mark(kept, true);
  }
  for (const [arm, found] of parts) {
    for (const part of found) {
      part.addEventListener("pointerenter", () => mark(arm, true));
      part.addEventListener("pointerleave", () => mark(arm, false));
      part.addEventListener("focus", () => mark(arm, true));
      part.addEventListener("blur", () => mark(arm, false));
      if (part.localName === "tbody") continue;
      const choose = () => { keep(kept === arm ? "" : arm); changed(); };
      part.addEventListener("click", choose);
      part.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " " || part.localName === "button") return;
        event.preventDefault();
        choose();
      });
    }
  }
  return { read: () => ({ arm: kept }), write: (state) => keep(state.arm) };
}

// What is chosen is in the address, so that a link shows the same. A fragment without "=" is a place on the page.
function keepInAddress(parts) {
  const names = ["figure", "text", "workload", "outcome", "sort", "order", "arm"];
  const asked = () => {
    const query = new URLSearchParams(location.hash.slice(1));
    return Object.fromEntries(names.map((name) => [name, query.get(name) ?? ""]));
  };
  const restore = () => {
    if (!location.hash.includes("=")) return;
    const state = asked();
    for (const part of parts) part.write(state);
    if (["text", "workload", "outcome", "sort"].some((name) => state[name])) document.getElementById("arms").scrollIntoView();
  };
  addEventListener("hashchange", restore);
  restore();
  return () => {
    const state = Object.assign({}, ...parts.map((part) => part.read()));
    const query = new URLSearchParams(names.filter((name) => state[name]).map((name) => [name, state[name]]));
    history.replaceState(null, "", `#${query}`);
  };
}

function makeCommandsCopyable() {
  for (const button of all(".copy")) {
    const code = button.previousElementSibling;
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        // Without the clipboard the command is at least selected.
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  }
}

function showTips() {
  const tip = document.getElementById("tip");
  let shown;
  const show = (point, pointed) => {
    shown = [point, pointed];
    tip.textContent = point.getAttribute("aria-label");
    tip.hidden = false;
    // A marker has one place; on a curve or a bar it is where it was pointed at, or else the whole of it.
    const marker = point.querySelector("circle") ?? (pointed ? null : point);
    const at = marker?.getBoundingClientRect() ?? new DOMRect(pointed.clientX, pointed.clientY);
    const left = at.left + at.width / 2 - tip.offsetWidth / 2;
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const point of all(".point")) {
    // The browser's own tooltip would cover this one; its text stays as the label.
    point.querySelector("title").remove();
    point.addEventListener("pointerenter", (event) => show(point, event));
    point.addEventListener("focus", () => show(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("blur", hide);
  }
  // To reach a mark scrolls to it, and its tip goes along; a mark that leaves the pointer hides it itself.
  addEventListener("scroll", () => { if (!tip.hidden) show(...shown); }, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}

let remember = () => {};
const changed = () => remember();
chooseTheme();
remember = keepInAddress([makeTableLive(changed), makeMatrixLive(changed), linkArms(changed)]);
makeCommandsCopyable();
showTips();
