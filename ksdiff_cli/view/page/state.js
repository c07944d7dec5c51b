// What is shown, and its form in the address: a link that holds it reproduces the view.

export const MODES = ["one", "swipe", "side", "lens", "difference"];

/** Return the state that a page begins with; `about` is what the server says of the layers. */
export function beginning(about) {
  const images = about.layers.flatMap((layer, index) => (layer.kind === "image" ? [index] : []));
  const last = images.at(-1) ?? about.layers.length - 1;
  const other = images.at(-2) ?? (last > 0 ? 0 : last);
  return {
    at: [about.height / 2, about.width / 2],
    resolution: null, // null: all of the scene
    mode: about.layers.length > 1 ? "swipe" : "one",
    a: about.layers.length > 1 ? other : 0,
    b: last,
    bands: about.presets[0].bands,
    low: 2,
    high: 98,
    gamma: 1,
    view: null, // "level,top,left,bottom,right" of tiles whose values set the stretch; null: the scene's
    divider: 50,
    spot: -1,
  };
}

/** Return the address's part after # for a state. */
export function write(state) {
  const parts = {
    at: state.at.map((value) => Math.round(value * 100) / 100).join(","),
    zoom: state.resolution ? 1 / state.resolution : "all",
    mode: state.mode,
    a: state.a,
    b: state.b,
    bands: state.bands.join(","),
    stretch: `${state.low},${state.high},${state.gamma}`,
    divider: Math.round(state.divider * 10) / 10,
    ...(state.view ? { view: state.view } : {}),
  };
  return "#" + Object.entries(parts).map(([name, value]) => `${name}=${value}`).join("&");
}

/** Change a state to what an address says; what makes no sense there is passed over. */
export function read(hash, state, about) {
  const given = Object.fromEntries(new URLSearchParams(hash.slice(1)));
  const numbers = (name) => (given[name] ?? "").split(",").map(Number);
  const inside = (value, least, most) => Number.isFinite(value) && value >= least && value <= most;
  const at = numbers("at");
  if (at.length === 2 && inside(at[0], 0, about.height) && inside(at[1], 0, about.width)) state.at = at;
  if (inside(Number(given.zoom), 2 ** -about.coarsest, 2 ** -about.finest)) state.resolution = 1 / Number(given.zoom);
  if (MODES.includes(given.mode)) state.mode = given.mode;
  for (const name of ["a", "b"]) {
    if (given[name] && inside(Number(given[name]), 0, about.layers.length - 1)) state[name] = Math.trunc(Number(given[name]));
  }
  const bands = numbers("bands");
  if (given.bands && [1, 3].includes(bands.length) && bands.every((band) => Number.isInteger(band) && inside(band, 0, about.bands.length - 1))) {
    state.bands = bands;
  }
  const [low, high, gamma] = numbers("stretch");
  if (inside(low, 0, 100) && inside(high, 0, 100) && low < high && inside(gamma, 0.1, 10)) Object.assign(state, { low, high, gamma });
  if (given.divider && inside(Number(given.divider), 0, 100)) state.divider = Number(given.divider);
  if (/^-?\d+(,\d+){4}$/.test(given.view ?? "")) state.view = given.view;
}
