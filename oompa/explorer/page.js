/* The explorer of an oompa server: lists its tasks, makes a form for each, calls them over the WebSocket, shows what comes.
 *
 * From top to bottom: elements, the connection, forms out of JSON Schema, calls and their cards, plots, the page itself.
 * Names, docstrings, replies and errors are made by others. They become text nodes and nothing else; the page's policy
 * (trusted types) refuses whatever would read them as markup.
 */

const STATS_INTERVAL = 2000; // milliseconds
const HEALTH_INTERVAL = 5000;
const LONGEST_PAUSE = 10000; // between two attempts to connect
const SHOWN = 50000; // characters of a reply that are shown before somebody asks for all
const KEPT_CALLS = 20; // cards of one task
const KEPT_POINTS = 500; // in the plot of one task

// Elements.

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function quietButton(text, act) {
  const made = element("button", { type: "button", className: "quiet" }, text);
  made.addEventListener("click", act);
  return made;
}

const byId = (id) => document.getElementById(id);

let lastId = 0;
const newId = () => `field-${++lastId}`;

/** Seconds in the unit that suits them, with three digits. */
function duration(seconds) {
  const [factor, unit] = seconds < 1e-3 ? [1e6, "µs"] : seconds < 1 ? [1e3, "ms"] : [1, "s"];
  const value = seconds * factor;
  return `${value >= 100 ? Math.round(value) : Number(value.toPrecision(3))}\u00a0${unit}`;
}

/** How long something has been, in its two largest units. */
function age(seconds) {
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = Math.max(units.findIndex(([, length]) => seconds >= length), 0);
  let left = Math.max(seconds, 0);
  return units.slice(seconds < 1 ? 3 : first).slice(0, 2).map(([unit, length]) => {
    const count = Math.floor(left / length);
    left -= count * length;
    return `${count}\u00a0${unit}`;
  }).join(" ");
}

/** A function that does not begin anew while it is under way. */
function alone(begin) {
  let underWay = null;
  return () => (underWay ??= begin().finally(() => (underWay = null)));
}

const number = (value) => value.toLocaleString("en");

const plural = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

// JSON. Whole numbers beyond 2**53 keep their digits where the browser can (JSON.rawJSON).

function parse(text) {
  if (!JSON.rawJSON || !/\d{16}/.test(text)) return JSON.parse(text);
  const exactly = (_, value, { source }) =>
    typeof value === "number" && /^-?\d{16,}$/.test(source) ? JSON.rawJSON(source) : value;
  return JSON.parse(text, exactly);
}

/** A value that an object has itself: a key may be called "constructor". */
const own = (object, key) => (Object.hasOwn(object ?? {}, key) ? object[key] : undefined);

const pretty = (value) => JSON.stringify(value, null, 2);

// The connection.

class CallFailed extends Error {
  constructor(error, details = {}) {
    super(typeof error === "string" ? error : pretty(error));
    this.details = details;
  }
}

/** A WebSocket that comes back when it is lost; `onState(state, text)` hears of it. */
class Link {
  #socket = null;
  #pending = new Map(); // id -> {resolve, reject, onProgress}
  #lastId = 0;
  #pause = 500;
  #wasOpen = false;

  constructor(url, onState) {
    this.url = url;
    this.onState = onState;
    this.#open();
  }

  #open() {
    this.onState("waiting", "connecting");
    this.#socket = new WebSocket(this.url);
    this.#socket.onopen = () => {
      this.#pause = 500;
      this.#wasOpen = true;
      this.onState("open", "connected");
    };
    this.#socket.onmessage = ({ data }) => this.#received(data);
    this.#socket.onclose = ({ code, reason }) => this.#lost(code, reason);
  }

  #lost(code, reason) {
    const why = reason ? `${code}: ${reason}` : `${code}`;
    for (const { reject } of this.#pending.values()) {
      reject(new CallFailed(`The connection was lost (${why}). The task may have run or not.`));
    }
    this.#pending.clear();
    const hint = this.#wasOpen ? "" : ": the log of the server tells whether it refuses"; // a browser does not
    this.onState("lost", `no connection (${why})${hint}; trying again`);
    setTimeout(() => this.#open(), this.#pause);
    this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE);
  }

  #received(text) {
    const message = parse(text);
    const call = this.#pending.get(message.id);
    if (!call) return;
    if (message.type === "$OOMPA/PROGRESS") {
      call.onProgress(message.payload);
      return;
    }
    this.#pending.delete(message.id);
    if (message.type === "OK") call.resolve(message.payload);
    else call.reject(new CallFailed(message.error, message.details));
  }

  /** Send a request; `payload` is JSON text, undefined for none. Returns its id, null if nothing was sent, and a promise of the
   * reply's payload. */
  call(type, payload, onProgress = () => {}) {
    const id = `explorer-${++this.#lastId}`;
    if (this.#socket.readyState !== WebSocket.OPEN) {
      return { id: null, reply: Promise.reject(new CallFailed("There is no connection. Nothing was sent.")) };
    }
    const reply = new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject, onProgress }));
    const rest = `"id":"${id}","meta":{"progress":true}`;
    this.#socket.send(`{"type":${JSON.stringify(type)},${payload === undefined ? "" : `"payload":${payload},`}${rest}}`);
    return { id, reply };
  }

  /** Nobody waits for a call any more. The server need not answer. */
  cancel(id) {
    this.#pending.get(id)?.reject(new CallFailed("You have cancelled it.", { code: "cancelled" }));
    this.#pending.delete(id);
    this.#socket.send(JSON.stringify({ type: "$OOMPA/CANCEL", payload: { id } }));
  }
}

