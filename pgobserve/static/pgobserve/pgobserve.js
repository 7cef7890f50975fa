/**
 * Watch rows and lists of a Django project over a WebSocket.
 *
 *     import { Feed } from "/static/pgobserve/pgobserve.js";
 *
 *     const feed = new Feed("/ws/");
 *     const list = feed.subscribeList({ query: { search: "tide" } }, () => draw(list.rows));
 *     const row = feed.subscribeInstance(1, (frame) => console.log(frame.action, frame.data));
 *     …
 *     list.close();
 *     row.close();
 *
 * The connection is made again when it is lost, after a delay that grows, and everything that was
 * watched goes on from where it was: what was missed meanwhile is not missing afterwards.
 *
 * @module pgobserve
 */

import { FeedError, Instance, List } from "./subscriptions.js";

export { FeedError };

/** @typedef {import("./subscriptions.js").Frame} Frame */
/** @typedef {import("./subscriptions.js").Change} Change */
/** @typedef {import("./subscriptions.js").ListOptions} ListOptions */

/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */

/**
 * @typedef {object} Options
 * @property {number} [firstDelay]  Milliseconds before the first new attempt (250).
 * @property {number} [lastDelay]   Milliseconds that the delay grows to (10,000).
 */

const GROWTH = 1.618;

/** The server is there, and its database not yet; what was watched before is asked for again. */
const UNAVAILABLE = 503;

/** @typedef {Instance | List} Subscription */

/**
 * One WebSocket to one consumer.
 *
 * Events: `state` (detail: a {@link State}), `frame` (detail: every {@link Frame} that comes),
 * `sent` (detail: every message that goes).
 */
