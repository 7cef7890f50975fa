// A session of DCRF's own client; prints one JSON object with what it saw.
//
//   node session.js ws://127.0.0.1:8000/ws/

const { default: dcrf } = require('dcrf-client');

const client = dcrf.connect(process.argv[2], {
  pkField: 'id',
  websocket: { WebSocket: require('ws'), maxReconnectionDelay: 200 },
});
const seen = { events: [] };

// Resolves when `test` holds, which is looked at after every frame.
function until(test) {
  return new Promise((resolve) => {
    const look = () => test() && resolve();
    client.transport.on('message', () => setImmediate(look));
    look();
  });
}

async function main() {
  const user = { username: 'ann', email: 'ann@example.com', password: 'secret' };
  seen.created = await client.create('users', user);
  const { id } = seen.created;
  seen.retrieved = await client.retrieve('users', id);

  const subscription = client.subscribe('users', id, (data, action) => {
    seen.events.push([action, data]);
  });
  seen.subscribed = await subscription;
  seen.updated = await client.update('users', id, { ...user, email: 'two@example.com' });
  await until(() => seen.events.length === 1);
  seen.patched = await client.patch('users', id, { email: 'three@example.com' });
  await until(() => seen.events.length === 2);

  // The client subscribes again by itself, with the same request id.
  let again = 0;
  client.transport.on('message', ({ data }) => {
    again += JSON.parse(data).payload.action === 'subscribe_instance';
  });
  client.transport.socket.reconnect();
  await until(() => again === 1);
  await client.patch('users', id, { email: 'four@example.com' });
  await until(() => seen.events.length === 3);

  const other = client.subscribe('users', id, () => { seen.cancelledHeard = true; });
  await other;
  seen.cancelled = other.cancel();
  seen.deleted = await client.delete('users', id);
  await until(() => seen.events.length === 4);
  seen.missing = await client.retrieve('users', id).catch((error) => error.response_status);
  seen.list = await client.list('users');
}

main().then(() => {
  console.log(JSON.stringify(seen));
  process.exit(0);
}, (error) => {
  console.error(error, JSON.stringify(seen));
  process.exit(1);
});