// Forms. A field is {node, text(), focus()}; `text` gives JSON, or undefined for what is left out.

/** A schema without references; what refers to itself is followed when it is needed. */
function resolved(schema, root) {
  if (typeof schema !== "object" || schema === null) return {};
  if (!schema.$ref?.startsWith("#/")) return schema;
  const unescaped = (step) => decodeURIComponent(step).replaceAll("~1", "/").replaceAll("~0", "~");
  const steps = schema.$ref.slice(2).split("/").map(unescaped);
  return resolved(steps.reduce((found, step) => found?.[step], root), root);
}

/** The one schema that is not null's, of a union such as Python's Optional; null if there is no such one. */
function optionalOf(schema, root) {
  const choices = (schema.anyOf ?? schema.oneOf ?? []).map((each) => resolved(each, root));
  const others = choices.filter((each) => each.type !== "null");
  return others.length === 1 && choices.length === 2 ? others[0] : null;
}

/** The field of a schema. `options`: root, the document; name; isRequired; initial, its value or undefined. */
function fieldOf(given, options) {
  const outer = resolved(given, options.root);
  const inner = optionalOf(outer, options.root);
  const { anyOf, oneOf, ...told } = outer;
  const schema = inner ? { ...inner, ...told } : outer;
  const isNullable = inner !== null;
  const all = { ...options, isNullable, blank: options.isRequired && isNullable ? "null" : undefined };
  if (schema.enum || schema.type === "boolean") return choiceField(schema, all);
  if (schema.type === "number" || schema.type === "integer") return numberField(schema, all);
  if (schema.type === "string") return stringField(schema, all);
  const isList = schema.type === "array" && Object.keys(resolved(schema.items, options.root)).length;
  const isRecord = schema.type === "object" && schema.properties && Object.keys(schema.properties).length;
  if (!isList && !isRecord) return jsonField(schema, all);
  if (!options.isRequired || isNullable) return addableField(schema, all);
  return isList ? listField(schema, all) : recordField(schema, all);
}

/** What is said of a field beside its name. */
function hintOf(schema, { isRequired, isNullable }) {
  const bounds = [
    ["≥", schema.minimum], [">", schema.exclusiveMinimum], ["≤", schema.maximum], ["<", schema.exclusiveMaximum],
  ].filter(([, bound]) => bound !== undefined).map(([sign, bound]) => `${sign} ${bound}`);
  const kind = schema.enum ? "" : schema.format ?? schema.type ?? "any JSON";
  const absence = "default" in schema ? `default ${JSON.stringify(schema.default)}` : isRequired ? "" : "optional";
  return [[kind, ...bounds].filter(Boolean).join(" "), isNullable && schema.default !== null ? "or null" : "", absence]
    .filter(Boolean).join(" · ");
}

function labelled(control, schema, options) {
  control.id = newId();
  const label = element("label", { htmlFor: control.id }, element("span", { className: "key" }, options.name));
  label.append(" ", element("span", { className: "hint" }, hintOf(schema, options)));
  const node = element("div", { className: "field" }, label, control);
  if (schema.description) {
    const text = element("p", { className: "description", id: `${control.id}-text` }, schema.description);
    control.setAttribute("aria-describedby", text.id);
    node.append(text);
  }
  return node;
}

