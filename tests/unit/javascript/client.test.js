import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { Server, sockets } from "./world.js";

const { Feed } = await import("./pgobserve.js");

let feed;
let server;
let changes;
let errors;

const OPTIONS = { firstDelay: 1, lastDelay: 2 };
const row = (id, name = "a") => ({ id, name });
const names = (list) => [...list.rows.values()].map(({ name }) => name);
/** What a frame with rows has besides them. */
const listed = (...ids) => ({ keys: ids.map(String), etags: ids.map((id) => `e${id}`) });
const about = (id, etag) => ({ key: String(id), ...(etag && { etag }) });

beforeEach(async () => {
  sockets.length = 0;
  changes = [];
  errors = [];
  feed = new Feed("/ws/", OPTIONS);
  server = new Server();
  await server.accept();
});

function subscribe(options = {}) {
  const list = feed.subscribeList(
    { error: (error) => errors.push(error), ...options },
    (_, change) => changes.push(change),
  );
  server.id = server.asked.request_id;
  return list;
}

/** Subscribe to a list that has two rows. */
function begun(options) {
  const list = subscribe(options);
  server.say("subscribe_list", 201, { results: [row(2, "b"), row(1, "a")] }, listed(2, 1));
  return list;
}

async function comeBack() {
  server.lose();
  await server.accept();
}

test("A list is asked for as it is wanted, and other options reach the consumer.", () => {
  subscribe({ query: { search: "x" }, only: "keys", maxRows: 5, sort: () => 0, berth: "A" });
  const asked = { query: { search: "x" }, only: "keys", max_rows: 5, berth: "A", action: "subscribe_list" };
  assert.deepEqual(server.asked, { ...asked, request_id: server.id });
});

test("The rows are there, by key and in the list's order.", () => {
  const list = begun();
  assert.deepEqual([...list.rows], [["2", row(2, "b")], ["1", row(1, "a")]]);
  assert.deepEqual(list.keys, ["2", "1"]);
  assert.equal(list.count, 2);
  assert.deepEqual(changes, [{ action: "subscribe_list", before: new Map() }]);
});

test("A list in several frames is one list.", () => {
  const list = subscribe();
  server.say("subscribe_list", 201, { results: [row(1)] }, { ...listed(1), more: true });
  server.say("subscribe_list", 201, { results: [row(2)] }, { ...listed(2), more: true });
  assert.equal(list.count, null);
  assert.deepEqual(changes, []);
  server.say("subscribe_list", 201, { results: [row(3)] }, listed(3));
  assert.deepEqual(list.keys, ["1", "2", "3"]);
  assert.equal(changes.length, 1);
});

test("An empty list is a list.", () => {
  const list = subscribe();
  server.say("subscribe_list", 201, { results: [] }, listed());
  assert.equal(list.count, 0);
  assert.equal(changes.length, 1);
});

test("Rows enter last, change where they are, and leave.", () => {
  const list = begun();
  server.say("create", 200, row(3, "c"), about(3, "x"));
  server.say("update", 200, row(2, "bb"), about(2, "y"));
  server.say("delete", 204, { pk: 1 }, about(1));
  assert.deepEqual(names(list), ["bb", "c"]);
  assert.equal(list.count, 2);
  assert.deepEqual(changes.slice(1), [
    { action: "create", key: "3", row: row(3, "c"), before: undefined },
    { action: "update", key: "2", row: row(2, "bb"), before: row(2, "b") },
    { action: "delete", key: "1", row: undefined, before: row(1, "a") },
  ]);
});

test("With a comparison the rows are in its order, always.", () => {
  const list = begun({ sort: (a, b) => a.name.localeCompare(b.name) });
  assert.deepEqual(names(list), ["a", "b"]);
  server.say("create", 200, row(3, "aa"), about(3, "x"));
  server.say("update", 200, row(1, "z"), about(1, "y"));
  assert.deepEqual(names(list), ["aa", "b", "z"]);
  assert.deepEqual(list.keys, ["3", "2", "1"]);
});

