'use strict';

// The Node client, led by the lines on stdin. Every event it emits is reported.

const {load, obey, report} = require('./lines');

const OompaClient = load('oompa/client');

let client;

class Client extends OompaClient {
  emit(event, ...args) {
    report(event, ...args.map(arg => (arg instanceof Error ? String(arg) : arg)));
    return super.emit(event, ...args);
  }

  start() {
    super.start();
    this.client.on('close', code => report('socket-closed', code));
  }
}

const methods = {
  add: {type: 'ADD', factory: (x, y) => ({x, y})},
};

obey({
  connect({url, interval}) {
    client = new Client(url, methods, interval);
    client.on('error', () => {});
  },
  dispatch: ({type, payload}) => client.dispatch(type, payload),
  burst: ({type, payloads}) => Promise.all(payloads.map(payload => client.dispatch(type, payload))),
  call: ({method, args}) => client[method](...args),
  ping: ({timeout}) => client.ping(timeout),
  close: () => client.close(),
  nothing: () => undefined,
});
