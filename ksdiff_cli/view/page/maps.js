// The maps: layers as tiles on the finest layer's pixels, and the ways in which two of them are compared.
/* global ol */

const LENS = 90; // radius, CSS pixels

export class Maps {
  /** Lay out the maps of a scene; `about` is what the server says, `moved` is called when the view has moved. */
  constructor(about, moved) {
    this.about = about;
    const extent = [0, -about.height, about.width, 0];
    this.extent = extent;
    this.projection = new ol.proj.Projection({ code: "pixels", units: "pixels", extent });
    const levels = Array.from({ length: about.coarsest - about.finest + 1 }, (_, z) => about.coarsest - z);
    this.resolutions = levels.map((level) => 2 ** level);
    this.grid = new ol.tilegrid.TileGrid({ extent, origin: [0, 0], resolutions: this.resolutions, tileSize: about.tile });
    this.view = new ol.View({
      projection: this.projection,
      resolutions: this.resolutions,
      constrainResolution: true,
      enableRotation: false,
      extent,
      constrainOnlyCenter: true,
      smoothExtentConstraint: false,
      center: [about.width / 2, -about.height / 2],
      resolution: this.resolutions[0],
    });
    this.sources = about.layers.map(() => this.#source());
    this.difference = this.#source();
    this.marks = new ol.source.Vector();
    this.first = this.#map("first");
    this.second = this.#map("second");
    this.pointer = null; // CSS pixels on the first map
    this.first.map.on("moveend", moved);
    this.first.map.getViewport().addEventListener("pointermove", (event) => this.#point(event));
    this.first.map.getViewport().addEventListener("pointerdown", (event) => this.#point(event));
  }

  #source() {
    // not smoothed: a pixel is a square at any zoom
    return new ol.source.TileImage({
      projection: this.projection, tileGrid: this.grid, interpolate: false, transition: 0, wrapX: false, tileUrlFunction: () => undefined,
    });
  }

  #map(target) {
    const layers = this.sources.map((source) => new ol.layer.Tile({ source, visible: false }));
    const difference = new ol.layer.Tile({ source: this.difference, visible: false });
    const style = new ol.style.Style({ stroke: new ol.style.Stroke({ color: "#ffd54a", width: 2 }) });
    const marks = new ol.layer.Vector({ source: this.marks, style, className: "marks" });
    const map = new ol.Map({
      target, view: this.view, controls: [], layers: [...layers, difference, marks], moveTolerance: 3,
      interactions: ol.interaction.defaults.defaults({ keyboard: false, altShiftDragRotate: false, pinchRotate: false }),
    });
    const found = { map, layers, difference };
    for (const layer of layers) {
      layer.on("prerender", (event) => this.#clip(found, layer, event));
      layer.on("postrender", (event) => this.#unclip(found, layer, event));
    }
    return found;
  }

  /** Let a layer's tiles be drawn as `query` says; null shows nothing. */
  style(index, query) {
    this.#address(this.sources[index], `tile/${index}`, query);
  }

  styleDifference(a, b, query) {
    this.#address(this.difference, `difference/${a}/${b}`, query);
  }

  #address(source, path, query) {
    const key = `${path}?${query}`;
    if (source.getKey() === key) return;
    const address = ([z, x, y]) => (query === null ? undefined : `${path}/${this.about.coarsest - z}/${y}/${x}.png?${query}`);
    source.setTileUrlFunction(address, key);
  }

  /** Show the layers that a state asks for. `other` is whether the blink shows B. */
  show(state, other) {
    this.state = state;
    const side = state.mode === "side";
    document.getElementById("second").hidden = !side;
    document.getElementById("maps").classList.toggle("two", side);
    const [front, back] = other ? [state.b, state.a] : [state.a, state.b];
    this.first.layers.forEach((layer, index) => {
      const both = state.mode === "swipe" || state.mode === "lens";
      // the other one is loaded too, unseen, so that the blink is at once
      const loaded = index === front || (index === back && (both || state.mode === "one"));
      layer.setVisible(loaded && state.mode !== "difference");
      layer.setOpacity(index === front || both ? 1 : 0);
      layer.setZIndex(index === state.b ? 1 : 0);
    });
    this.first.difference.setVisible(state.mode === "difference");
    this.second.layers.forEach((layer, index) => layer.setVisible(side && index === state.b));
    this.first.map.updateSize();
    this.second.map.updateSize();
    this.render();
  }

  render() {
    this.first.map.render();
    this.second.map.render();
  }

  #point(event) {
    const box = this.first.map.getTargetElement().getBoundingClientRect();
    this.pointer = [event.clientX - box.left, event.clientY - box.top];
    if (this.state?.mode === "lens") this.first.map.render();
  }

  /** Limit what is drawn of a layer: its side of the divider, or the lens. */
  #clip(where, layer, event) {
    const context = event.context;
    context.save();
    const { mode, a, b, divider } = this.state ?? {};
    const index = where.layers.indexOf(layer);
    if (where !== this.first || a === b) return;
    const at = (pixel) => ol.render.getRenderPixel(event, pixel);
    const [width, height] = where.map.getSize();
    if (mode === "swipe") {
      const middle = (width * divider) / 100;
      const [left, right] = index === a ? [0, middle] : [middle, width];
      context.beginPath();
      [[left, 0], [right, 0], [right, height], [left, height]].forEach((corner, number) => context[number ? "lineTo" : "moveTo"](...at(corner)));
      context.closePath();
      context.clip();
    } else if (mode === "lens" && index === b) {
      this.#circle(context, at, width, height);
      context.clip();
      // where B holds no data, A must not show through
      context.save();
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.clearRect(0, 0, context.canvas.width, context.canvas.height);
      context.restore();
    }
  }

