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
 * @property {string | null} action  What was asked for, or `create`, `update`, `delete`, `reset`.
 * @property {any} data              The row; `{pk}` alone after a `delete`.
 * @property {any[]} errors          Sentences, if something was wrong.
 * @property {number} response_status  As in HTTP.
 * @property {any} request_id        That of the request, or of the subscription.
 * @property {string} [token]        Where in the database's history this frame is.
 */

/**
 * What happened to a list.
 *
 * `subscribe_list` is the list as the subscription found it, `reset` the same once more, because
 * what has changed could not be told; otherwise it is a row that came, changed or left.
 *
 * @typedef {object} Change
 * @property {"subscribe_list" | "reset" | "create" | "update" | "delete"} action
 * @property {any} [key]     Of the row.
 * @property {any} [row]     As it is now.
 * @property {any} [before]  As it was; of a whole list, its rows as they were, or its count.
 */

/**
 * @typedef {object} ListOptions
 * @property {object} [query]  For the consumer's filter backends.
 * @property {"keys" | "count"} [only]  Nothing else of the rows is wanted.
 * @property {number} [maxRows]  Rows in one frame; the client puts them together.
 * @property {string | ((row: any) => any)} [key]  Where a row has its primary key: `id`, or else `pk`.
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

/** What the client refuses to go on with. */
const BAD_REQUEST = 400;

/** What subscriptions have in common; made by a {@link Feed}. */
class Subscription {
  /** @type {string | null} What was seen: the server goes on from there. */ token = null;
  /** Whether it ever began. */ begun = false;
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

  /** Note that the server has begun it. */
  succeeded() {
    this.begun = true;
    this.refusals = 0;
  }

  /**
   * Begin without a token if that was what the server did not take.
   *
   * @param {Frame} frame
   * @returns {boolean}
   */
  startsOver(frame) {
    if (frame.response_status !== BAD_REQUEST || this.token === null) return false;
    this.token = null;
    this.begin(this);
    return true;
  }
}

/** A watched row; made by {@link Feed#subscribeInstance}. */
export class Instance extends Subscription {
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
    const how = this.token === null ? { snapshot: true } : { token: this.token };
    return { action: "subscribe_instance", pk: this.key, ...how };
  }

  /** @returns {object}  The message that ends it. */
  get ending() {
    return { action: "unsubscribe_instance", pk: this.key };
  }

  /** @param {Frame} frame */
  received(frame) {
    const isReply = frame.action === "subscribe_instance";
    const resumed = isReply && this.token !== null;
    this.token = frame.token ?? this.token;
    if (isReply && frame.response_status >= 400) {
      if (this.startsOver(frame)) return;
      this.closed = true;
      this.end(this);
    } else if (isReply) {
      this.succeeded();
    }
    // What has changed since the token comes in a frame of its own.
    if (!resumed || this.closed) this.onFrame(frame);
  }
}

/** A watched list, and its rows as they are; made by {@link Feed#subscribeList}. */
export class List extends Subscription {
  /** @type {Map<any, any>} */ #rows = new Map();
  /** @type {Map<any, any>} Keys that are no simple values, by their names in the map. */
  #composite = new Map();
  /** @type {any[]} Of a list that has not come as a whole yet. */ #gathered = [];
  /** @type {number | null} */ #count = null;
  #inOrder = true;
  #resuming = false;

  /**
   * @param {ListOptions & Record<string, any>} options  What is not ours goes to the consumer.
   * @param {(list: List, change: Change) => void} onChange
   * @param {(subscription: any) => void} end
   * @param {(subscription: any) => void} begin
   */
  constructor({ key, sort, error, maxRows, ...args }, onChange, end, begin) {
    super(end, begin);
    this.args = maxRows === undefined ? args : { ...args, max_rows: maxRows };
    this.onChange = onChange;
    this.onError = error ?? ((/** @type {FeedError} */ problem) => console.error(problem));
    this.sort = sort;
    this.keyOf = keyFunction(args.only === "keys" ? "pk" : key);
  }

