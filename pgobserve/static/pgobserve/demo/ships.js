/** The live list: what is asked for, and what comes of it. */

import { showFigures } from "./figures.js";
import { at } from "./page.js";
import * as table from "./table.js";

/** Typing is over after this time (milliseconds). */
const TYPED = 200;

/** @typedef {import("../pgobserve.js").Feed} Feed */
/** @typedef {ReturnType<Feed["subscribeList"]>} List */

const number = new Intl.NumberFormat("en-GB");
/** @type {Feed} */ let feed;
/** @type {List | null} */ let list = null;
/** @type {List | null} What the table shows; a new list takes its place when it has come. */ let shown = null;
let filtered = false;

/** Watch the list that the filter asks for, and a number for each state. @param {Feed} of */
export function watch(of) {
  feed = of;
  for (const chip of document.querySelectorAll(".chip")) {
    const state = /** @type {HTMLInputElement} */ (chip.querySelector("input")).value;
    const count = /** @type {HTMLElement} */ (chip.querySelector(".count"));
    feed.subscribeList({ only: "count", ...(state && { state }) }, ({ count: found }) => {
      count.textContent = number.format(found ?? 0);
    });
  }
  ask();
}

function ask() {
  const search = at("search").value.trim();
  const state = new FormData(at("filter")).get("state");
  const wanted = { ...(search && { query: { search } }), ...(state && { state }) };
  list?.close();
  filtered = Boolean(search || state);
  list = feed.subscribeList({ ...wanted, sort: (a, b) => a.id - b.id, error: refused }, changed);
}

/** @param {List} of @param {import("../pgobserve.js").Change} change */
function changed(of, { action, key, row }) {
  if (of !== list) return;
  if (action === "subscribe_list" && shown !== of) begin(of);
  else if (action === "subscribe_list") catchUp(of);
  else if (action === "delete") table.leave(key, filtered ? "left" : "deleted", fill);
  else table.show(key, row, action === "update" ? "updated" : filtered ? "entered" : "created");
  figures();
}

/** Show a list that has just been asked for: nothing of it is news. @param {List} of */
function begin(of) {
  shown = of;
  table.keepOnly(of.rows);
  fill();
  at("found").textContent = `${number.format(of.count ?? 0)} ${of.count === 1 ? "ship" : "ships"}`;
}

/** Show what has changed while the connection was lost. @param {List} of */
function catchUp(of) {
  for (const key of table.missingIn(of.rows)) table.leave(key, filtered ? "left" : "deleted", fill);
  for (const [key, ship] of of.rows) table.show(key, ship, "caught up");
}

/** Use the room that there is. */
function fill() {
  for (const [key, ship] of list?.rows ?? []) {
    if (table.size() >= table.MOST_ROWS) break;
    table.show(key, ship, null);
  }
  figures();
}

function figures() {
  const count = list?.count ?? 0;
  at("empty").hidden = table.size() > 0;
  at("empty").textContent = "No ship is like that now. One that will be comes by itself.";
  const rows = `${number.format(count)} ${count === 1 ? "row" : "rows"}`;
  showFigures(count > table.MOST_ROWS ? `the first ${table.MOST_ROWS} of ${rows}` : rows);
}

/** @param {Error} error */
function refused(error) {
  table.keepOnly(new Map());
  at("empty").hidden = false;
  at("empty").textContent = error.message;
}

/** @type {ReturnType<typeof setTimeout> | undefined} */ let typing;
at("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(ask, TYPED);
});
at("filter").addEventListener("change", (/** @type {Event} */ event) => {
  if (event.target !== at("search")) ask();
});
at("filter").addEventListener("submit", (/** @type {Event} */ event) => event.preventDefault());