function inputField(schema, options, control, text) {
  const node = labelled(control, schema, options);
  return { node, text: () => (control.value === "" ? options.blank : text(control.value)), focus: () => control.focus() };
}

function stringField(schema, options) {
  const control = element("input", { type: "text", autocomplete: "off", spellcheck: false });
  if (typeof options.initial === "string") control.value = options.initial;
  const field = inputField(schema, options, control, JSON.stringify);
  if (options.isRequired && !options.isNullable) field.text = () => JSON.stringify(control.value); // "" is a string, too
  return field;
}

function numberField(schema, options) {
  const isWhole = schema.type === "integer";
  const control = element("input", { type: "number", step: isWhole ? "1" : "any", autocomplete: "off" });
  control.required = options.isRequired && !options.isNullable;
  if (schema.minimum !== undefined) control.min = schema.minimum;
  if (schema.maximum !== undefined) control.max = schema.maximum;
  if (options.initial !== undefined && options.initial !== null) control.value = JSON.stringify(options.initial);
  const isJson = isWhole ? /^-?(0|[1-9]\d*)$/ : /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/;
  return inputField(schema, options, control, (value) => (isJson.test(value) ? value : String(Number(value))));
}

function choiceField(schema, options) {
  const values = schema.enum ?? [true, false];
  const control = element("select");
  control.required = options.isRequired && !options.isNullable;
  control.append(element("option", { value: "" }, blankChoice(schema, options)));
  for (const value of values) {
    const isChosen = JSON.stringify(value) === JSON.stringify(options.initial);
    const shown = typeof value === "string" ? value : JSON.stringify(value);
    control.append(element("option", { value: JSON.stringify(value), selected: isChosen }, shown));
  }
  return inputField(schema, options, control, (value) => value);
}

function blankChoice(schema, { isRequired, isNullable }) {
  if (isRequired) return isNullable ? "null" : "choose one";
  return "default" in schema ? `default: ${JSON.stringify(schema.default)}` : "left out";
}

/** For what no other field can: one line, or several for what may be large. */
function jsonField(schema, options) {
  const isLarge = options.isWhole || schema.type === "object" || schema.type === "array";
  const text = options.initial === undefined ? "" : JSON.stringify(options.initial, null, isLarge ? 2 : 0);
  const control = element(isLarge ? "textarea" : "input", { spellcheck: false, autocomplete: "off", className: "json" });
  control.value = text;
  if (isLarge) {
    const rows = Math.min(Math.max(text.split("\n").length, options.isWhole ? 6 : 3), 24);
    Object.assign(control, { rows, placeholder: "Ctrl + Enter calls" });
  }
  control.required = options.isRequired && !options.isNullable;
  control.addEventListener("input", () => control.setCustomValidity(problemOf(control.value)));
  control.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) control.form.requestSubmit();
  });
  return { ...inputField(schema, options, control, (value) => value), isJson: true };
}

function problemOf(text) {
  try {
    if (text.trim()) JSON.parse(text);
    return "";
  } catch (error) {
    return `This is not JSON: ${error.message}. A text needs quotes: "abc"`;
  }
}

function fieldset(schema, options, ...children) {
  const legend = element("legend", {}, element("span", { className: "key" }, options.name), " ");
  legend.append(element("span", { className: "hint" }, hintOf(schema, options)));
  const text = schema.description ? [element("p", { className: "description" }, schema.description)] : [];
  return element("fieldset", {}, legend, element("div", { className: "fields" }, ...text, ...children));
}

function recordField(schema, options) {
  const fields = fieldsOf(schema, options);
  const node = fieldset(schema, options, ...fields.map(({ field }) => field.node));
  return { node, text: () => objectText(fields), focus: () => fields[0].field.focus() };
}

function fieldsOf(schema, { root, initial }) {
  return Object.entries(schema.properties).map(([name, each]) => {
    const isRequired = schema.required?.includes(name) ?? false;
    return { name, field: fieldOf(each, { root, name, isRequired, initial: own(initial, name) }) };
  });
}

function objectText(fields) {
  const told = fields.map(({ name, field }) => [name, field.text()]).filter(([, text]) => text !== undefined);
  return `{${told.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join(",")}}`;
}

