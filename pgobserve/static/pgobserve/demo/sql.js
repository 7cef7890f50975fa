/** The SQL box, and the command for a terminal. */

import { at, make } from "./page.js";

/** A statement's changes come within this time after its answer. */
const AFTER_RUN = 2000;

const lastRun = { started: 0, until: 0 };

/** @returns {number | null}  Milliseconds since the press of Run, if what comes now comes of it. */
export function sinceRun() {
  return performance.now() > lastRun.until ? null : Math.round(performance.now() - lastRun.started);
}

let running = false;

async function run(sql) {
  if (running || !sql.trim()) return;
  running = true;
  at("run").setAttribute("aria-disabled", "true");
  at("heard").textContent = "";
  lastRun.started = performance.now();
  lastRun.until = Infinity;
  try {
    const response = await fetch("/sql/", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sql }),
    });
    showOutcome(await response.json());
  } catch {
    showOutcome({ error: "The demo does not answer. Is it still running?" });
  }
  lastRun.until = performance.now() + AFTER_RUN;
  running = false;
  at("run").removeAttribute("aria-disabled");
}

function showOutcome({ results = [], milliseconds = null, error = null, note = null }) {
  const result = at("result");
  result.replaceChildren();
  const statuses = results.map((one) => one.status).filter(Boolean).join(" · ");
  if (!error) result.append(`${statuses || "Done"} in ${milliseconds} ms. `);
  if (note) result.append(note);
  if (error) result.append(make("div", { className: "error" }, error));
  for (const one of results) if (one.columns.length) result.append(tableOf(one));
}

function tableOf({ columns, rows: values, more }) {
  const head = make("tr", {}, ...columns.map((name) => make("th", { scope: "col" }, name)));
  const lines = values.map((line) => make("tr", {}, ...line.map((value) => make("td", {}, value ?? "∅"))));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines));
  const scroll = make("div", { className: "scroll", tabIndex: 0 }, table);
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", more ? "The first rows of the result" : "The result");
  return scroll;
}

at("sql-form").addEventListener("submit", (event) => {
  event.preventDefault();
  run(at("sql").value);
});
at("sql").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run(at("sql").value);
  }
});
for (const button of document.querySelectorAll("button.example")) {
  button.addEventListener("click", () => {
    at("sql").value = /** @type {HTMLElement} */ (button).dataset.sql;
    run(at("sql").value);
  });
}

at("copy").addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(at("psql").textContent);
    at("copy").textContent = "Copied";
  } catch {
    getSelection()?.selectAllChildren(at("psql"));
    at("copy").textContent = "Selected";
  }
  setTimeout(() => (at("copy").textContent = "Copy"), 2000);
});
