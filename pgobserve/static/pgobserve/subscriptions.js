/**
 * What a {@link Feed} keeps of each subscription, so that it can go on after a lost connection.
 *
 * Import from `pgobserve.js`; this module is a part of it.
 *
 * @module pgobserve/subscriptions
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
 * @property {string} [key]          Names the row of a list; an opaque string.
 * @property {string} [etag]         A digest of `data`.
 * @property {string[]} [keys]       The keys of `data.results`.
 * @property {string[]} [etags]      Their digests.
 * @property {boolean} [more]        More of the same list follows.
 */

/**
 * What happened to a list.
 *
 * `subscribe_list` is the list as the subscription found it; otherwise it is a row that came, changed
 * or left.
 *
 * @typedef {object} Change
 * @property {"subscribe_list" | "create" | "update" | "delete"} action
 * @property {string} [key]  Names the row.
 * @property {any} [row]     As it is now.
 * @property {any} [before]  As it was; of a whole list, its rows as they were, or its count.
 */

/**
 * @typedef {object} ListOptions
 * @property {object} [query]  For the consumer's filter backends.
 * @property {"keys" | "count"} [only]  Nothing else of the rows is wanted.
 * @property {number} [maxRows]  Rows in one frame; the client puts them together.
 * @property {(a: any, b: any) => number} [sort]  Keeps the rows in this order. Without it rows that
 *   enter later are last.
 * @property {(error: FeedError, list: List) => void} [error]  Told of a row that can't be shown, and
 *   of a list that can't be had: then `list.closed` is true.
 */

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

  /**
   * @param {Frame} frame
   * @returns {FeedError}
   */
  static of(frame) {
    return new FeedError(frame.errors.map(sentence).join(" "), frame);
  }
}

/** @param {any} error  A sentence, or an object of field names and messages. */
const sentence = (error) => (typeof error === "string" ? error : JSON.stringify(error));

/** The status of a request that the server does not accept. */
const BAD_REQUEST = 400;

/** The etag of a row that is not there. */
const NO_ROW = "";

/** What subscriptions have in common; made by a {@link Feed}. */
class Subscription {
  /** Whether it ever began. */ begun = false;
  /** Whether the last request said what is held. */ resuming = false;
  /** How often the server could not begin it, one time after the other. */ refusals = 0;

  /**
   * @param {(subscription: any) => void} end  Ends it.
   * @param {(subscription: any) => void} begin  Begins it anew.
   */
  constructor(end, begin) {
    this.end = end;
    this.begin = begin;
    /** Whether it is over. */
    this.closed = false;
  }

  /** Stop watching. */
  close() {
    this.end(this);
  }

  /** Hold nothing. */
  forget() {}

  /** Note that the server has begun it. */
  succeeded() {
    this.begun = true;
    this.refusals = 0;
  }

  /**
   * Begin as one that holds nothing if the server does not accept what this one holds.
   *
   * @param {Frame} frame
   * @returns {boolean}
   */
  startsOver(frame) {
    if (frame.response_status !== BAD_REQUEST || !this.resuming) return false;
    this.forget();
    this.begin(this);
    return true;
  }
}

/** A watched row; made by {@link Feed#subscribeInstance}. */
export class Instance extends Subscription {
  /** @type {string | null} Of the row as it was last received. */ #etag = null;

  /**
   * @param {any} key
   * @param {(frame: Frame) => void} onFrame
   * @param {(subscription: any) => void} end
   * @param {(subscription: any) => void} begin
   */
  constructor(key, onFrame, end, begin) {
    super(end, begin);
    /** The row's primary key. */
    this.key = key;
    this.onFrame = onFrame;
  }

  /** @returns {object}  The message that begins it. */
  get asking() {
    this.resuming = this.#etag !== null;
    const how = this.resuming ? { etag: this.#etag } : { snapshot: true };
    return { action: "subscribe_instance", pk: this.key, ...how };
  }

  /** @returns {object}  The message that ends it. */
  get ending() {
    return { action: "unsubscribe_instance", pk: this.key };
  }

  /** Hold nothing. */
  forget() {
    this.#etag = null;
  }

  /** @param {Frame} frame */
  received(frame) {
    const isReply = frame.action === "subscribe_instance";
    const resumed = isReply && this.resuming;
    this.#etag = frame.action === "delete" ? NO_ROW : (frame.etag ?? this.#etag);
    if (isReply && frame.response_status >= 400) {
      if (this.startsOver(frame)) return;
      this.closed = true;
      this.end(this);
    } else if (isReply) {
      this.succeeded();
    }
    // A row that differs from what is held comes in a frame of its own.
    if (!resumed || this.closed) this.onFrame(frame);
  }
}

/** A watched list, and its rows as they are; made by {@link Feed#subscribeList}. */
export class List extends Subscription {
  /** @type {Map<string, any>} */ #rows = new Map();
  /** @type {Map<string, string>} */ #etags = new Map();
  /** @type {[string, any, string][]} Of a list that has not come as a whole yet. */ #gathered = [];
  /** @type {number | null} */ #count = null;
  #inOrder = true;

