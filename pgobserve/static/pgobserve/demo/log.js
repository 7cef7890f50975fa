/** The frames, as they go and come. */

import { at, make } from "./page.js";

/** Entries that the log keeps. */
const MOST_ENTRIES = 200;

const HOW = /** @type {Record<string, string>} */ ({ create: "created", update: "updated", delete: "deleted" });

const log = at("log");
let paused = false;
let missed = 0;
/** @type {HTMLLIElement[]} */ let unlogged = [];
/** @type {Map<any, string>} What the subscriptions are about, by their request ids. */ const names = new Map();

/** @param {import("../pgobserve.js").Feed} feed */
export function follow(feed) {
  feed.addEventListener("frame", (event) => record("←", /** @type {CustomEvent} */ (event).detail));
  feed.addEventListener("sent", (event) => {
    const { detail } = /** @type {CustomEvent} */ (event);
    if (!names.has(detail.request_id)) names.set(detail.request_id, detail.only === "count" ? "count" : "list");
    record("→", detail);
  });
}

/** @param {string} arrow @param {any} message */
function record(arrow, message) {
  if (paused) {
    missed += 1;
    at("pause").textContent = `Resume (${missed} not shown)`;
    return;
  }
  const name = names.get(message.request_id) ?? "";
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

at("pause").addEventListener("click", () => {
  paused = !paused;
  missed = 0;
  at("pause").setAttribute("aria-pressed", String(paused));
  at("pause").textContent = paused ? "Resume" : "Pause";
});
at("clear").addEventListener("click", () => log.replaceChildren());
