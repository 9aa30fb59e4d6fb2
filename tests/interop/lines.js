'use strict';

// Commands come in as JSON lines on stdin, {"key": n, "do": name, ...}; on stdout go their outcomes,
// {"key": n, "value": any} or {"key": n, "error": any}, and events, {"event": name, "args": [...]}.
// A key that is left out of an outcome stands for undefined.

const path = require('path');
const readline = require('readline');

const modules = process.env.OOMPA_NODE_MODULES;

exports.load = name => require(modules ? path.join(modules, name) : name);

function write(message) {
  process.stdout.write(`${JSON.stringify(message)}\n`);
}

exports.report = (event, ...args) => write({event, args});

exports.obey = commands => {
  readline.createInterface({input: process.stdin, crlfDelay: Infinity})
    .on('line', line => {
      const command = JSON.parse(line);
      new Promise(resolve => resolve(commands[command.do](command)))
        .then(value => write({key: command.key, value}))
        .catch(error => write({key: command.key, error: error instanceof Error ? String(error) : error}));
    })
    .on('close', () => process.exit(0));
  exports.report('ready');
};