  /**
   * Its rows by their keys, in order. A composite key is named by its JSON.
   *
   * @returns {ReadonlyMap<any, any>}
   */
  get rows() {
    if (!this.#inOrder && this.sort) {
      const { sort } = this;
      this.#rows = new Map([...this.#rows].sort(([, a], [, b]) => sort(a, b)));
    }
    this.#inOrder = true;
    return this.#rows;
  }

  /** @returns {any[]}  The keys of its rows, in order. */
  get keys() {
    return [...this.rows.keys()].map((name) => this.#composite.get(name) ?? name);
  }

  /** @returns {number | null}  How many rows there are; null until that is known. */
  get count() {
    return this.#count;
  }

  /** @returns {object}  The message that begins it. */
  get asking() {
    this.#gathered = [];
    // A number is asked for anew: that is no more work than to say how it has changed.
    if (this.args.only === "count") this.token = null;
    this.#resuming = this.token !== null;
    const what = { ...this.args, action: "subscribe_list" };
    return this.#resuming ? { ...what, token: this.token, keys: this.keys } : what;
  }

  /** @returns {object}  The message that ends it. */
  get ending() {
    return { action: "unsubscribe_list" };
  }

  /** @param {Frame} frame */
  received(frame) {
    this.token = frame.token ?? this.token;
    if (frame.response_status >= 400) {
      this.#refused(frame);
      return;
    }
    if (frame.action === "subscribe_list") this.succeeded();
    try {
      this.#take(frame);
    } catch (error) {
      if (!(error instanceof FeedError)) throw error;
      this.close();
      this.onError(error, this);
    }
  }

  /** @param {Frame} frame */
  #take(frame) {
    const { action } = frame;
    if (this.args.only === "count") this.#counted(frame);
    else if (action === "reset") this.#gather(frame);
    else if (action !== "subscribe_list") this.#changed(frame);
    // Resumed, what has changed since comes in frames of its own.
    else if (!this.#resuming) this.#gather(frame);
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
  #gather(frame) {
    this.#gathered.push(...frame.data.results);
    // The last has the token.
    if (frame.token === undefined) return;
    const rows = this.#gathered.map((row) => [this.#name(this.keyOf(row)), row]);
    const before = this.#rows;
    this.#gathered = [];
    this.#rows = new Map(/** @type {[any, any][]} */ (rows));
    this.#inOrder = false;
    this.#count = this.#rows.size;
    this.onChange(this, { action: /** @type {any} */ (frame.action), before });
  }

  /** @param {Frame} frame */
  #counted(frame) {
    const before = this.#count;
    this.#count = frame.data.count;
    this.onChange(this, { action: /** @type {any} */ (frame.action), before });
  }

  /** @param {Frame} frame */
  #changed({ action, data }) {
    const key = action === "delete" ? data.pk : this.keyOf(data);
    const name = this.#name(key);
    const before = this.#rows.get(name);
    if (action === "delete") {
      this.#composite.delete(name);
      if (!this.#rows.delete(name)) return;
    } else {
      this.#rows.set(name, data);
      this.#inOrder = false;
    }
    this.#count = this.#rows.size;
    const row = action === "delete" ? undefined : data;
    this.onChange(this, { action: /** @type {any} */ (action), key, row, before });
  }

  /** @param {any} key */
  #name(key) {
    if (typeof key !== "object" || key === null) return key;
    const name = JSON.stringify(key);
    this.#composite.set(name, key);
    return name;
  }
}

/**
 * @param {string | ((row: any) => any) | undefined} key
 * @returns {(row: any) => any}
 */
function keyFunction(key) {
  const find =
    typeof key === "function" ? key : (/** @type {any} */ row) => (key ? row[key] : (row.id ?? row.pk));
  return (row) => {
    const found = find(row);
    if (found !== undefined && found !== null) return found;
    throw new FeedError(`A row has no ${key ?? "id or pk"}: say by the option key where its primary key is.`);
  };
}
