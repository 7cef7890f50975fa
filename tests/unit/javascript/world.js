// A browser as far as the client needs one, with a WebSocket whose other end is the test.

/** The sockets that were made, the latest last. */
export const sockets = [];

class FakeSocket {
  constructor(url) {
    this.url = String(url);
    this.sent = [];
    sockets.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {}
}

globalThis.WebSocket = FakeSocket;
globalThis.document = { baseURI: "http://harbour.example/ships/" };
globalThis.addEventListener = () => {};
globalThis.removeEventListener = () => {};
globalThis.CustomEvent ??= class extends Event {
  constructor(name, { detail }) {
    super(name);
    this.detail = detail;
  }
};

/** The end of the connection that the server has. */
export class Server {
  /** Take the connection that the client makes, or has made; a new one after `lose`. */
  async accept() {
    while (sockets.length === 0 || sockets.at(-1) === this.socket) await tick();
    this.socket = sockets.at(-1);
    this.socket.onopen();
  }

  lose() {
    this.socket.onclose();
  }

  /** What the client has sent last. */
  get asked() {
    return this.socket.sent.at(-1);
  }

  get sent() {
    return this.socket.sent;
  }

  /** Send a frame of the subscription that was asked for last, or of any other. */
  say(action, status, data, more = {}) {
    const frame = { errors: [], data, action, response_status: status, request_id: this.id ?? this.asked.request_id };
    this.socket.onmessage({ data: JSON.stringify({ ...frame, ...more }) });
  }
}

export const tick = () => new Promise((resolve) => setTimeout(resolve, 1));
