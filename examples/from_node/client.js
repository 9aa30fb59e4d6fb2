'use strict';

// A client for Node; client.py beside it is the same in Python. Run it with `node client.js [URL]`, after `npm install oompa`.

const Client = require('oompa/client');

const methods = {
  add: {type: 'ADD', factory: (x, y) => ({x, y})},
  div: {type: 'DIV', factory: (x, y) => ({x, y})},
};

const client = new Client(process.argv[2] || 'ws://localhost:9000', methods, {timeout: 2000, attempts: 2});
client.on('host-closed', () => console.error('the server is gone'));

client.add(1, 6)
  .then(sum => console.log(`1 + 6 = ${sum}`))
  .then(() => client.div(1, 0))
  .catch(error => console.log(`1 / 0 : ${error}`))
  .then(() => client.ping(1000))
  .then(() => console.log('healthy'))
  .then(() => process.exit());
