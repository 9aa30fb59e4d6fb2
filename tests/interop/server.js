'use strict';

// The Node server, led by the lines on stdin.

const {load, obey, report} = require('./lines');

const OompaServer = load('oompa');

let http;
let server;
let health = {};
let holding = false;

const schema = {
  ADD: ({x, y}) => Promise.resolve(x + y),
  DIV: ({x, y}) => (y ? Promise.resolve(x / y) : Promise.reject(new Error('Zero div'))),
  ECHO: payload => Promise.resolve(payload),
  KIND: payload => Promise.resolve(payload === null ? 'null' : typeof payload),
  NOTHING: () => Promise.resolve(),
  REJECT: payload => Promise.reject(payload),
  HOLD: payload => {
    report('held', payload);
    return holding ? new Promise(() => {}) : Promise.resolve(payload);
  },
};

class Server extends OompaServer {
  getBaseServer() {
    http = super.getBaseServer();
    return http;
  }
}

const outline = request => [request.type, Object.keys(request)];

const healthcheck = () => ('error' in health ? Promise.reject(new Error(health.error)) : Promise.resolve(health.value));

obey({
  listen({port}) {
    server = new Server(schema, healthcheck);
    server
      .on('error', () => {})
      .on('connection', connection => {
        report('connection');
        connection.on('close', code => report('terminated', code));
        connection.on('message', text => report('asked', ...outline(JSON.parse(text))));
      });
    return server.listen(port).then(() => http.address().port);
  },
  close: () => server.close(),
  hold({value}) {
    holding = value;
  },
  health(command) {
    health = command;
  },
});
