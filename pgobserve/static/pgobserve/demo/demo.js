/** The demo's page: rows, the SQL box and the log of frames, on top of the client in pgobserve.js. */

import { Feed } from "../pgobserve.js";

/** How long a changed row is lit, and how long a deleted one stays to be seen (milliseconds). */
const LIT = 2600;
const GONE = 4000;
/** Entries that the log keeps, and deleted keys that are still watched for their return. */
const MOST_ENTRIES = 200;
const MOST_GONE = 50;
/** Times that the median is made of. */
const MOST_TIMES = 50;
/** A statement's changes come within this time after its answer. */
const AFTER_RUN = 2000;

/** The consumer tells so many keys at most. */
const MOST_ROWS = 200;

const HARBOUR_KEY = 1;

/** @param {string} id @returns {any} */
const at = (id) => document.getElementById(id);

/**
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {(Node | string)[]} children  Text goes in as text.
 */
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const ships = new Feed("/ws/ships/");
const harbour = new Feed("/ws/harbour/");

// --- the log of frames ----------------------------------------------------------------------

const log = at("log");
let paused = false;
let missed = 0;

const HOW = /** @type {Record<string, string>} */ ({ create: "created", update: "updated", delete: "deleted" });

/** @type {HTMLLIElement[]} */ let unlogged = [];

function record(name, arrow, message) {
  if (paused) {
    missed += 1;
    at("pause").textContent = `Resume (${missed} not shown)`;
    return;
  }
  const text = make("span", { className: arrow === "→" ? "sent" : "" }, JSON.stringify(message));
  if (arrow === "←" && HOW[message.action]) text.dataset.how = HOW[message.action];
  const time = make("time", {}, new Date().toTimeString().slice(0, 8));
  unlogged.push(make("li", {}, time, make("span", { className: "from" }, `${arrow} ${name}`), text));
  if (unlogged.length > MOST_ENTRIES) unlogged.shift();
  // Once per picture: measuring the log for each frame would hold up the frames behind it.
  if (unlogged.length === 1) requestAnimationFrame(writeLog);
}

function writeLog() {
  const atBottom = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.append(...unlogged);
  unlogged = [];
  while (log.childElementCount > MOST_ENTRIES) log.firstElementChild.remove();
  if (atBottom) log.scrollTop = log.scrollHeight;
}

for (const [name, feed] of /** @type {[string, Feed][]} */ ([["ships", ships], ["harbour", harbour]])) {
  feed.addEventListener("frame", (event) => record(name, "←", /** @type {CustomEvent} */ (event).detail));
  feed.addEventListener("sent", (event) => record(name, "→", /** @type {CustomEvent} */ (event).detail));
  feed.addEventListener("state", showState);
}

at("pause").addEventListener("click", () => {
  paused = !paused;
  missed = 0;
  at("pause").setAttribute("aria-pressed", String(paused));
  at("pause").textContent = paused ? "Resume" : "Pause";
});
at("clear").addEventListener("click", () => log.replaceChildren());

// --- the connection -------------------------------------------------------------------------

function showState() {
  const states = [ships.state, harbour.state];
  const live = states.every((state) => state === "open");
  const state = live ? "live" : states.includes("waiting") ? "waiting" : "connecting";
  const words = { live: "live", waiting: "connection lost, trying again", connecting: "connecting" };
  if (at("state").dataset.state === state && state !== "connecting") return;
  at("state").dataset.state = state;
  at("state").firstElementChild.textContent = words[state];
}

// --- the table ------------------------------------------------------------------------------

/** @typedef {{element: HTMLTableRowElement, data: any, dim?: number, leave?: number}} Row */

/** @type {Map<number, Row>} */ const rows = new Map();
/** @type {Map<number, {close: () => void}>} */ const watched = new Map();
/** @type {Set<number>} Keys of deleted rows, the oldest first. */ const gone = new Set();
const body = at("ships").tBodies[0];
const number = new Intl.NumberFormat("en-GB");
/** Whether the rows that were there at the start have all come. */
let settled = false;
let beginning = new Set();

const where = (data) => (data.berth ? `${data.state}, ${data.berth}` : data.state);
const cargo = (data) => `${number.format(data.cargo)} t`;

function newRow(key) {
  const element = make("tr", {},
    make("th", { scope: "row" }), make("td", { className: "where" }),
    make("td", { className: "number" }), make("td", { className: "last" }));
  element.dataset.key = key;
  const after = [...body.rows].find((other) => Number(other.dataset.key) > key);
  body.insertBefore(element, after ?? null);
  return { element, data: null };
}

function show(key, data) {
  let row = rows.get(key);
  if (!row) rows.set(key, (row = newRow(key)));
  clearTimeout(row.leave);
  row.element.classList.remove("gone");
  const [name, place, load] = row.element.cells;
  name.replaceChildren(data.name, " ", make("small", {}, `#${key}`));
  for (const [cell, text] of [[place, where(data)], [load, cargo(data)]]) {
    if (row.data !== null && cell.textContent !== text) cell.classList.add("changed");
    cell.textContent = text;
  }
  row.data = data;
  return row;
}

