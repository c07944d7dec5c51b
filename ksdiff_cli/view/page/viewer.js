// The page: reads what there is to show, keeps the state, answers keys and buttons.
import { Maps } from "./maps.js";
import { drawBar, drawScale, listLayers, markLayers, show, showValues } from "./panel.js";
import { MODES, beginning, read, write } from "./state.js";

const find = (id) => document.getElementById(id);
const fetchJson = async (path) => {
  const response = await fetch(path);
  const found = await response.json();
  if (!response.ok) throw new Error(found.error ?? response.statusText);
  return found;
};

const about = await fetchJson("about");
const state = beginning(about);
read(location.hash, state, about);
let other = false; // whether the blink shows B
let held = null; // place whose values are held
let spots = [];
let doing = {};

const stretches = new Map(); // what the server said of brightness, by what was asked
let remembering = 0; // timers
let saying = 0;
let restyling = 0; // calls under way
const loading = new Set(); // maps that wait for tiles
let asking = false; // whether values are awaited
let next = null; // the place whose values are asked next

const maps = new Maps(about, moved);

/** Change the state and show it. */
function change(values) {
  Object.assign(state, values);
  if ("mode" in values || "a" in values || "b" in values) other = false;
  update();
}

/** Go where the state says. */
function place() {
  if (state.resolution) maps.go(state.at, state.resolution);
  else maps.fit();
}

/** Show the state: layers, labels, controls, and the address that reproduces it. */
function update() {
  maps.show(state, other);
  document.querySelectorAll("[data-mode]").forEach((button) => button.setAttribute("aria-checked", String(button.dataset.mode === state.mode)));
  find("bands").value = state.bands.join(",");
  find("low").value = state.low;
  find("high").value = state.high;
  find("gamma").value = state.gamma;
  find("gamma-value").textContent = state.gamma.toFixed(2);
  find("from-scene").setAttribute("aria-pressed", String(state.view === null));
  find("from-view").setAttribute("aria-pressed", String(state.view !== null));
  markLayers(about, state, doing);
  moveDivider(state.divider);
  label();
  restyle();
  remember();
}

/** Name what is seen on the map. */
function label() {
  const name = (index) => {
    const layer = about.layers[index];
    const far = layer.made && maps.view.getResolution() > 2;
    return layer.name + (far ? " · MS until 1:2" : "");
  };
  const [first, second] = [find("label-a"), find("label-b")];
  second.hidden = state.mode === "one" || state.mode === "difference";
  if (state.mode === "difference") first.textContent = `A − B: ${name(state.a)} − ${name(state.b)}`;
  else if (state.mode === "one") first.textContent = other ? `B  ${name(state.b)}` : `A  ${name(state.a)}`;
  else first.textContent = `A  ${name(state.a)}`;
  first.classList.toggle("b", state.mode === "one" && other);
  second.textContent = `B  ${name(state.b)}${state.mode === "lens" ? ", in the lens" : ""}`;
}

const ask = (path) => {
  if (!stretches.has(path)) stretches.set(path, fetchJson(path).catch((error) => { stretches.delete(path); throw error; }));
  return stretches.get(path);
};

/** Return the ends of brightness of a layer: images share those of the first one, PAN and maps have their own. */
function ends(index) {
  const layer = about.layers[index];
  const lead = about.layers.findIndex((one) => one.kind === "image");
  const own = layer.kind !== "image" || layer.bands.length === 1;
  const share = layer.kind === "map" ? [1, 99] : [state.low, state.high];
  const view = state.view && layer.kind !== "map" ? `&view=${state.view}` : "";
  return ask(`stretch?layer=${own ? index : lead}&bands=${state.bands}&low=${share[0]}&high=${share[1]}${view}`);
}

/** Draw the tiles of the layers that are seen as the state asks; the last one that was asked for wins. */
async function restyle() {
  const bands = state.bands.join(",");
  const wanted = [...new Set([state.a, state.b])];
  const now = () => bands === state.bands.join(",");
  restyling += 1;
  tellBusy();
  try {
    for (const index of wanted) {
      const { low, high } = await ends(index);
      const gamma = about.layers[index].kind === "map" ? 1 : state.gamma;
      if (now()) maps.style(index, `bands=${bands}&low=${low}&high=${high}&gamma=${gamma}`);
    }
    await tellEnds();
    if (state.mode === "difference") await restyleDifference(bands);
    else await barOfMap();
  } catch (error) {
    say(error.message);
  } finally {
    restyling -= 1;
    tellBusy();
  }
}