test("A count is a number, and is asked for anew after a lost connection.", async () => {
  const list = subscribe({ only: "count" });
  server.say("subscribe_list", 201, { count: 7 });
  server.say("update", 200, { count: 8 });
  assert.equal(list.count, 8);
  assert.deepEqual(changes, [
    { action: "subscribe_list", before: null },
    { action: "update", before: 7 },
  ]);
  await comeBack();
  assert.deepEqual(server.asked, { only: "count", action: "subscribe_list", request_id: server.id });
  server.say("subscribe_list", 503, null, { errors: ["Not now."] });
  assert.equal(list.closed, false);
  while (server.sent.length < 2) await new Promise(setImmediate);
  server.say("subscribe_list", 201, { count: 9 });
  assert.equal(list.count, 9);
});

test("Keys alone are rows with a key.", () => {
  const list = subscribe({ only: "keys" });
  server.say("subscribe_list", 201, { results: [{ pk: 4 }] }, listed(4));
  server.say("create", 200, { pk: 5 }, about(5, "x"));
  server.say("delete", 204, { pk: 4 }, about(4));
  assert.deepEqual(list.keys, ["5"]);
});

test("Rows are filed under the server's keys, whatever they show.", async () => {
  const list = subscribe();
  const keys = ["9007199254740993", '["x",1]', "__proto__"];
  const results = [{ id: 9007199254740992 }, { card: "x" }, {}];
  server.say("subscribe_list", 201, { results }, { keys, etags: ["a", "b", "c"] });
  assert.deepEqual(list.keys, keys);
  await comeBack();
  assert.deepEqual(Object.entries(server.asked.have), [
    ["9007199254740993", "a"],
    ['["x",1]', "b"],
    ["__proto__", "c"],
  ]);
});

test("After a lost connection it says what it holds, and the difference follows.", async () => {
  const list = begun();
  server.say("create", 200, row(3), about(3, "x"));
  server.say("update", 200, row(1, "z"), about(1, "y"));
  server.say("delete", 204, { pk: 2 }, about(2));
  await comeBack();
  const asked = { action: "subscribe_list", have: { 1: "y", 3: "x" }, request_id: server.id };
  assert.deepEqual(server.asked, asked);
  server.say("subscribe_list", 201, null);
  assert.deepEqual(list.keys, ["1", "3"]);
  assert.equal(changes.length, 4);
  server.say("delete", 204, { pk: 1 }, about(1));
  assert.deepEqual(list.keys, ["3"]);
});

test("A list that holds nothing is read anew.", async () => {
  const list = subscribe();
  server.say("subscribe_list", 201, { results: [] }, listed());
  await comeBack();
  assert.deepEqual(server.asked, { action: "subscribe_list", request_id: server.id });
  server.say("subscribe_list", 201, { results: [row(7)] }, listed(7));
  assert.deepEqual(list.keys, ["7"]);
});

test("A connection that is lost within a list leaves nothing of it.", async () => {
  const list = subscribe();
  server.say("subscribe_list", 201, { results: [row(7)] }, { ...listed(7), more: true });
  await comeBack();
  assert.deepEqual(server.asked, { action: "subscribe_list", request_id: server.id });
  server.say("subscribe_list", 201, { results: [row(9)] }, listed(9));
  assert.deepEqual(list.keys, ["9"]);
});

test("What is held is forgotten if the server does not accept it.", async () => {
  const list = begun();
  await comeBack();
  server.say("subscribe_list", 400, null, { errors: ['"have" has too many rows.'] });
  assert.deepEqual(server.asked, { action: "subscribe_list", request_id: server.id });
  server.say("subscribe_list", 201, { results: [row(5)] }, listed(5));
  assert.deepEqual(list.keys, ["5"]);
  assert.deepEqual(errors, []);
  server.say("update", 200, row(5, "z"), about(5, "x"));
  assert.deepEqual(names(list), ["z"]);
});

test("A list that is refused is over, and it is said why.", () => {
  const list = subscribe();
  server.say("subscribe_list", 413, null, { errors: ["The list has more than 10 rows."] });
  assert.equal(list.closed, true);
  assert.equal(errors[0].message, "The list has more than 10 rows.");
  assert.equal(errors[0].frame.response_status, 413);
  assert.deepEqual(changes, []);
  assert.equal(server.sent.length, 1);
});

