'use strict';

// What a process of Node shares with the program that started it: it ends when stdin ends, a byte on stdin lets it go
// on after a pause, and answers go to stdout.

let goOn = null;

process.stdin.on('data', () => goOn && goOn());
process.stdin.on('end', () => process.exit(1));

const tell = message => process.stdout.write(`${JSON.stringify(message)}\n`);

function pause() {
  const released = new Promise(resolve => { goOn = resolve; });
  tell({ pause: true });
  return released;
}

module.exports = { tell, pause };
