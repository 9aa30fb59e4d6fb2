'use strict';

// A server for Node; server.py beside it is the same in Python. Run it with `node server.js [PORT]`, after `npm install oompa`.

const Server = require('oompa');

const schema = {
  ADD: ({x, y}) => Promise.resolve(x + y),
  DIV: ({x, y}) => y ? Promise.resolve(x / y) : Promise.reject(new Error('Zero div')),
};

const healthcheck = () => Promise.resolve();

const server = new Server(schema, healthcheck);
server.use((request, next) => {
  console.log(`${request.type} #${request.id}`);
  return next(request);
});
server
  .on('error', error => console.error('unhealthy:', error))
  .listen(process.argv[2] || 9000).then(() => console.log('listening'));