function listField(schema, options) {
  const items = [];
  const rows = element("div", { className: "rows" });
  const add = quietButton(`Add to ${options.name}`, () => append().focus());
  const count = () => items.forEach(({ field, remove }, index) => {
    const name = `${options.name} ${index + 1}`;
    remove.setAttribute("aria-label", `Remove ${name}`);
    field.node.querySelector(".key")?.replaceChildren(name);
  });
  const append = (initial) => {
    const field = fieldOf(schema.items, { root: options.root, name: options.name, isRequired: true, initial });
    const remove = quietButton("Remove", () => {
      items.splice(items.indexOf(item), 1);
      row.remove();
      count();
      add.focus();
    });
    const item = { field, remove };
    const row = element("div", { className: "row" }, field.node, remove);
    items.push(item);
    rows.append(row);
    count();
    return field;
  };
  if (Array.isArray(options.initial)) options.initial.forEach(append);
  const text = () => `[${items.map(({ field }) => field.text() ?? "null").join(",")}]`;
  return { node: fieldset(schema, options, rows, add), text, focus: () => add.focus() };
}

/** What may be left out is not there until somebody adds it. */
function addableField(schema, options) {
  const node = element("div", { className: "addable" });
  let field = null;
  const leave = () => {
    field = null;
    const add = quietButton(`Add ${options.name}`, () => enter().focus());
    node.replaceChildren(add, " ", element("span", { className: "hint" }, hintOf(schema, options)));
    return add;
  };
  const enter = (initial) => {
    field = fieldOf(schema, { ...options, initial, isRequired: true });
    node.replaceChildren(field.node, quietButton(`Leave out ${options.name}`, () => leave().focus()));
    return field;
  };
  if (options.initial === undefined || options.initial === null) leave();
  else enter(options.initial);
  const text = () => (field ? field.text() : options.blank);
  return { node, text, focus: () => (field ?? node.querySelector("button")).focus() };
}

/** The field of a whole payload. */
function payloadField(schema, root, initial) {
  const options = { root, name: "payload", isRequired: true, initial };
  const keys = Object.keys(schema.properties ?? {});
  if (schema.type === "object" && keys.length) {
    const fields = fieldsOf(schema, options);
    const node = element("div", { className: "fields" }, ...fields.map(({ field }) => field.node));
    return { node, text: () => objectText(fields), focus: () => fields[0].field.focus() };
  }
  if (takesNothing(schema)) return { node: element("p", { className: "hint" }, "Takes no arguments."), text: () => undefined };
  if (schema.type === "object" || !Object.keys(schema).length) return payloadAsJson(root, initial);
  return fieldOf(schema, options);
}

function takesNothing(schema) {
  return schema.type === "object" && !Object.keys(schema.properties ?? {}).length && schema.additionalProperties === false;
}

const payloadAsJson = (root, initial) => jsonField({}, { root, name: "payload", isRequired: false, isWhole: true, initial });

/** The form of a payload: fields where the schema tells them, or JSON; one may go over to the other. */
class PayloadForm {
  #field;
  #isJson = false;

  constructor(given, root) {
    this.root = root;
    this.schema = resolved(given, root);
    this.node = element("div");
    this.switch = quietButton("", () => this.#toggle());
    this.#show();
    this.switch.hidden = takesNothing(this.schema) || this.#field.isJson === true;
  }

  /** The payload as JSON text; undefined for none. */
  text() {
    return this.#field.text();
  }

  #show(initial) {
    this.#field = this.#isJson ? payloadAsJson(this.root, initial) : payloadField(this.schema, this.root, initial);
    this.node.replaceChildren(this.#field.node);
    this.switch.textContent = this.#isJson ? "Edit as a form" : "Edit as JSON";
  }

  #toggle() {
    if (this.#isJson && !this.switch.form.reportValidity()) return;
    const text = this.text();
    this.#isJson = !this.#isJson;
    this.#show(text === undefined ? undefined : parse(text));
    this.#field.focus();
  }
}

// Calls. A card is what is seen of one: running, then the reply or the error.

class Card {
  constructor(payload) {
    this.badge = element("span", { className: "badge" }, "running");
    this.time = element("span", { className: "elapsed" });
    const at = element("time", {}, new Date().toLocaleTimeString("en-GB"));
    const sent = element("code", { className: "sent" }, (payload ?? "no payload").slice(0, 300));
    this.body = element("div", { className: "body" });
    const head = element("summary", {}, this.badge, this.time, at, sent);
    this.node = element("details", { className: "call", open: true }, head, this.body);
    this.began = performance.now();
    this.#turn("running");
    this.clock = setInterval(() => this.#tick(), 100);
  }

  get seconds() {
    return (performance.now() - this.began) / 1000;
  }

  #turn(state, shown = state) {
    this.node.dataset.state = state;
    this.badge.textContent = shown;
  }

