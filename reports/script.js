"use strict";
// The page is whole without this script; it adds sorting, filtering, copying, hovering and the choice of theme.

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

function makeTableLive() {
  const table = document.querySelector("#arms table");
  const form = document.querySelector(".filters");
  const arms = all("tbody.arm", table);
  const headers = all("thead th", table);
  const measured = new Map(arms.map((arm, index) => [arm, index]));
  const words = new Map(arms.map((arm) => [arm, arm.textContent.toLowerCase()]));

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

  function filter() {
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

  for (const header of headers) {
    const { key } = header.dataset;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    header.replaceChildren(button);
    header.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      // The first click shows the best end of a speed-up or a rate first, and the small end of everything else.
      const first = /^(speedup|tokens_per_s|mfu)$/.test(key) ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      sort(key, header.getAttribute("aria-sort") === first ? second : first);
    });
    form.elements.sort.add(new Option(button.textContent, key));
  }
  form.elements.sort.addEventListener("change", (event) => {
    const key = event.target.value;
    sort(key, /^(speedup|tokens_per_s|mfu)$/.test(key) ? "descending" : "ascending");
  });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  filter();
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
  const show = (point) => {
    tip.textContent = point.getAttribute("aria-label");
    tip.hidden = false;
    const at = point.querySelector("circle").getBoundingClientRect();
    const left = at.left + at.width / 2 - tip.offsetWidth / 2;
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const point of all(".point")) {
    // The browser's own tooltip would cover this one; its text stays as the label.
    point.querySelector("title").remove();
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("focus", () => show(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("blur", hide);
  }
  addEventListener("scroll", hide, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
}

chooseTheme();
makeTableLive();
makeCommandsCopyable();
showTips();