/** Show whether something is still awaited. */
function tellBusy() {
  document.body.dataset.idle = String(!restyling && !loading.size);
}

async function restyleDifference(bands) {
  const { a, b } = state;
  const made = [a, b].some((index) => about.layers[index].made);
  const { limit } = await ask(`limit?first=${a}&second=${b}&bands=${bands}${made ? `&view=${maps.seen()}` : ""}`);
  if (state.mode !== "difference" || state.a !== a || state.b !== b) return;
  if (limit === null) {
    drawBar(about, null);
    maps.styleDifference(a, b, null);
    say("these layers have no bands in common");
    return;
  }
  maps.styleDifference(a, b, `bands=${bands}&limit=${limit}`);
  drawBar(about, "difference", "A − B, mean of the bands shown, DN", [-limit, 0, limit]);
}

/** Show the colour bar of a map that is seen. */
async function barOfMap() {
  const seen = state.mode === "one" ? [other ? state.b : state.a] : [state.a, state.b];
  const index = seen.find((one) => about.layers[one].kind === "map");
  if (index === undefined) return drawBar(about, null);
  const { low, high } = await ends(index);
  drawBar(about, "map", about.layers[index].unit || about.layers[index].name, [low[0], high[0]]);
}

async function tellEnds() {
  const seen = [state.a, state.b].filter((index) => about.layers[index].kind !== "map");
  const image = seen.find((index) => about.layers[index].kind === "image") ?? seen[0];
  if (image === undefined) return;
  const { low, high } = await ends(image);
  find("ends").textContent = low.map((value, number) => `${show(Math.round(value * 10) / 10)} – ${show(Math.round(high[number] * 10) / 10)}`).join(" · ") + " DN";
}

/** Keep the state in the address, not more often than browsers like. */
function remember() {
  clearTimeout(remembering);
  remembering = setTimeout(() => history.replaceState(null, "", write(state)), 150);
}

/** The view has moved. */
function moved() {
  const [x, y] = maps.view.getCenter();
  const resolution = maps.view.getResolution();
  state.at = [-y, x];
  state.resolution = resolution;
  drawScale(about, resolution);
  find("where").textContent = resolution >= 1 ? `1:${show(resolution)}` : `${show(1 / resolution)}:1`;
  label();
  remember();
}

function fillBands() {
  const choices = about.presets.map(({ name, bands }) => {
    const shown = bands.length === 3 ? ` (${bands.map((band) => about.bands[band]).join(", ")})` : "";
    return new Option(name + shown, bands.join(","));
  });
  find("bands").append(...choices);
  if (!about.presets.some(({ bands }) => bands.join() === state.bands.join())) {
    find("bands").append(new Option(state.bands.map((band) => about.bands[band]).join(", "), state.bands.join(",")));
  }
}

function moveDivider(share) {
  state.divider = Math.min(100, Math.max(0, share));
  const divider = find("divider");
  divider.hidden = state.mode !== "swipe" || state.a === state.b;
  divider.style.left = `${state.divider}%`;
  divider.setAttribute("aria-valuenow", String(Math.round(state.divider)));
  maps.first.map.render();
}

/** Say something for a moment. */
function say(message) {
  const line = find("message");
  line.textContent = message;
  line.hidden = false;
  clearTimeout(saying);
  saying = setTimeout(() => (line.hidden = true), 4000);
}

/** Show the other layer; where both are seen, let them change places. */
function blink() {
  if (state.mode === "one") {
    other = !other;
    update();
  } else {
    change({ a: state.b, b: state.a });
  }
}

function zoomTo(resolution) {
  maps.go(state.at, resolution);
}

async function copyLink() {
  history.replaceState(null, "", write(state));
  try {
    await navigator.clipboard.writeText(location.href);
    say("link copied");
  } catch {
    say("the address of this page is the link");
  }
}