  #tick() {
    this.time.textContent = `${this.seconds.toFixed(1)} s`;
  }

  /** Offer to cancel it while it runs. */
  offerCancel(cancel) {
    this.body.append(quietButton("Cancel", cancel));
  }

  progress({ done, total, message }) {
    if (!this.bar) {
      this.bar = element("progress", { ariaLabel: "Progress" });
      this.told = element("span", { className: "hint" });
      this.body.prepend(element("div", { className: "progress" }, this.bar, this.told));
    }
    if (total > 0) Object.assign(this.bar, { max: total, value: done });
    const share = total === null ? `${done}` : `${done} of ${total}`;
    this.told.textContent = message === null ? share : `${share} · ${message}`;
  }

  #end(state, shown, ...nodes) {
    this.elapsed = this.seconds;
    clearInterval(this.clock);
    this.time.textContent = duration(this.elapsed);
    this.#turn(state, shown);
    this.body.replaceChildren(...nodes);
  }

  replied(payload) {
    this.#end("ok", "OK", ...valueNodes(pretty(payload), "Reply"));
  }

  failed(error) {
    const { code, data, retry_after: pause } = error.details ?? {};
    const said = element("p", { className: "error" }, clipped(error.message));
    const facts = element("dl", { className: "details" });
    if (code !== undefined) facts.append(element("dt", {}, "code"), element("dd", {}, element("code", {}, code)));
    if (pause !== undefined) facts.append(element("dt", {}, "retry after"), element("dd", {}, duration(pause)));
    const more = data === undefined ? [] : [element("p", { className: "hint" }, "data"), ...valueNodes(pretty(data), "Data")];
    this.#end("error", code === "cancelled" ? "cancelled" : "error", said, facts, ...more);
  }
}

const clipped = (text) => (text.length > 5000 ? `${text.slice(0, 5000)}…` : text);

/** A value as text that scrolls, the head of it if it is long, and what can be done with it. */
function valueNodes(text, label) {
  const shown = element("pre", { tabIndex: 0, role: "region", ariaLabel: label }, text.slice(0, SHOWN));
  const actions = element("div", { className: "actions" });
  if (text.length > SHOWN) {
    const cut = element("span", { className: "hint" }, `${number(SHOWN)} of ${number(text.length)} characters`);
    const all = quietButton("Show all", () => {
      shown.textContent = text;
      all.remove();
      cut.remove();
    });
    actions.append(cut, all);
  }
  if (navigator.clipboard) { // on secure pages and on loopback
    const copied = (told) => () => (copy.textContent = told);
    const copy = quietButton("Copy", () => navigator.clipboard.writeText(text).then(copied("Copied"), copied("Not allowed")));
    actions.append(copy);
  }
  return [shown, actions];
}

// Plots, in the pixels of the place they are given. Durations are on a logarithmic axis: 2 ms and 2 s are both of interest.

const HEIGHT = 200;
const MARGIN = { left: 58, right: 28, top: 30, bottom: 40 };

/** An axis of the decades that hold all values: its ticks, and where a value lies between 0 and 1. */
function logScale(values) {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(Math.ceil(Math.log10(Math.max(...values))), low + 1);
  const steps = high - low === 1 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let decade = low; decade <= high; decade++) ticks.push(...steps.map((step) => step * 10 ** decade));
  const at = (value) => (Math.log10(value) - low) / (high - low);
  return { ticks: ticks.filter((tick) => at(tick) < 1.001).map((tick) => [at(tick), duration(tick)]), at };
}

/** Whole numbers from 0, a few of them, the last not below `most`. */
function countTicks(most) {
  const rough = Math.max(most / 4, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough));
  return Array.from({ length: Math.ceil(most / step) + 1 }, (_, index) => index * step);
}

class Plot {
  constructor(title, xLabel, yLabel) {
    this.labels = [xLabel, yLabel];
    this.summary = element("p", { className: "hint" });
    this.canvas = svg("svg", { role: "img", height: HEIGHT });
    this.place = element("div", {}, this.canvas);
    this.node = element("figure", {}, element("figcaption", {}, element("h3", {}, title), this.summary), this.place);
    this.paint = null;
    new ResizeObserver(() => this.redraw()).observe(this.place);
  }

  /** Show something else: `paint(plot)` draws it into the frame of the plot; null: there is nothing to draw. */
  show(summary, paint) {
    this.summary.textContent = summary;
    this.canvas.setAttribute("aria-label", summary);
    this.place.hidden = paint === null;
    this.paint = paint;
    this.redraw();
  }

