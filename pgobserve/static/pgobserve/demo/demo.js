/** The demo's page: a live list, the SQL box and the log of frames, on top of the client in pgobserve.js. */

import { Feed } from "../pgobserve.js";
import { follow } from "./log.js";
import { at } from "./page.js";
import { watch } from "./ships.js";
import "./sql.js";

const feed = new Feed("/ws/ships/");

const SHOWN = /** @type {Record<string, string[]>} */ ({
  open: ["live", "live"],
  waiting: ["waiting", "connection lost, trying again"],
  connecting: ["connecting", "connecting"],
});

function showState() {
  const [state, words] = SHOWN[feed.state] ?? SHOWN.waiting;
  // An attempt is no news.
  if (state === "connecting" && at("state").dataset.state === "waiting") return;
  at("state").dataset.state = state;
  at("state").firstElementChild.textContent = words;
}

feed.addEventListener("state", showState);
follow(feed);
watch(feed);
showState();