test("A list that began is asked for again while the server can't.", async () => {
  const list = begun();
  await comeBack();
  server.say("subscribe_list", 503, null, { errors: ["Not now."] });
  while (server.sent.length < 2) await new Promise(setImmediate);
  assert.deepEqual(server.asked.have, { 1: "e1", 2: "e2" });
  assert.equal(list.closed, false);
  assert.deepEqual(errors, []);
});

test("A row that can't be shown is said, and the list goes on.", () => {
  const list = begun();
  server.say("update", 500, { pk: 2 }, { errors: ["Internal server error."], key: "2" });
  assert.equal(errors[0].frame.data.pk, 2);
  assert.equal(list.closed, false);
  assert.deepEqual(list.keys, ["2", "1"]);
});

test("A closed list is ended, and asked for no more.", async () => {
  const list = begun();
  list.close();
  assert.deepEqual(server.asked, { action: "unsubscribe_list", request_id: server.id });
  server.say("create", 200, row(3), about(3, "x"));
  assert.equal(list.count, 2);
  await comeBack();
  assert.deepEqual(server.sent, []);
});

test("An error has the sentences, and what is none as JSON.", async () => {
  const asked = feed.request("create");
  server.id = server.asked.request_id;
  server.say("create", 400, null, { errors: ["Twice.", { name: ["Too long."] }] });
  await assert.rejects(asked, { message: 'Twice. {"name":["Too long."]}' });
});

test("A row is requested with its etag after a lost connection, and its reply is no news.", async () => {
  const frames = [];
  feed.subscribeInstance(1, (frame) => frames.push(frame.action));
  server.id = server.asked.request_id;
  assert.deepEqual(server.asked, { action: "subscribe_instance", pk: 1, snapshot: true, request_id: server.id });
  server.say("subscribe_instance", 201, row(1), { etag: "e1" });
  server.say("update", 200, row(1, "b"), { etag: "e2" });
  await comeBack();
  assert.deepEqual(server.asked, { action: "subscribe_instance", pk: 1, etag: "e2", request_id: server.id });
  server.say("subscribe_instance", 201, null);
  server.say("delete", 204, { pk: 1 });
  assert.deepEqual(frames, ["subscribe_instance", "update", "delete"]);
  await comeBack();
  // Not the etag of what was there: as that the row may have come back.
  assert.equal(server.asked.etag, "");
});

test("A row whose etag is refused is read again; one that is refused is over.", async () => {
  const frames = [];
  const watched = feed.subscribeInstance(1, (frame) => frames.push(frame.response_status));
  server.id = server.asked.request_id;
  server.say("subscribe_instance", 201, row(1), { etag: "e1" });
  await comeBack();
  server.say("subscribe_instance", 400, null, { errors: ["No etag."] });
  assert.equal(server.asked.snapshot, true);
  server.say("subscribe_instance", 404, null, { errors: ["Not found"] });
  assert.deepEqual(frames, [201, 404]);
  assert.equal(watched.closed, true);
  await comeBack();
  assert.deepEqual(server.sent, []);
});

test("settled is fulfilled by its own reply, after the frames that came before it.", async () => {
  const list = begun();
  const rows = [];
  const waiting = feed.settled().then(() => rows.push(...names(list)));
  const { request_id, ...asked } = server.asked;
  assert.deepEqual(asked, { action: "settled" });
  server.say("create", 200, row(3, "c"));
  server.say("settled", 200, null, { request_id });
  await waiting;
  assert.deepEqual(rows, ["b", "a", "c"]);
});

test("settled is rejected if the server can't say so in time, and if the connection is lost.", async () => {
  const late = feed.settled();
  server.say("settled", 503, null, { errors: ["Later."] });
  await assert.rejects(late, { message: "Later." });
  const lost = feed.settled();
  server.lose();
  await assert.rejects(lost, /connection was lost/);
});