  redraw() {
    const width = this.place.clientWidth;
    if (!width || !this.paint) return; // of a task that is not shown
    this.canvas.setAttribute("width", width);
    this.width = width - MARGIN.left - MARGIN.right;
    this.height = HEIGHT - MARGIN.top - MARGIN.bottom;
    this.frame = svg("g", { transform: `translate(${MARGIN.left} ${MARGIN.top})` });
    this.canvas.replaceChildren(this.frame);
    this.paint(this);
  }

  add(name, attributes, ...children) {
    const made = svg(name, attributes, ...children);
    this.frame.append(made);
    return made;
  }

  /** Ticks are [share of the axis, text]; of those below as many are shown as there is room for. */
  axes(xTicks, yTicks) {
    const [xLabel, yLabel] = this.labels;
    const every = Math.ceil((xTicks.length * 52) / this.width);
    for (const [share, text] of yTicks) {
      const y = this.height * (1 - share);
      this.add("line", { class: "grid", x2: this.width, y1: y, y2: y });
      this.add("text", { x: -8, y: y + 4, "text-anchor": "end" }, text);
    }
    for (const [share, text] of xTicks.filter((_, index) => index % every === 0)) {
      const x = this.width * share;
      this.add("line", { class: "tick", x1: x, x2: x, y1: this.height, y2: this.height + 4 });
      this.add("text", { x, y: this.height + 17, "text-anchor": "middle" }, text);
    }
    this.add("line", { class: "axis", x2: this.width, y1: this.height, y2: this.height });
    this.add("text", { class: "title", x: this.width, y: this.height + 34, "text-anchor": "end" }, xLabel);
    this.add("text", { class: "title", x: -MARGIN.left, y: -16 }, yLabel);
  }
}

/** Points are {seconds, isError}, the first of them the `first`th call. */
function plotCalls(plot, points, first) {
  if (!points.length) return plot.show("None yet. The time of each will be shown here.", null);
  const sorted = points.map(({ seconds }) => seconds).sort((a, b) => a - b);
  const errors = points.filter(({ isError }) => isError).length;
  const median = duration(sorted[Math.floor((sorted.length - 1) / 2)]);
  const longest = duration(sorted.at(-1));
  const summary = `${plural(points.length, "call")}, ${errors} failed · median ${median} · longest ${longest}`;
  return plot.show(summary, (frame) => {
    const scale = logScale([Math.max(sorted[0], 1e-6), sorted.at(-1)]);
    const xOf = (index) => (points.length === 1 ? 0.5 : index / (points.length - 1)) * 0.96 + 0.02;
    const ends = new Set([0, points.length - 1]);
    frame.axes([...ends].map((index) => [xOf(index), `${first + index}`]), scale.ticks);
    points.forEach(({ seconds, isError }, index) => {
      const place = { cx: frame.width * xOf(index), cy: frame.height * (1 - scale.at(Math.max(seconds, 1e-6))) };
      const name = `call ${first + index}: ${duration(seconds)}${isError ? ", failed" : ""}`;
      frame.add("circle", { class: isError ? "point bad" : "point", r: 4, ...place }, svg("title", {}, name));
    });
  });
}

/** `durations` are STATS': pairs of a bound in seconds, a fifth above the one before, and how many requests took up to it. */
function plotStats(plot, stats) {
  const { num_requests: requests, num_errors: errors, average_processing_time: mean, durations = [] } = stats;
  if (!durations.length) return plot.show("Nobody has called it since the server started.", null);
  const atShare = (share) => {
    let left = share * durations.reduce((sum, [, count]) => sum + count, 0);
    return duration(durations.find(([, count]) => (left -= count) <= 0)[0]);
  };
  const shares = [0.5, 0.99].map((share) => `p${100 * share}\u00a0≤\u00a0${atShare(share)}`);
  const summary = [`${plural(requests, "request")}, ${errors} failed`, `mean ${duration(mean)}`, ...shares].join(" · ");
  return plot.show(summary, (frame) => {
    const scale = logScale([durations[0][0] / 1.2, durations.at(-1)[0]]);
    const counts = countTicks(Math.max(...durations.map(([, count]) => count)));
    const most = counts.at(-1);
    frame.axes(scale.ticks, counts.map((count) => [count / most, number(count)]));
    for (const [bound, count] of durations) {
      const [left, right] = [bound / 1.2, bound].map((each) => scale.at(each) * frame.width);
      const height = (count / most) * frame.height;
      const place = { x: left, width: Math.max(right - left - 1, 1), y: frame.height - height, height };
      const name = `${plural(count, "request")} of up to ${duration(bound)}`;
      frame.add("rect", { class: "bar", ...place }, svg("title", {}, name));
    }
  });
}