/** Save what is seen, with its labels and scale bar, as PNG. */
function save() {
  maps.first.map.renderSync();
  maps.second.map.renderSync();
  const { canvas, context, ratio, page } = maps.picture(getComputedStyle(find("maps")).backgroundColor);
  context.scale(ratio, ratio);
  context.font = "600 13px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const one of document.querySelectorAll("#maps .label, #scale, #bar")) {
    if (one.hidden) continue;
    const box = one.getBoundingClientRect();
    const [x, y] = [box.left - page.left, box.top - page.top];
    context.fillStyle = "rgb(0 0 0 / 65%)";
    context.fillRect(x, y, box.width, box.height);
    context.fillStyle = "#fff";
    context.fillText(one.innerText.replace(/\s+/g, " "), x + 8, y + box.height / 2, box.width - 12);
  }
  if (!find("divider").hidden) context.fillRect((page.width * state.divider) / 100 - 1, 0, 2, page.height);
  canvas.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${about.title}_${Math.round(state.at[0])}_${Math.round(state.at[1])}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
}

/** Ask for the values under the pointer; while an answer is awaited only the last place counts. */
async function probe([x, y]) {
  const [row, col] = [-y, x];
  if (row < 0 || col < 0 || row >= about.height || col >= about.width) return;
  next = [row, col];
  if (asking) return;
  asking = true;
  try {
    while (next) {
      const [atRow, atCol] = next;
      next = null;
      showValues(about, state, await fetchJson(`pixel?row=${atRow}&col=${atCol}`));
    }
  } catch (error) {
    say(error.message);
  } finally {
    asking = false;
  }
}

function goToSpot(number) {
  if (!spots.length) return;
  state.spot = (number + spots.length) % spots.length;
  const spot = spots[state.spot];
  const resolution = maps.view.getResolution();
  maps.mark(spot);
  maps.go([spot.row, spot.col], resolution === 1 || resolution === 0.25 ? resolution : 1);
  document.querySelectorAll("#spots button").forEach((button, index) => button.setAttribute("aria-current", String(index === state.spot)));
  say(`${state.spot + 1} of ${spots.length}: ${spot.why}`);
}

function listSpots(found) {
  spots = found;
  find("spots").replaceChildren(
    ...found.map((spot, index) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = spot.why;
      button.addEventListener("click", () => goToSpot(index));
      item.append(button);
      return item;
    }),
  );
  if (!found.length) find("spots").append(Object.assign(document.createElement("li"), { textContent: "none found" }));
}

/** Follow what the server is still doing. */
async function watch() {
  find("tour").hidden = !about.tour;
  if (!about.tour && !about.layers.some((layer) => layer.made)) return;
  try {
    const found = await fetchJson("status");
    const busy = Object.values(found.doing).some((what) => !what.startsWith("failed"));
    doing = found.doing;
    markLayers(about, state, doing);
    if (found.spots && !spots.length) listSpots(found.spots);
    else if (about.tour && !found.spots) find("spots").textContent = doing.tour ?? "";
    if (busy || (about.tour && !found.spots)) setTimeout(watch, 700);
  } catch {
    say("the server has ended");
  }
}

function connect() {
  for (const button of document.querySelectorAll("[data-mode]")) button.addEventListener("click", () => change({ mode: button.dataset.mode }));
  find("bands").addEventListener("change", (event) => change({ bands: event.target.value.split(",").map(Number) }));
  for (const name of ["low", "high"]) {
    find(name).addEventListener("change", (event) => {
      const value = Number(event.target.value);
      const fits = name === "low" ? value >= 0 && value < state.high : value <= 100 && value > state.low;
      change(fits && event.target.value !== "" ? { [name]: value } : {});
    });
  }
  find("gamma").addEventListener("input", (event) => {
    find("gamma-value").textContent = Number(event.target.value).toFixed(2);
  });
  find("gamma").addEventListener("change", (event) => change({ gamma: Number(event.target.value) }));
  find("from-scene").addEventListener("click", () => change({ view: null }));
  find("from-view").addEventListener("click", () => change({ view: maps.seen() }));
  const actions = { fit: () => maps.fit(), zoom1: () => zoomTo(1), zoom4: () => zoomTo(0.25), link: copyLink, save };
  for (const [id, action] of Object.entries(actions)) find(id).addEventListener("click", action);
  find("help").addEventListener("click", () => find("keys").showModal());
  find("fold").addEventListener("click", fold);
  find("next").addEventListener("click", () => goToSpot(state.spot + 1));
  find("previous").addEventListener("click", () => goToSpot(state.spot < 0 ? -1 : state.spot - 1));
  connectPointer();
  addEventListener("keydown", press);
  addEventListener("hashchange", () => {
    read(location.hash, state, about);
    place();
    update();
  });
}

