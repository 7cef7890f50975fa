/** The table: a row for each ship of the list, as far as there is room. */

import { fromRun, hear, sinceCommit } from "./figures.js";
import { at, make } from "./page.js";

/** How long a changed row is lit, and how long one that left stays to be seen (milliseconds). */
const LIT = 2600;
const GONE = 4000;
/** The table has room for so many rows. */
export const MOST_ROWS = 200;

/** @typedef {import("./figures.js").Took} Took */
/** @typedef {{element: HTMLTableRowElement, ship: any, dim?: any, leave?: any}} Row */

/** @type {Map<string, Row>} */ const rows = new Map();
const body = at("ships").tBodies[0];
const number = new Intl.NumberFormat("en-GB");

/** @param {any} ship */
const texts = (ship) => [
  ship.line?.name ?? "–",
  ship.berth ? `${ship.state}, ${ship.berth}` : ship.state,
  `${number.format(ship.cargo)} t`,
];

/** Whether two versions of a ship look the same: when they were committed is not seen. */
const same = (/** @type {any} */ a, /** @type {any} */ b) =>
  a.name === b.name && String(texts(a)) === String(texts(b));

/** @returns {number}  How many rows there are in the table. */
export const size = () => rows.size;

/**
 * Show a ship, and light it up if it looks otherwise than before.
 *
 * @param {string} key
 * @param {any} ship
 * @param {string | null} how  How it came, in a word; null: it does not matter.
 */
export function show(key, ship, how) {
  const before = rows.get(key);
  if (!before && !isRoomFor(key)) return;
  const row = before ?? newRow(key);
  clearTimeout(row.leave);
  row.leave = undefined;
  row.element.classList.remove("gone");
  write(row, key, ship);
  const looksNew = !row.ship || !same(row.ship, ship) || how === "created" || how === "entered";
  row.ship = ship;
  if (how !== null && looksNew) light(row, how, how === "caught up" ? null : sinceCommit(ship));
}

/** Take a ship out, not at once. @param {string} key @param {string} how */
export function leave(key, how, afterwards = () => {}) {
  const row = rows.get(key);
  if (!row || row.leave !== undefined) return;
  light(row, how, fromRun());
  row.element.classList.add("gone");
  row.leave = setTimeout(() => {
    remove(key);
    afterwards();
  }, GONE);
}

/** Take out at once what is not among some keys. @param {ReadonlyMap<string, any>} keys */
export function keepOnly(keys) {
  for (const key of [...rows.keys()]) if (!keys.has(key)) remove(key);
}

/** @param {ReadonlyMap<string, any>} keys @returns {string[]}  Shown rows that are not among some keys. */
export const missingIn = (keys) => [...rows.keys()].filter((key) => !keys.has(key));

/** @param {string} key */
function isRoomFor(key) {
  const last = body.rows[body.rows.length - 1];
  if (body.rows.length < MOST_ROWS) return true;
  if (Number(last.dataset.key) < Number(key)) return false;
  remove(last.dataset.key);
  return true;
}

/** @param {string} key @returns {Row} */
function newRow(key) {
  const element = make("tr", {},
    make("th", { scope: "row" }), make("td", { className: "line" }), make("td", { className: "where" }),
    make("td", { className: "number" }), make("td", { className: "last" }));
  element.dataset.key = key;
  const after = [...body.rows].find((other) => Number(other.dataset.key) > Number(key));
  body.insertBefore(element, after ?? null);
  const row = { element, ship: null };
  rows.set(key, row);
  return row;
}

/** @param {Row} row @param {string} key @param {any} ship */
function write(row, key, ship) {
  const [name, ...cells] = row.element.cells;
  const small = make("small", { className: "aside" }, ship.line?.name ?? "no line");
  if (row.ship !== null && row.ship.line?.name !== ship.line?.name) small.classList.add("changed");
  name.replaceChildren(ship.name, " ", make("small", {}, `#${key}`), small);
  texts(ship).forEach((text, index) => {
    if (row.ship !== null && cells[index].textContent !== text) cells[index].classList.add("changed");
    cells[index].textContent = text;
  });
}

/** Light a row up, with how it came and how long it took, in words. */
function light(/** @type {Row} */ row, /** @type {string} */ how, /** @type {Took | null} */ took) {
  const { element } = row;
  element.dataset.how = how;
  element.dataset.flip = element.dataset.flip === "0" ? "1" : "0";
  element.classList.add("lit");
  const badge = make("span", { className: "badge" }, how);
  badge.dataset.how = how;
  element.cells[4].replaceChildren(badge);
  if (took !== null) element.cells[4].append(make("span", { className: "took" }, took.words));
  clearTimeout(row.dim);
  row.dim = setTimeout(() => {
    element.classList.remove("lit");
    for (const changed of element.querySelectorAll(".changed")) changed.classList.remove("changed");
  }, LIT);
  hear(row.ship?.name ?? "A ship", how, took);
}

/** @param {string} key */
function remove(key) {
  const row = rows.get(key);
  clearTimeout(row?.leave);
  clearTimeout(row?.dim);
  row?.element.remove();
  rows.delete(key);
}
