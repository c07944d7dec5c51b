"use strict";

// Sorting: a click sorts by a column, best first; another click turns the order round.
for (const head of document.querySelectorAll(".sortable thead th")) {
  head.querySelector("button").addEventListener("click", () => {
    const row = head.parentElement;
    const column = [...row.children].indexOf(head);
    const opposite = { ascending: "descending", descending: "ascending" };
    const order = opposite[head.getAttribute("aria-sort")] || head.dataset.first;
    for (const other of row.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const number = (line) => {
      const text = line.children[column].dataset.v;
      return text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text);
    };
    const body = head.closest("table").tBodies[0];
    const lines = [...body.rows].map((line) => [number(line), line]);
    // what is undefined stays at the end, whatever the order
    lines.sort(([a], [b]) => (isNaN(a) || isNaN(b) ? isNaN(a) - isNaN(b) : a === b ? 0 : a < b ? -sign : sign));
    body.append(...lines.map(([, line]) => line));
  });
}

// The viewer: two pictures of the page on each other, the right one cut at the divider.
for (const viewer of document.querySelectorAll(".swipe")) {
  const part = (role) => viewer.querySelector(`[data-role="${role}"]`);
  const [strip, left, right] = ["strip", "left", "right"].map(part);
  const stage = viewer.querySelector(".stage");
  const slider = viewer.querySelector("input");
  const divider = stage.querySelector(".divider");
  const strips = [...viewer.closest("section").querySelectorAll(".strip")];
  const shown = [left, right].map(() => {
    const image = document.createElement("img");
    const name = document.createElement("span");
    stage.append(image, name);
    return { image, name };
  });
  const figures = () => [...strips[strip.value].querySelectorAll("figure")];
  const nameOf = (figure) => figure.querySelector("figcaption").firstChild.data.trim();

  const cut = () => {
    shown[1].image.style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    divider.style.left = `${slider.value}%`;
  };
  const show = () => {
    [left, right].forEach((select, side) => {
      const figure = figures()[select.value];
      const source = figure.querySelector("img");
      shown[side].image.src = source.src;
      shown[side].image.alt = source.alt;
      shown[side].name.textContent = nameOf(figure);
    });
    stage.querySelector(".scale")?.remove();
    stage.append(strips[strip.value].querySelector(".scale").cloneNode(true));
    cut();
  };
  const fill = () => {
    const names = figures().map(nameOf);
    [left, right].forEach((select, side) => {
      const before = select.selectedOptions[0].textContent;
      select.replaceChildren(...names.map((name, index) => new Option(name, index)));
      const fallback = side === 0 ? 0 : names.length - 1;
      select.value = names.includes(before) ? names.indexOf(before) : fallback;
    });
    show();
  };
  strip.addEventListener("change", fill);
  left.addEventListener("change", show);
  right.addEventListener("change", show);
  slider.addEventListener("input", cut);
  part("swap").addEventListener("click", () => {
    [left.value, right.value] = [right.value, left.value];
    show();
  });
  const follow = (event) => {
    const area = stage.getBoundingClientRect();
    slider.value = Math.min(100, Math.max(0, (100 * (event.clientX - area.left)) / area.width));
    cut();
  };
  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    follow(event);
  });
  stage.addEventListener("pointermove", (event) => {
    if (stage.hasPointerCapture(event.pointerId)) follow(event);
  });
  // the arrow keys go on where the pointer stopped
  stage.addEventListener("pointerup", () => slider.focus({ preventScroll: true, focusVisible: false }));
  // a page that is loaded anew may keep its old choices
  strip.value = 0;
  fill();
}

// The legend: a pressed method is shown alone, in all charts.
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const pressed = button.getAttribute("aria-pressed") !== "true";
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(pressed));
    for (const group of document.querySelectorAll(".chart g")) {
      group.classList.toggle("dim", pressed && group.dataset.series !== button.dataset.series);
    }
  });
}