// A task: its form, its calls, its plots.

class TaskView {
  #points = [];
  #count = 0;
  #told = null; // how many requests are in the plot of STATS

  constructor(type, operation, page) {
    this.type = type;
    this.page = page;
    const message = resolved(operation.messages[0], page.schema);
    this.form = new PayloadForm(resolved(message.payload, page.schema).properties.payload, page.schema);
    this.heading = element("h2", { tabIndex: -1 }, shownType(type));
    this.calls = element("div", { className: "calls" });
    this.mine = new Plot("Your calls, as this page sees them", "call", "round trip");
    this.everybodys = new Plot("All calls in this server process", "time a task ran", "requests");
    this.lastError = element("p", { className: "hint last-error" });
    this.node = element("div", { className: "task" });
    this.node.append(
      element("a", { className: "back", href: "#" }, "‹ All tasks"),
      element("div", { className: "about" }, this.heading, element("p", { className: "doc" }, operation.description ?? "")),
      this.#callForm(),
      this.calls,
      element("aside", { ariaLabel: "Latencies" }, this.mine.node, this.everybodys.node, this.lastError),
    );
    plotCalls(this.mine, [], 1);
  }

  #callForm() {
    const submit = element("button", { type: "submit" }, "Call");
    const actions = element("div", { className: "actions" }, submit, this.form.switch);
    const form = element("form", { autocomplete: "off" }, this.form.node, actions);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#call(this.form.text());
    });
    return form;
  }

  async #call(payload) {
    const card = new Card(payload);
    for (const each of this.calls.querySelectorAll("details:not([data-state=running])")) each.open = false;
    this.calls.prepend(card.node);
    while (this.calls.children.length > KEPT_CALLS) this.calls.lastChild.remove();
    const { id, reply } = this.page.link.call(this.type, payload, (progress) => card.progress(progress));
    if (this.page.canCancel) card.offerCancel(() => this.page.link.cancel(id));
    try {
      card.replied(await reply);
      announce(`${this.type} answered in ${duration(card.elapsed)}`);
    } catch (error) {
      card.failed(error);
      announce(`${this.type} failed: ${error.message.slice(0, 200)}`);
    }
    if (id !== null) this.#remember(card);
  }

  #remember(card) {
    this.#count += 1;
    this.#points.push({ seconds: card.elapsed, isError: card.node.dataset.state === "error" });
    this.#points.splice(0, this.#points.length - KEPT_POINTS);
    plotCalls(this.mine, this.#points, this.#count - this.#points.length + 1);
    this.page.refreshStats();
  }

  told(stats) {
    if (stats.num_requests === this.#told) return; // drawn anew, it would lose what the mouse points at
    this.#told = stats.num_requests;
    plotStats(this.everybodys, stats);
    this.lastError.textContent = stats.last_error === null ? "" : `Last error: ${stats.last_error}`;
  }
}

const shownType = (type) => (type === "" ? "(no name)" : type);

const addressOf = (type) => `#/${encodeURIComponent(type)}`;

function announce(text) {
  byId("announcer").textContent = text;
}

// The page.

