// The panel: layers, values under the pointer, their spectrum; and the scale bar and colour bar on the map.

const text = (tag, content, name) => {
  const made = document.createElement(tag);
  made.textContent = content;
  if (name) made.className = name;
  return made;
};

/** Return a number of a value for people: whole ones as they are. */
export const show = (value) => (Number.isInteger(value) ? String(value) : Math.abs(value) >= 1000 ? value.toFixed(1) : String(Number(value.toPrecision(4))));

/** Fill the list of layers; `choose(side, index)` is called when A or B is set. */
export function listLayers(about, choose) {
  const list = document.getElementById("layers");
  about.layers.forEach((layer, index) => {
    const item = document.createElement("li");
    item.className = `c${index}`;
    const names = document.createElement("div");
    const count = layer.bands.length === 1 ? "1 band" : `${layer.bands.length} bands`;
    const size = `${layer.width} × ${layer.height}`;
    names.append(text("b", layer.name), text("small", `${layer.kind === "map" ? "map" : count} · ${size} · ${layer.dtype}`));
    names.title = [layer.path, layer.note].filter(Boolean).join("\n");
    const status = text("small", layer.made ? layer.note : "", "status");
    names.append(status);
    item.append(names);
    for (const side of ["a", "b"]) {
      const button = text("button", side.toUpperCase(), side);
      button.type = "button";
      button.title = `Show ${layer.name} as ${side.toUpperCase()} (${side === "a" ? "" : "Shift "}${index + 1})`;
      button.addEventListener("click", () => choose(side, index));
      item.append(button);
    }
    list.append(item);
  });
  document.getElementById("notes").append(...about.notes.map((line) => text("li", line)));
}

/** Mark which layers are A and B, and say what is still being done for others. */
export function markLayers(about, state, doing) {
  document.querySelectorAll("#layers li").forEach((item, index) => {
    for (const side of ["a", "b"]) {
      const used = side === "a" || state.mode !== "one" || about.layers.length > 1;
      item.querySelector(`button.${side}`).setAttribute("aria-pressed", String(used && state[side] === index));
    }
    const layer = about.layers[index];
    item.querySelector(".status").textContent = doing[layer.name] ?? (layer.made ? layer.note : "");
  });
}

/** Fill the table of values and draw the spectrum for what the server says of a point. */
export function showValues(about, state, found) {
  const place = [`row ${found.row}, column ${found.col}`];
  if (found.x !== undefined) place.push(`${coordinate(about, found.x)}, ${coordinate(about, found.y)}`);
  if (found.lat !== undefined) place.push(`${found.lat.toFixed(6)}°, ${found.lon.toFixed(6)}°`);
  document.getElementById("place").textContent = place.join(" · ");
  const table = document.getElementById("values");
  const head = document.createElement("tr");
  head.append(text("th", ""), ...state.bands.map((band) => text("th", about.bands[band])));
  const rows = about.layers.map((layer, index) => valueRow(layer, index, state, found.values[index]));
  table.replaceChildren(head, ...rows);
  drawSpectrum(about, found.values);
}

function valueRow(layer, index, state, values) {
  const row = document.createElement("tr");
  row.className = `c${index}`;
  row.append(text("th", layer.name));
  if (!values || layer.bands.length === 1) {
    const cell = text("td", values ? show(values[0]) : layer.made ? "not made yet" : "no data", values ? "" : "none");
    if (state.bands.length > 1) cell.colSpan = state.bands.length;
    row.append(cell);
    return row;
  }
  const own = state.bands.map((band) => layer.own[band]);
  row.append(...own.map((band) => (band === null ? text("td", "–", "none") : text("td", show(values[band])))));
  return row;
}

const coordinate = (about, value) => (Math.abs(value) < 1000 && about.crs ? value.toFixed(6) : value.toFixed(2));

/** Draw the bands of all images as lines over the wavelength, or over the bands' order where that is unknown. */
function drawSpectrum(about, values) {
  const chart = document.getElementById("spectrum");
  const lines = about.layers.flatMap((layer, index) =>
    layer.kind === "image" && values[index] && layer.bands.length > 1 ? [{ layer, index, values: values[index] }] : [],
  );
  chart.toggleAttribute("hidden", !lines.length);
  if (!lines.length) return;
  const along = (layer) => (layer.wavelengths.length ? layer.wavelengths : layer.bands.map((_, band) => band + 1));
  const all = lines.flatMap((line) => line.values);
  const ends = lines.flatMap((line) => along(line.layer));
  const [left, right, top, bottom] = [38, 294, 8, 128];
  const [x0, x1] = [Math.min(...ends), Math.max(...ends)];
  const y0 = Math.min(0, ...all);
  const y1 = Math.max(...all, y0 + 1);
  const x = (value) => left + ((value - x0) / (x1 - x0 || 1)) * (right - left);
  const y = (value) => bottom - ((value - y0) / (y1 - y0)) * (bottom - top);
  const parts = [y0, (y0 + y1) / 2, y1].map(
    (value) => `<line class="grid" x1="${left}" x2="${right}" y1="${y(value)}" y2="${y(value)}"/><text x="${left - 4}" y="${y(value) + 3}" text-anchor="end">${show(Math.round(value))}</text>`,
  );
  for (const { layer, index, values: own } of lines) {
    const points = along(layer).map((at, band) => [x(at), y(own[band])]).sort((one, other) => one[0] - other[0]);
    parts.push(`<polyline class="c${index}" points="${points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" ")}"/>`);
    parts.push(...points.map(([px, py]) => `<circle class="c${index}" cx="${px.toFixed(1)}" cy="${py.toFixed(1)}" r="2.4"/>`));
  }
  const known = lines[0].layer.wavelengths.length > 0;
  parts.push(`<text x="${left}" y="146">${known ? `${Math.round(x0)} nm` : "band 1"}</text>`);
  parts.push(`<text x="${right}" y="146" text-anchor="end">${known ? `${Math.round(x1)} nm` : `band ${x1}`}</text>`);
  chart.innerHTML = parts.join("");
}

/** Draw the scale bar for a resolution in pixels a screen pixel. */
export function drawScale(about, resolution) {
  const metres = about.metres ? resolution * about.metres : null;
  const step = metres ?? resolution;
  const power = 10 ** Math.floor(Math.log10(step * 140));
  const length = [5, 2, 1].map((digit) => digit * power).find((one) => one <= step * 140);
  const bar = document.getElementById("scale");
  bar.style.width = `${length / step}px`;
  bar.firstElementChild.textContent = metres === null ? `${show(length)} px` : length >= 1000 ? `${show(length / 1000)} km` : `${show(length)} m`;
}

/** Show the colours of a map or a difference, with the values at their ends; null hides the bar. */
export function drawBar(about, ramp, title, ends) {
  const bar = document.getElementById("bar");
  bar.hidden = ramp === null;
  if (ramp === null) return;
  const stops = about.ramps[ramp].map(([at, colour]) => `${colour} ${100 * at}%`).join(", ");
  bar.querySelector("b").textContent = title;
  bar.querySelector("i").style.background = `linear-gradient(to right, ${stops})`;
  bar.querySelector("div").replaceChildren(...ends.map((value) => text("span", show(value).replace("-", "−"))));
}
