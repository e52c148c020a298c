"use strict";
// Shows the numbers under a pointer, a finger or the arrow keys; switches light and dark; prints.
(() => {
  const SVG = "http://www.w3.org/2000/svg";

  const make = (tag, attributes, parent) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    parent.append(element);
    return element;
  };

  function follow(plot) {
    const written = plot.querySelector("script");
    if (!written) return; // squares tell their own figures, there is nothing to follow
    const data = JSON.parse(written.textContent);
    // A stop is what one look shows: a column of several curves, or a single point.
    const stops = data.mode === "column" ? data.columns : data.columns.flatMap(
      ([x, heading, items]) => items.map((item) => [x, heading, [item]]));
    if (!stops.length) return;
    let current = -1;
    let marks = null;
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.setAttribute("role", "status");
    plot.append(tip);

    const drawn = () => [...plot.querySelectorAll("svg")].find((svg) => svg.clientWidth > 0);
    const frameOf = (svg) => svg.dataset.plot.split(" ").map(Number);

    function hide() {
      marks?.remove();
      marks = null;
      tip.style.display = "none";
    }

    function show(index) {
      const svg = drawn();
      if (!svg) return;
      hide();
      current = index;
      const [left, top, width, height] = frameOf(svg);
      const [x, heading, items] = stops[index];
      const column = left + x * width;
      marks = make("g", {}, svg);
      if (data.mode === "column") {
        make("line", { class: "cross", x1: column, x2: column, y1: top, y2: top + height }, marks);
      }
      for (const [kind, y] of items) {
        const group = make("g", { class: kind }, marks);
        make("circle", { class: "ring", cx: column, cy: top + (1 - y) * height, r: 4.5 }, group);
      }
      write(heading, items);
      place(svg, column, top + (1 - items[0][1]) * height);
    }

    function write(heading, items) {
      tip.replaceChildren();
      const title = document.createElement("b");
      title.textContent = heading;
      tip.append(title);
      for (const [kind, , label] of items) {
        const row = document.createElement("div");
        const swatch = document.createElement("i");
        swatch.className = kind;
        row.append(swatch, label);
        tip.append(row);
      }
    }

    function place(svg, x, y) {
      const scale = svg.clientWidth / svg.viewBox.baseVal.width;
      tip.style.display = "block";
      const room = plot.clientWidth - tip.offsetWidth;
      const beside = x * scale + 14;
      const left = beside <= room ? beside : x * scale - tip.offsetWidth - 14;
      tip.style.left = `${Math.max(0, Math.min(left, room))}px`;
      const above = data.mode === "column" ? 0 : y * scale - tip.offsetHeight - 10;
      tip.style.top = `${above >= -40 ? above : y * scale + 14}px`;
    }

    function nearest(event) {
      const svg = drawn();
      if (!svg) return -1;
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const [left, top, width, height] = frameOf(svg);
      const column = (event.clientX - box.left) * scale;
      const row = (event.clientY - box.top) * scale;
      let best = -1;
      let least = Infinity;
      stops.forEach(([x, , items], index) => {
        const across = left + x * width - column;
        const down = data.mode === "column" ? 0 : top + (1 - items[0][1]) * height - row;
        const distance = across * across + down * down;
        if (distance < least) [best, least] = [index, distance];
      });
      return best;
    }

    const look = (event) => {
      const index = nearest(event);
      if (index >= 0) show(index);
    };
    plot.addEventListener("pointermove", look);
    plot.addEventListener("pointerdown", look);
    plot.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse") hide();
    });
    plot.addEventListener("blur", hide);
    plot.addEventListener("keydown", (event) => {
      const last = stops.length - 1;
      const targets = {
        ArrowRight: Math.min(current + 1, last), ArrowLeft: Math.max(current - 1, 0),
        Home: 0, End: last,
      };
      if (event.key === "Escape") hide();
      if (!(event.key in targets)) return;
      event.preventDefault();
      show(targets[event.key]);
    });
  }

  const followed = new WeakSet();
  function dress() {
    for (const plot of document.querySelectorAll(".plot")) {
      if (!followed.has(plot)) follow(plot);
      followed.add(plot);
    }
    document.querySelector(".theme").hidden = false;
  }
  dress();
  document.addEventListener("changed", dress); // by live.js, where a server shows the page

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details.arm")) details.open = true;
  });

  const root = document.documentElement;
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".theme")) return;
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    root.dataset.theme = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
  });
})();