class Page {
  #views = new Map(); // type -> TaskView of those that were looked at
  #links = new Map(); // type -> {item, count, text}
  #stats = { tasks: {} };
  #shown = null;
  #nothingShown = byId("task").firstElementChild;
  canCancel = false;
  refreshStats = alone(() => this.#askStats());
  refreshHealth = alone(() => this.#askHealth());
  schema = { operations: {} };

  constructor() {
    const url = new URL(document.body.dataset.endpoint, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    url.hash = url.search = "";
    byId("filter").addEventListener("input", () => this.#filter());
    byId("search").addEventListener("submit", (event) => this.#openFirst(event));
    addEventListener("hashchange", () => this.#route(true));
    document.addEventListener("visibilitychange", this.refreshStats);
    this.link = new Link(url.href, (state, text) => this.#connectionIs(state, text));
    setInterval(this.refreshStats, STATS_INTERVAL);
    setInterval(this.refreshHealth, HEALTH_INTERVAL);
  }

  #connectionIs(state, text) {
    this.isOpen = state === "open";
    this.#showState(state, text);
    if (this.isOpen) this.#load();
    else byId("figures").replaceChildren();
  }

  #showState(state, text) {
    byId("status").dataset.state = state;
    if (byId("state").textContent !== text) byId("state").textContent = text; // it is read out when it changes
  }

  async #load() {
    try {
      const [info, schema] = await Promise.all(["$OOMPA/INFO", "$OOMPA/SCHEMA"].map((type) => this.link.call(type).reply));
      this.canCancel = info.features.includes("cancel");
      byId("name").textContent = [info.name, info.version].filter(Boolean).join(" ");
      document.title = `${info.name} · explorer`;
      if (JSON.stringify(schema) !== JSON.stringify(this.schema)) this.#showTasks(schema);
    } catch (error) {
      this.#showState("lost", error.message);
      return;
    }
    this.refreshStats();
    this.refreshHealth();
  }

  async #askHealth() {
    if (!this.isOpen || document.hidden) return;
    try {
      await this.link.call("$OOMPA/PING").reply;
      if (this.isOpen) this.#showState("open", "healthy");
    } catch (error) {
      if (this.isOpen) this.#showState("ill", `unhealthy: ${error.message.slice(0, 300)}`);
    }
  }

  async #askStats() {
    if (!this.isOpen || document.hidden) return;
    try {
      this.#stats = await this.link.call("$OOMPA/STATS").reply;
    } catch {
      return; // whoever notices the connection tells
    }
    const { connections, running, queued, started } = this.#stats;
    const figures = { connections, running, queued, up: age((Date.now() - new Date(started)) / 1000) };
    const pairs = Object.entries(figures).map(([name, value]) => [element("dt", {}, name), element("dd", {}, `${value}`)]);
    byId("figures").replaceChildren(...pairs.map((pair) => element("div", {}, ...pair)));
    for (const [type, { count }] of this.#links) {
      const told = own(this.#stats.tasks, type);
      if (told) count.textContent = told.num_requests ? number(told.num_requests) : "";
    }
    this.#tellShown();
  }

  #tellShown() {
    const told = this.#shown && own(this.#stats.tasks, this.#shown.type);
    if (told) this.#shown.told(told);
  }

  #showTasks(schema) {
    this.schema = schema;
    this.#views.clear();
    this.#links.clear();
    for (const [type, { summary = "", description = "" }] of Object.entries(schema.operations)) {
      const count = element("span", { className: "count", title: "requests since the server started" });
      const link = element("a", { href: addressOf(type) }, element("span", { className: "type" }, shownType(type)), count);
      if (summary) link.append(element("span", { className: "summary" }, summary));
      this.#links.set(type, { item: element("li", {}, link), link, count, text: `${type}\n${description}`.toLowerCase() });
    }
    byId("tasks").replaceChildren(...[...this.#links.values()].map(({ item }) => item));
    byId("count").textContent = `${this.#links.size}`;
    this.#filter();
    this.#route(false);
  }

  #filter() {
    const words = byId("filter").value.toLowerCase().split(/\s+/);
    let left = 0;
    for (const { item, text } of this.#links.values()) {
      item.hidden = !words.every((word) => text.includes(word));
      left += !item.hidden;
    }
    byId("no-tasks").hidden = left > 0;
    byId("no-tasks").textContent = this.#links.size ? "No task has these words." : "This server has no tasks.";
  }

  #openFirst(event) {
    event.preventDefault();
    byId("tasks").querySelector("li:not([hidden]) a")?.click();
  }

  /** Show the task that the address names; on a wide screen there is always one. */
  #route(isAsked) {
    const types = [...this.#links.keys()];
    const isWide = matchMedia("(min-width: 720px)").matches;
    const type = types.find((each) => addressOf(each) === location.hash) ?? (isWide && !isAsked ? types[0] : undefined);
    for (const [each, { link }] of this.#links) {
      if (each === type) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.body.classList.toggle("has-task", type !== undefined);
    const last = this.#shown?.type;
    this.#shown = type === undefined ? null : this.#viewOf(type);
    byId("task").replaceChildren(this.#shown?.node ?? this.#nothingShown);
    if (isAsked) (this.#shown?.heading ?? this.#links.get(last)?.link)?.focus(); // back in the list, where one has left it
    this.#tellShown();
  }

  #viewOf(type) {
    if (!this.#views.has(type)) this.#views.set(type, new TaskView(type, this.schema.operations[type], this));
    return this.#views.get(type);
  }
}

new Page();
