'use strict';

require('./lifeline');
const Server = require('oompa');

const schema = {
  ADD: ({ x, y }) => Promise.resolve(x + y),
  ECHO: text => Promise.resolve(text),
};

new Server(schema).listen(Number(process.argv[2]));