  #unclip(where, layer, event) {
    event.context.restore();
    if (where !== this.first || this.state?.mode !== "lens" || where.layers.indexOf(layer) !== this.state.b) return;
    const at = (pixel) => ol.render.getRenderPixel(event, pixel);
    const [width, height] = where.map.getSize();
    event.context.save();
    for (const [colour, thick] of [["rgb(0 0 0 / 60%)", 4], ["#fff", 2]]) {
      this.#circle(event.context, at, width, height);
      event.context.lineWidth = thick;
      event.context.strokeStyle = colour;
      event.context.stroke();
    }
    event.context.restore();
  }

  #circle(context, at, width, height) {
    const middle = this.pointer ?? [width / 2, height / 2];
    const [x, y] = at(middle);
    const [edge] = at([middle[0] + LENS, middle[1]]);
    context.beginPath();
    context.arc(x, y, Math.abs(edge - x), 0, 2 * Math.PI);
  }

  /** Go to a point of the scene, at so many pixels a screen pixel. */
  go([row, col], resolution) {
    this.view.cancelAnimations();
    this.view.setCenter([col, -row]);
    if (resolution) this.view.setResolution(resolution);
  }

  fit() {
    this.view.cancelAnimations();
    this.view.fit(this.extent, { size: this.first.map.getSize(), padding: [12, 12, 12, 12] });
  }

  /** Draw a box around a place of the tour; null draws none. */
  mark(spot) {
    this.marks.clear();
    if (!spot) return;
    const half = spot.size / 2;
    const box = [spot.col - half, -spot.row - half, spot.col + half, -spot.row + half];
    this.marks.addFeature(new ol.Feature(ol.geom.Polygon.fromExtent(box)));
  }

  /** Return the tiles that are seen, as `level,top,left,bottom,right`. */
  seen() {
    const z = this.view.getZoomForResolution(this.view.getResolution());
    const level = this.about.coarsest - Math.round(z);
    const step = this.about.tile * 2 ** level;
    const [west, south, east, north] = ol.extent.getIntersection(this.view.calculateExtent(this.first.map.getSize()), this.extent);
    const top = Math.max(0, Math.floor(-north / step));
    const left = Math.max(0, Math.floor(west / step));
    return [level, top, left, Math.max(top + 1, Math.ceil(-south / step)), Math.max(left + 1, Math.ceil(east / step))].join(",");
  }

  /** Draw what is seen on a canvas: both maps, as they lie on the page. */
  picture(background) {
    const page = document.getElementById("maps").getBoundingClientRect();
    const ratio = window.devicePixelRatio;
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(page.width * ratio);
    canvas.height = Math.round(page.height * ratio);
    const context = canvas.getContext("2d");
    context.fillStyle = background;
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    for (const part of document.querySelectorAll("#maps .ol-viewport canvas")) {
      const box = part.getBoundingClientRect();
      if (!part.width || !box.width || getComputedStyle(part.parentNode).display === "none") continue;
      context.globalAlpha = Number(part.parentNode.style.opacity || part.style.opacity || 1);
      context.drawImage(part, (box.left - page.left) * ratio, (box.top - page.top) * ratio, box.width * ratio, box.height * ratio);
    }
    context.globalAlpha = 1;
    return { canvas, context, ratio, page };
  }
}