  /**
   * @param {ListOptions & Record<string, any>} options  What is not ours goes to the consumer.
   * @param {(list: List, change: Change) => void} onChange
   * @param {(subscription: any) => void} end
   * @param {(subscription: any) => void} begin
   */
  constructor({ sort, error, maxRows, ...args }, onChange, end, begin) {
    super(end, begin);
    this.args = maxRows === undefined ? args : { ...args, max_rows: maxRows };
    this.onChange = onChange;
    this.onError = error ?? ((/** @type {FeedError} */ problem) => console.error(problem));
    this.sort = sort;
  }

  /**
   * Its rows by their keys, in order. Keys are text, whatever the rows show.
   *
   * @returns {ReadonlyMap<string, any>}
   */
  get rows() {
    if (!this.#inOrder && this.sort) {
      const { sort } = this;
      this.#rows = new Map([...this.#rows].sort(([, a], [, b]) => sort(a, b)));
    }
    this.#inOrder = true;
    return this.#rows;
  }

  /** @returns {string[]}  The keys of its rows, in order. */
  get keys() {
    return [...this.rows.keys()];
  }

  /** @returns {number | null}  How many rows there are; null until that is known. */
  get count() {
    return this.#count;
  }

  /** @returns {object}  The message that begins it. */
  get asking() {
    this.#gathered = [];
    this.resuming = this.#etags.size > 0;
    const what = { ...this.args, action: "subscribe_list" };
    return this.resuming ? { ...what, have: Object.fromEntries(this.#etags) } : what;
  }

  /** @returns {object}  The message that ends it. */
  get ending() {
    return { action: "unsubscribe_list" };
  }

  /** Hold nothing. */
  forget() {
    this.#etags.clear();
  }

  /** @param {Frame} frame */
  received(frame) {
    const { action } = frame;
    if (frame.response_status >= 400) {
      this.#refused(frame);
      return;
    }
    if (action === "subscribe_list") this.succeeded();
    if (this.args.only === "count") this.#counted(frame);
    else if (action !== "subscribe_list") this.#changed(frame);
    // Rows that differ from what is held come in frames of their own.
    else if (!this.resuming) this.#gather(frame);
  }

  /** @param {Frame} frame */
  #refused(frame) {
    // Otherwise it is about one row, and the list goes on.
    if (frame.action === "subscribe_list") {
      if (this.startsOver(frame)) return;
      this.closed = true;
      this.end(this);
    }
    this.onError(FeedError.of(frame), this);
  }

  /** Put the frames of one list together. @param {Frame} frame */
  #gather({ data, keys = [], etags = [], more }) {
    keys.forEach((key, index) => this.#gathered.push([key, data.results[index], etags[index]]));
    if (more) return;
    const before = this.#rows;
    this.#rows = new Map(this.#gathered.map(([key, row]) => [key, row]));
    this.#etags = new Map(this.#gathered.map(([key, , etag]) => [key, etag]));
    this.#gathered = [];
    this.#inOrder = false;
    this.#count = this.#rows.size;
    this.onChange(this, { action: "subscribe_list", before });
  }

  /** @param {Frame} frame */
  #counted(frame) {
    const before = this.#count;
    this.#count = frame.data.count;
    this.onChange(this, { action: /** @type {any} */ (frame.action), before });
  }

  /** @param {Frame} frame */
  #changed({ action, data, key = "", etag = "" }) {
    const before = this.#rows.get(key);
    if (action === "delete") {
      this.#etags.delete(key);
      if (!this.#rows.delete(key)) return;
    } else {
      this.#rows.set(key, data);
      this.#etags.set(key, etag);
      this.#inOrder = false;
    }
    this.#count = this.#rows.size;
    const row = action === "delete" ? undefined : data;
    this.onChange(this, { action: /** @type {any} */ (action), key, row, before });
  }
}