function connectPointer() {
  for (const { map } of [maps.first, maps.second]) {
    map.on("loadstart", () => {
      loading.add(map);
      tellBusy();
    });
    map.on("loadend", () => {
      loading.delete(map);
      tellBusy();
    });
    map.on("pointermove", (event) => {
      if (!held && !event.dragging) probe(event.coordinate);
    });
    map.on("click", (event) => {
      held = held ? null : event.coordinate;
      probe(event.coordinate);
      say(held ? "values are held; click again to let go" : "values follow the pointer");
    });
  }
  const divider = find("divider");
  divider.addEventListener("pointerdown", (event) => {
    divider.setPointerCapture(event.pointerId);
    event.preventDefault();
    divider.focus();
  });
  divider.addEventListener("pointermove", (event) => {
    if (!divider.hasPointerCapture(event.pointerId)) return;
    const page = find("maps").getBoundingClientRect();
    moveDivider((100 * (event.clientX - page.left)) / page.width);
  });
  divider.addEventListener("pointerup", remember);
}

function fold() {
  document.body.classList.toggle("folded");
  maps.first.map.updateSize();
  maps.second.map.updateSize();
}

function pan(right, down) {
  const [width, height] = maps.first.map.getSize();
  const resolution = maps.view.getResolution();
  const [x, y] = maps.view.getCenter();
  maps.view.setCenter([x + (right * width * resolution) / 4, y - (down * height * resolution) / 4]);
}

/** Answer a key. */
function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || find("keys").open) return;
  if (event.target.matches("input, select, textarea")) return;
  const onDivider = event.target === find("divider");
  const digit = /^Digit([1-6])$/.exec(event.code);
  if (digit) {
    const index = Number(digit[1]) - 1;
    if (index < about.layers.length) change({ [event.shiftKey ? "b" : "a"]: index });
    return;
  }
  const modes = Object.fromEntries(MODES.map((mode, number) => ["osvld"[number], () => change({ mode })]));
  const step = (right, down) => () => (onDivider && right ? moveDivider(state.divider + 2 * right) : pan(right, down));
  const zoom = (by) => () => maps.view.adjustZoom(by);
  const actions = {
    ...modes,
    " ": blink,
    ",": () => moveDivider(state.divider - 5),
    ".": () => moveDivider(state.divider + 5),
    b: nextBands,
    f: () => maps.fit(),
    z: () => zoomTo(1),
    x: () => zoomTo(0.25),
    n: () => goToSpot(state.spot + 1),
    p: () => goToSpot(state.spot < 0 ? -1 : state.spot - 1),
    c: copyLink,
    w: save,
    i: fold,
    "?": () => find("keys").showModal(),
    "+": zoom(1),
    "=": zoom(1),
    "-": zoom(-1),
    ArrowLeft: step(-1, 0),
    ArrowRight: step(1, 0),
    ArrowUp: step(0, -1),
    ArrowDown: step(0, 1),
  };
  const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action || (event.key === " " && event.target.matches("button"))) return;
  event.preventDefault();
  action();
}

function nextBands() {
  const at = about.presets.findIndex(({ bands }) => bands.join() === state.bands.join());
  change({ bands: about.presets[(at + 1) % about.presets.length].bands });
}

document.title = `${about.title} · ksdiff view`;
find("title").textContent = about.title;
listLayers(about, (side, index) => change({ [side]: index }));
fillBands();
connect();
place();
update();
watch();
