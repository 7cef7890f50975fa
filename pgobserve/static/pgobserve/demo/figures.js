/** Figures of what was seen, and what is said aloud. */

import { at } from "./page.js";
import { sinceRun } from "./sql.js";

/** Times that the median is made of. */
const MOST_TIMES = 50;

let changes = 0;
/** @type {number[]} */ const times = [];
/** @type {{name: string, how: string, took: Took | null}[]} */ let unheard = [];

/** @typedef {{words: string, milliseconds: number | null}} Took */

/** @param {any} ship @returns {Took | null} */
export function sinceCommit(ship) {
  if (!ship.committed_at) return fromRun();
  const milliseconds = Date.now() - Date.parse(ship.committed_at);
  // Out of bounds: the clocks are not the same one, or the row came long after.
  if (milliseconds < -5 || milliseconds > 60_000) return null;
  return { words: `${Math.max(0, milliseconds)} ms`, milliseconds: Math.max(0, milliseconds) };
}

/** @returns {Took | null} */
export function fromRun() {
  const milliseconds = sinceRun();
  return milliseconds === null ? null : { words: `≤ ${milliseconds} ms`, milliseconds: null };
}

/** Show them. @param {string} rows */
export function showFigures(rows) {
  const parts = [rows];
  if (changes) parts.push(`${changes} ${changes === 1 ? "change" : "changes"} seen`);
  if (times.length) {
    const sorted = [...times].sort((a, b) => a - b);
    parts.push(`median ${sorted[sorted.length >> 1]} ms from commit`);
  }
  at("figures").textContent = parts.join(" · ");
}

/**
 * Count a change, and say it, once for all that came together: twelve rows are one sentence.
 *
 * @param {string} name @param {string} how @param {Took | null} took
 */
export function hear(name, how, took) {
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
