/**
 * Watch rows of a Django project over a WebSocket.
 *
 *     import { Feed } from "/static/pgobserve/pgobserve.js";
 *
 *     const feed = new Feed("/ws/");
 *     const watched = feed.subscribeInstance(1, (frame) => console.log(frame.action, frame.data));
 *     …
 *     watched.close();
 *
 * The connection is made again when it is lost, after a delay that grows, and everything that was
 * watched is watched again and read again: what was missed meanwhile is not missing afterwards.
 *
 * @module pgobserve
 */

/**
 * What the server sends: the answer to a request, or a change.
 *
 * @typedef {object} Frame
 * @property {string | null} action  What was asked for, or `create`, `update`, `delete`.
 * @property {any} data              The row; `{pk}` alone after a `delete`.
 * @property {any[]} errors          Sentences, if something was wrong.
 * @property {number} response_status  As in HTTP.
 * @property {any} request_id        That of the request, or of the subscription.
 * @property {string} [token]        Where in the database's history this frame is.
 */

/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */

/**
 * @typedef {object} Options
 * @property {number} [firstDelay]  Milliseconds before the first new attempt (250).
 * @property {number} [lastDelay]   Milliseconds that the delay grows to (10,000).
 */

const GROWTH = 1.618;

/** A request that was refused (then `frame` says why), or whose connection was lost. */
export class FeedError extends Error {
  /**
   * @param {string} message
   * @param {Frame | null} [frame]
   */
  constructor(message, frame = null) {
    super(message);
    this.name = "FeedError";
    /** @type {Frame | null} */
    this.frame = frame;
  }
}

/** A watched row; made by {@link Feed#subscribeInstance}. */
class Subscription {
  /**
   * @param {Feed} feed
   * @param {number} id
   * @param {any} key
   * @param {(frame: Frame) => void} onFrame
   */
  constructor(feed, id, key, onFrame) {
    this.feed = feed;
    this.id = id;
    /** The row's primary key. */
    this.key = key;
    this.onFrame = onFrame;
  }

  /** Stop watching. */
  close() {
    this.feed.unsubscribe(this);
  }
}

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
   * Watch a row.
   *
   * The function gets the row as it is now (action `subscribe_instance`, status 201), each change of
   * it (`create`, `update`, `delete`), and the row as it is then whenever the connection was made
   * anew. If the row can't be watched it gets the frame that says so, such as a 404, and the
   * subscription is over.
   *
   * @param {any} key  The primary key.
   * @param {(frame: Frame) => void} onFrame
   * @returns {Subscription}
   */
  subscribeInstance(key, onFrame) {
    const subscription = new Subscription(this, ++this.#lastId, key, onFrame);
    this.#subscriptions.set(subscription.id, subscription);
    // Otherwise it begins with the connection.
    if (this.#state === "open") this.#begin(subscription);
    return subscription;
  }

  /** @param {Subscription} subscription */
  unsubscribe(subscription) {
    if (!this.#subscriptions.delete(subscription.id) || this.#state !== "open") return;
    const { key, id } = subscription;
    this.#send({ action: "unsubscribe_instance", pk: key, request_id: id });
  }

  /** End it for good. */
  close() {
    globalThis.removeEventListener("online", this.#retryNow);
    clearTimeout(this.#timer);
    this.#become("closed");
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
    for (const subscription of waiting) this.#begin(subscription);
    for (const message of unsent) this.#send(message);
  }

  #lost() {
    if (this.#state === "closed") return;
    this.#rejectAll("The connection was lost.");
    // Jitter, lest all pages come back to a restarted server at the same instant.
    const delay = Math.min(this.lastDelay, this.firstDelay * GROWTH ** this.#attempts++);
    this.#timer = setTimeout(() => this.#connect(), delay * (0.5 + Math.random() / 2));
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
      else asked.reject(new FeedError(frame.errors.map(String).join(" "), frame));
      return;
    }
    this.#subscriptions.get(frame.request_id)?.onFrame(frame);
  }

  /**
   * Ask for the row together with the subscription: nothing is lost or overtaken in between.
   *
   * @param {Subscription} subscription
   */
  async #begin({ id, key, onFrame }) {
    /** @type {Frame} */ let frame;
    try {
      frame = await this.#ask(id, { action: "subscribe_instance", pk: key, snapshot: true });
    } catch (error) {
      if (!(error instanceof FeedError)) throw error;
      // A lost connection is no refusal: the next one begins again.
      if (!error.frame || !this.#subscriptions.delete(id)) return;
      onFrame(error.frame);
      return;
    }
    if (this.#subscriptions.has(id)) onFrame(frame);
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
