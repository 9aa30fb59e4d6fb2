'use strict';

// The workloads as the Node client does them: what are threads elsewhere are concurrent loops here.

const { tell, pause } = require('./lifeline');
const OompaClient = require('oompa/client');
const WebSocket = require('ws');

const assignment = JSON.parse(process.argv[2]);
const { deflate } = JSON.parse(process.argv[3]);
const url = `ws://127.0.0.1:${assignment.port}`;

const WARM_UP = 0.25;
const IN_FLIGHT = 64;
const LOOPS = 8;
const WARM_CONNECTIONS = 20;
const ECHO_SIZES = { '1 KiB': 1024, '64 KiB': 65536, '1 MiB': 1048576 };

const now = () => performance.now() / 1000;

function connect() {
  if (deflate) return new OompaClient(url);
  const client = new OompaClient(url, {}, OompaClient.NO_SERVER);
  client.client = new WebSocket(url, { perMessageDeflate: false });
  client.start();
  return client;
}

async function add(client, x) {
  if (await client.dispatch('ADD', { x, y: 1 }) !== x + 1) throw new Error('wrong answer');
}

async function callSerially(client, seconds) {
  const durations = [];
  const end = now() + seconds;
  for (let before = now(); before < end;) {
    await add(client, durations.length);
    const after = now();
    durations.push(after - before);
    before = after;
  }
  return durations;
}

const median = values => Float64Array.from(values).sort()[values.length >> 1];

async function serial() {
  const client = connect();
  await callSerially(client, WARM_UP);
  await pause();
  return { p50: median(await callSerially(client, assignment.seconds)) * 1e6 };
}

async function inLoops(clients, seconds) {
  const loops = await Promise.all(clients.map(client => callSerially(client, seconds)));
  return loops.reduce((sum, durations) => sum + durations.length, 0) / seconds;
}

async function rateOf(clients) {
  await inLoops(clients, WARM_UP);
  await pause();
  return { rate: await inLoops(clients, assignment.seconds) };
}

const in_flight = () => rateOf(Array(IN_FLIGHT).fill(connect()));
const own_connections = () => rateOf(Array.from({ length: LOOPS }, connect));

async function echoRate(client, text, seconds) {
  let calls = 0;
  const start = now();
  while (now() < start + seconds) {
    if (await client.dispatch('ECHO', text) !== text) throw new Error('wrong answer');
    calls += 1;
  }
  return calls * text.length / (now() - start) / 1e6;
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';
const textOf = (letters, size) => Array.from({ length: size }, () => letters[Math.floor(Math.random() * letters.length)]).join('');

const echoes = () => echoesOf('x');
const random_echoes = () => echoesOf(LETTERS);

async function echoesOf(letters) {
  const client = connect();
  const sizes = Object.entries(ECHO_SIZES).map(([name, size]) => [name, textOf(letters, size)]);
  for (const [, text] of sizes) await echoRate(client, text, WARM_UP / 3);
  await pause();
  const rates = {};
  for (const [name, text] of sizes) rates[name] = await echoRate(client, text, assignment.seconds / 3);
  return rates;
}

async function open(count) {
  const clients = [];
  for (let x = 0; x < count; x += 1) {
    clients.push(connect());
    await add(clients[x], x);
  }
  return clients;
}

async function idle() {
  const warm = await open(WARM_CONNECTIONS);
  await pause();
  const start = now();
  const clients = await open(assignment.size);
  const rate = assignment.size / (now() - start);
  await pause();
  return { 'set-ups': rate, held: warm.length + clients.length };
}

const work = { serial, in_flight, own_connections, echoes, random_echoes, idle };

work[assignment.work]().then(
  result => { tell({ result }); },
  error => {
    console.error(error);
    process.exit(1);
  },
);