export class Feed extends EventTarget {
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {State} */ #state = "connecting";
  /** @type {Map<number, {resolve: (frame: Frame) => void, reject: (error: FeedError) => void}>} */
  #asked = new Map();
  /** @type {Map<number, Subscription>} */ #subscriptions = new Map();
  /** @type {WeakMap<Subscription, number>} */ #ids = new WeakMap();
  /** @type {Map<number, object>} */ #unsent = new Map();
  #lastId = 0;
  #attempts = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  /**
   * @param {string | URL} url  Absolute (`ws:`, `wss:`), or relative to the page.
   * @param {Options} [options]
   */
  constructor(url, { firstDelay = 250, lastDelay = 10_000 } = {}) {
    super();
    this.url = new URL(url, document.baseURI);
    this.url.protocol = this.url.protocol.replace("http", "ws");
    this.firstDelay = firstDelay;
    this.lastDelay = lastDelay;
    globalThis.addEventListener("online", this.#retryNow);
    this.#connect();
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /**
   * Ask the consumer for an action.
   *
   * @param {string} action
   * @param {object} [args]  The action's other keys, such as `{pk: 1}`.
   * @returns {Promise<Frame>}  Rejects with a {@link FeedError} if refused, or if the connection is lost.
   */
  request(action, args = {}) {
    return this.#ask(++this.#lastId, { ...args, action });
  }

  /**
   * Wait until everything that was committed before this call has been handed to the subscriptions.
   *
   * @returns {Promise<void>}  Rejects with a {@link FeedError} if refused, or if the connection is lost.
   */
  async settled() {
    await this.request("settled");
  }

  /**
   * Watch a row.
   *
   * The function gets the row as it is now (action `subscribe_instance`, status 201), and each change
   * of it (`create`, `update`, `delete`), those that were missed while the connection was lost
   * included. If the row can't be watched it gets the frame that says so, such as a 404, and the
   * subscription is over.
   *
   * @param {any} key  The primary key.
   * @param {(frame: Frame) => void} onFrame
   * @returns {Instance}
   */
  subscribeInstance(key, onFrame) {
    return this.#add(new Instance(key, onFrame, this.#end, this.#begin));
  }

  /**
   * Watch a list.
   *
   * The function is called when the list is there, and after each change of it, with the list and
   * what happened. The list keeps its rows.
   *
   * @param {ListOptions & Record<string, any>} options  Other names are arguments of the consumer's
   *   `get_queryset` and `filter_queryset`.
   * @param {(list: List, change: Change) => void} onChange
   * @returns {List}
   */
  subscribeList(options, onChange) {
    return this.#add(new List(options, onChange, this.#end, this.#begin));
  }

  /** End it for good. */
  close() {
    globalThis.removeEventListener("online", this.#retryNow);
    clearTimeout(this.#timer);
    this.#become("closed");
    for (const subscription of this.#subscriptions.values()) subscription.closed = true;
    this.#subscriptions.clear();
    this.#socket?.close();
    this.#rejectAll("The feed was closed.");
  }

  #retryNow = () => {
    if (this.#state === "waiting") this.#connect();
  };

  #connect() {
    clearTimeout(this.#timer);
    this.#become("connecting");
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#received(JSON.parse(event.data));
    socket.onclose = () => this.#lost();
  }

  #opened() {
    this.#attempts = 0;
    // Those made by who hears of the state begin by themselves.
    const waiting = [...this.#subscriptions.values()];
    const unsent = [...this.#unsent.values()];
    this.#unsent.clear();
    this.#become("open");
    for (const subscription of waiting) if (!subscription.closed) this.#begin(subscription);
    for (const message of unsent) this.#send(message);
  }

  #lost() {
    if (this.#state === "closed") return;
    this.#rejectAll("The connection was lost.");
    this.#timer = setTimeout(() => this.#connect(), this.#delay(this.#attempts++));
    this.#become("waiting");
  }

  /** @param {string} message */
  #rejectAll(message) {
    const asked = [...this.#asked.values()];
    this.#asked.clear();
    this.#unsent.clear();
    for (const { reject } of asked) reject(new FeedError(message));
  }

  /** @param {Frame} frame */
  #received(frame) {
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
    const asked = this.#asked.get(frame.request_id);
    if (asked) {
      this.#asked.delete(frame.request_id);
      if (frame.response_status < 400) asked.resolve(frame);
      else asked.reject(FeedError.of(frame));
      return;
    }
    const subscription = this.#subscriptions.get(frame.request_id);
    if (!subscription) return;
    const isReply = frame.action?.startsWith("subscribe_");
    if (isReply && frame.response_status === UNAVAILABLE && subscription.begun) this.#later(subscription);
    else subscription.received(frame);
  }

  /**
   * @template {Subscription} T
   * @param {T} subscription
   * @returns {T}
   */
  #add(subscription) {
    this.#subscriptions.set(++this.#lastId, subscription);
    this.#ids.set(subscription, this.#lastId);
    // Otherwise it begins with the connection.
    if (this.#state === "open") this.#begin(subscription);
    return subscription;
  }

  /** Ask for what is there together with the subscription: nothing is lost or overtaken in between. */
  #begin = (/** @type {Subscription} */ subscription) => {
    this.#send({ ...subscription.asking, request_id: this.#ids.get(subscription) });
  };

  #end = (/** @type {Subscription} */ subscription) => {
    const id = this.#ids.get(subscription) ?? 0;
    // One that was refused is over already.
    const isOver = subscription.closed;
    subscription.closed = true;
    if (!this.#subscriptions.delete(id) || isOver || this.#state !== "open") return;
    this.#send({ ...subscription.ending, request_id: id });
  };

  /** @param {Subscription} subscription */
  #later(subscription) {
    const socket = this.#socket;
    setTimeout(() => {
      if (!subscription.closed && this.#socket === socket && this.#state === "open") this.#begin(subscription);
    }, this.#delay(subscription.refusals++));
  }

  /**
   * Jitter, lest all pages come back to a restarted server at the same instant.
   *
   * @param {number} attempts
   */
  #delay(attempts) {
    const delay = Math.min(this.lastDelay, this.firstDelay * GROWTH ** attempts);
    return delay * (0.5 + Math.random() / 2);
  }

  /**
   * @param {number} id
   * @param {object} message
   * @returns {Promise<Frame>}
   */
  #ask(id, message) {
    if (this.#state === "closed") return Promise.reject(new FeedError("The feed was closed."));
    return new Promise((resolve, reject) => {
      this.#asked.set(id, { resolve, reject });
      const whole = { ...message, request_id: id };
      if (this.#state === "open") this.#send(whole);
      else this.#unsent.set(id, whole);
    });
  }

  /** @param {object} message */
  #send(message) {
    this.#socket?.send(JSON.stringify(message));
    this.dispatchEvent(new CustomEvent("sent", { detail: message }));
  }

  /** @param {State} state */
  #become(state) {
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