/** Light a row up, with how it came and how long it took, in words. */
function light(row, how, took) {
  const { element } = row;
  element.dataset.how = how;
  element.dataset.flip = element.dataset.flip === "0" ? "1" : "0";
  element.classList.add("lit");
  const badge = make("span", { className: "badge" }, how);
  badge.dataset.how = how;
  element.cells[3].replaceChildren(badge);
  if (took !== null) element.cells[3].append(make("span", { className: "took" }, took.words));
  clearTimeout(row.dim);
  row.dim = setTimeout(() => {
    element.classList.remove("lit");
    for (const cell of element.cells) cell.classList.remove("changed");
  }, LIT);
  hear(row.data?.name ?? "A ship", how, took);
}

/** @returns {{words: string, milliseconds: number | null} | null} */
function sinceCommit(data) {
  if (!data.committed_at) return sinceRun();
  const milliseconds = Date.now() - Date.parse(data.committed_at);
  // Out of bounds: the clocks are not the same one, or the row came long after.
  if (milliseconds < -5 || milliseconds > 60_000) return null;
  return { words: `${Math.max(0, milliseconds)} ms`, milliseconds: Math.max(0, milliseconds) };
}

function sinceRun() {
  if (performance.now() > lastRun.until) return null;
  return { words: `${Math.round(performance.now() - lastRun.started)} ms from Run`, milliseconds: null };
}

function remove(key) {
  const row = rows.get(key);
  if (!row) return;
  const took = sinceRun();
  light(row, "deleted", took);
  row.element.classList.add("gone");
  clearTimeout(row.leave);
  row.leave = setTimeout(() => {
    rows.delete(key);
    row.element.remove();
    showFigures();
  }, GONE);
  gone.add(key);
  if (thereAreMore) lookUp();
  if (gone.size > MOST_GONE) forget(gone.values().next().value);
}

function forget(key) {
  gone.delete(key);
  watched.get(key)?.close();
  watched.delete(key);
}

/** What the feed says about one ship. */
function onShip(key, frame) {
  if (frame.response_status === 200 || frame.response_status === 201) {
    const before = rows.get(key);
    const known = before && !gone.has(key);
    const same = known && JSON.stringify(before.data) === JSON.stringify(frame.data);
    gone.delete(key);
    const row = show(key, frame.data);
    if (HOW[frame.action]) light(row, HOW[frame.action], sinceCommit(frame.data));
    else if (!known && settled) light(row, "created", sinceCommit(frame.data));
    else if (known && !same) light(row, "caught up", null);
  } else if (frame.response_status === 204 || frame.response_status === 404) {
    remove(key);
    if (frame.action === "subscribe_instance") watched.delete(key);
  } else {
    at("empty").textContent = frame.errors.map(String).join(" ");
    watched.delete(key);
  }
  if (beginning.delete(key) && beginning.size === 0) settled = true;
  showFigures();
}

// --- which ships there are ------------------------------------------------------------------

let looking = false;
let lookAgain = false;
/** Whether there are ships that the page has no room for. */
let thereAreMore = false;

/** Ask for the keys, and watch those that are not watched yet. */
async function lookUp() {
  if (looking) {
    lookAgain = true;
    return;
  }
  looking = true;
  do {
    lookAgain = false;
    try {
      const { data: keys } = await ships.request("keys");
      thereAreMore = keys.length >= MOST_ROWS;
      if (!settled) beginning = new Set([...beginning, ...keys.filter((key) => !watched.has(key))]);
      if (!settled && beginning.size === 0) settled = true;
      for (const key of keys) {
        if (!watched.has(key)) watched.set(key, ships.subscribeInstance(key, (frame) => onShip(key, frame)));
      }
    } catch (error) {
      // The next connection asks anew.
      console.info(error);
    }
  } while (lookAgain);
  looking = false;
  showFigures();
}

ships.addEventListener("state", (event) => {
  if (/** @type {CustomEvent} */ (event).detail === "open") lookUp();
});
harbour.subscribeInstance(HARBOUR_KEY, (frame) => {
  if (frame.response_status < 300) lookUp();
});

// --- figures, and what is said aloud --------------------------------------------------------

let changes = 0;
/** @type {number[]} */ const times = [];
/** @type {{name: string, how: string, took: any}[]} */ let unheard = [];

function showFigures() {
  at("empty").hidden = rows.size > 0;
  const parts = [`${thereAreMore ? "the first " : ""}${rows.size} ${rows.size === 1 ? "row" : "rows"}`];
  if (changes) parts.push(`${changes} ${changes === 1 ? "change" : "changes"} seen`);
  if (times.length) {
    const sorted = [...times].sort((a, b) => a - b);
    parts.push(`median ${sorted[sorted.length >> 1]} ms from commit`);
  }
  at("figures").textContent = parts.join(" · ");
}

/** Say it once for all that came together: twelve rows are one sentence. */
function hear(name, how, took) {
  changes += 1;
  if (took?.milliseconds != null) {
    times.push(took.milliseconds);
    if (times.length > MOST_TIMES) times.shift();
  }
  unheard.push({ name, how, took });
  if (unheard.length === 1) setTimeout(speak, 250);
}

function speak() {
  const [first] = unheard;
  const several = new Set(unheard.map((one) => one.name + one.how)).size > 1;
  const kinds = [...new Set(unheard.map((one) => one.how))].join(", ");
  at("heard").textContent = several
    ? `The feed: ${unheard.length} rows ${kinds}.`
    : `The feed: ${first.name} ${first.how}${first.took ? `, ${first.took.words}` : ""}.`;
  unheard = [];
}

// --- the SQL box ----------------------------------------------------------------------------

const lastRun = { started: 0, until: 0 };
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

showState();
