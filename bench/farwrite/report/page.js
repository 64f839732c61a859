// The charts of the report: unpack plotly.js, draw what the page holds as data, and follow the reader's choices.
// Whoever prints has every chart drawn by then, also in the moment in which the page is opened: unpacking and drawing wait for nothing.
"use strict";
(() => {
  const root = document.documentElement;
  const nonce = document.currentScript.nonce;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const figures = [...document.querySelectorAll("figure[data-chart]")];
  const themes = ["", "light", "dark"];
  const themeWords = { "": "as the system", light: "light", dark: "dark" };
  const printedWidth = 690; // A4 within our margins, at 96 pixels an inch.
  const narrowWidth = 560; // Below it, labels inside a chart would cover the chart.
  let printing = false;

  root.classList.add("scripting");

  // Colours: "--C" and "--C/0.3" become colours of the theme in force.

  const probe = document.body.appendChild(document.createElement("span"));
  probe.hidden = true;

  function colour(name) {
    const [variable, opacity] = name.split("/");
    probe.style.color = `var(${variable})`;
    const found = getComputedStyle(probe).color;
    return opacity === undefined ? found : found.replace("rgb(", "rgba(").replace(")", `, ${opacity})`);
  }

  function coloured(value) {
    if (typeof value === "string") return value.startsWith("--") ? colour(value) : value;
    if (Array.isArray(value)) return value.map(coloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner)]));
  }

  // Choices: what is checked or selected, by key.

  function chosenIn(figure) {
    const chosen = {};
    for (const box of figure.querySelectorAll("[data-key]")) {
      const inputs = [...box.querySelectorAll("input:checked, option:checked")];
      chosen[box.dataset.key] = new Set(inputs.map((input) => input.value));
    }
    return chosen;
  }

  const fits = (meta, chosen) => Object.entries(meta ?? {}).every(([key, value]) => chosen[key]?.has(value) ?? true);

  function merge(into, from) {
    for (const [key, value] of Object.entries(from)) {
      const deep = value !== null && typeof value === "object" && !Array.isArray(value);
      into[key] = deep ? merge(into[key] ?? {}, value) : value;
    }
    return into;
  }

  // plotly.js, unpacked when the first chart is drawn.

  function load() {
    if (window.Plotly) return;
    const holder = document.getElementById("plotly");
    const text = atob(holder.textContent.trim());
    const packed = new Uint8Array(text.length);
    for (let index = 0; index < text.length; index += 1) packed[index] = text.charCodeAt(index);
    const script = document.createElement("script");
    script.nonce = nonce;
    script.textContent = new TextDecoder().decode(inflated(packed, Number(holder.dataset.size)));
    document.head.append(script);
  }

  // RFC 1950 and 1951, at once and not as a stream: a page that is printed the moment it is opened needs its charts by then.

  const repeated = (counts) => counts.flatMap(([length, times]) => Array(times).fill(length));
  const lengthExtra = repeated([[0, 8], [1, 4], [2, 4], [3, 4], [4, 4], [5, 4], [0, 1]]);
  const distanceExtra = repeated([[0, 4], ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13].map((bits) => [bits, 2])]);
  const basesOf = (extra, first) => extra.map(((base) => (bits) => (base += 1 << bits) - (1 << bits))(first));
  const lengthBase = basesOf(lengthExtra, 3).fill(258, 28);
  const distanceBase = basesOf(distanceExtra, 1);
  const codeOrder = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
  const codeBits = 15; // The longest code there is.

  // A table from the next 15 bits to (symbol << 4 | length of its code).
  function codesOf(lengths) {
    const table = new Uint16Array(1 << codeBits);
    let code = 0;
    for (let length = 1; length <= codeBits; length += 1, code <<= 1) {
      for (let symbol = 0; symbol < lengths.length; symbol += 1) {
        if (lengths[symbol] !== length) continue;
        let reversed = 0;
        for (let bit = 0; bit < length; bit += 1) reversed |= ((code >> bit) & 1) << (length - 1 - bit);
        for (let place = reversed; place < table.length; place += 1 << length) table[place] = (symbol << 4) | length;
        code += 1;
      }
    }
    return table;
  }

  function inflated(packed, size) {
    const plain = new Uint8Array(size);
    let at = 2, held = 0, count = 0, end = 0; // The first two bytes are zlib's header.
    function need(bits) {
      for (; count < bits; count += 8) held |= packed[at++] << count;
    }
    function bits(number) {
      need(number);
      const value = held & ((1 << number) - 1);
      held >>>= number;
      count -= number;
      return value;
    }
    function symbol(table) {
      need(codeBits); // At the end it reads beyond, and zeros come.
      const found = table[held & ((1 << codeBits) - 1)];
      held >>>= found & 15;
      count -= found & 15;
      return found >> 4;
    }
    function tables() {
      const literals = bits(5) + 257, distances = bits(5) + 1, lengths = Array(19).fill(0);
      for (let index = 0, codes = bits(4) + 4; index < codes; index += 1) lengths[codeOrder[index]] = bits(3);
      const table = codesOf(lengths), found = [];
      while (found.length < literals + distances) {
        const code = symbol(table);
        const times = code < 16 ? 1 : code === 16 ? bits(2) + 3 : code === 17 ? bits(3) + 3 : bits(7) + 11;
        const length = code < 16 ? code : code === 16 ? found.at(-1) : 0;
        for (let time = 0; time < times; time += 1) found.push(length);
      }
      return [codesOf(found.slice(0, literals)), codesOf(found.slice(literals))];
    }
    for (let last = 0; !last; ) {
      last = bits(1);
      const kind = bits(2);
      if (kind === 0) {
        at -= count >> 3; // Whole bytes that were read ahead.
        held = count = 0;
        const length = packed[at] | (packed[at + 1] << 8);
        plain.set(packed.subarray(at + 4, at + 4 + length), end);
        at += 4 + length;
        end += length;
        continue;
      }
      const fixed = () => [repeated([[8, 144], [9, 112], [7, 24], [8, 8]]), Array(30).fill(5)].map(codesOf);
      const [literals, distances] = kind === 1 ? fixed() : tables();
      for (let code; (code = symbol(literals)) !== 256; ) {
        if (code < 256) {
          plain[end++] = code;
          continue;
        }
        const length = lengthBase[code - 257] + bits(lengthExtra[code - 257]);
        const place = symbol(distances);
        const distance = distanceBase[place] + bits(distanceExtra[place]);
        for (const until = end + length; end < until; end += 1) plain[end] = plain[end - distance];
      }
    }
    return plain;
  }

  // Drawing.

  function drawing(figure) {
    const { data, layout, marks } = charts[figure.dataset.chart];
    const chosen = chosenIn(figure);
    const width = printing ? printedWidth : figure.clientWidth;
    const narrow = width < narrowWidth;
    const kept = marks.filter((mark) => fits(mark.meta, chosen));
    const shown = merge({}, structuredClone(layout));
    kept.filter((mark) => mark.layout).forEach((mark) => merge(shown, structuredClone(mark.layout)));
    shown.shapes = kept.filter((mark) => mark.shape).map((mark) => structuredClone(mark.shape));
    shown.annotations = kept.filter((mark) => mark.annotation).map((mark) => {
      const annotation = structuredClone(mark.annotation);
      if (!narrow || mark.short === undefined) return annotation;
      return { ...annotation, text: mark.short, yshift: (annotation.yshift ?? 0) / 2 };
    });
    for (const [key, values] of Object.entries(chosen)) {
      if (!key.startsWith("layout.")) continue;
      const path = key.split(".").slice(1);
      const last = path.pop();
      path.reduce((place, name) => (place[name] ??= {}), shown)[last] = [...values][0];
      shown.yaxis.tickmode = [...values][0] === "log" ? "array" : "auto";
    }
    if (narrow) {
      shown.font.size = 11;
      merge(shown, { margin: { l: 44, r: shown.margin.r > 44 ? 44 : 12 }, legend: { font: { size: 11 } } });
      shown.shapes.forEach((shape) => shape.label && (shape.label.font.size = 9));
      shown.annotations.forEach((annotation) => (annotation.font.size = Math.min(annotation.font.size, 10)));
    }
    // Reading a phone's page is scrolling: there a drag must not zoom.
    if (matchMedia("(pointer: coarse)").matches) shown.dragmode = false;
    shown.width = width;
    // A zoom outlives a change of theme or width, but not of what is shown.
    shown.uirevision = JSON.stringify([figure.dataset.resets, ...Object.values(chosen).map((values) => [...values])]);

    const named = new Set();
    const traces = data.filter((trace) => fits(trace.meta, chosen)).map((trace) => {
      const group = trace.legendgroup && trace.showlegend !== false ? `${trace.legendgroup} ${trace.name}` : null;
      const again = group !== null && named.has(group);
      if (group !== null) named.add(group);
      const drawn = coloured(trace);
      delete drawn.meta;
      if (narrow && drawn.mode === "lines+text") drawn.mode = "lines"; // The legend names it too.
      if (again) drawn.showlegend = false;
      return drawn;
    });
    return { traces, layout: coloured(shown) };
  }

  function draw(figure) {
    load();
    const { traces, layout } = drawing(figure);
    const plot = figure.querySelector(".plot");
    plot.querySelector(":scope > p")?.remove();
    return Plotly.react(plot, traces, layout, { displayModeBar: false }); // Our own buttons can be reached by keyboard.
  }

  const drawAll = () => figures.map(draw);

  function zoom(figure, factor) {
    const plot = figure.querySelector(".plot");
    const ranges = {};
    for (const axis of ["xaxis", "yaxis"]) {
      const [low, high] = plot.layout[axis].range;
      const half = (high - low) / 2 / factor;
      ranges[`${axis}.range`] = [(low + high) / 2 - half, (low + high) / 2 + half];
    }
    return Plotly.relayout(plot, ranges);
  }

  function reset(figure) {
    figure.dataset.resets = Number(figure.dataset.resets ?? 0) + 1;
    return draw(figure);
  }

  function save(figure, format) {
    const title = document.title.replace(/[^A-Za-z0-9]+/g, "-").slice(0, 40);
    const name = `farwrite-${title}-${figure.dataset.chart}`;
    const plot = figure.querySelector(".plot");
    const { height } = plot.layout;
    return Plotly.downloadImage(plot, { format, filename: name, width: 1100, height, scale: 2 });
  }

  // The page around the charts.

  function setTheme(theme) {
    root.dataset.theme = theme;
    root.style.colorScheme = theme || "light dark";
    document.getElementById("theme").textContent = `Theme: ${themeWords[theme]}`;
  }

  function say(words) {
    for (const place of document.querySelectorAll(".plot > p")) place.textContent = words;
  }

  // A table that is wider than its box says so; its shadows show where there is more.
  function markCut() {
    const boxes = [...document.querySelectorAll(".scroll")];
    const cut = boxes.map((box) => box.scrollWidth > box.clientWidth + 1);
    boxes.forEach((box, index) => box.classList.toggle("cut", cut[index]));
  }

  async function begin() {
    setTheme(new URLSearchParams(location.search).get("theme") ?? ""); // "?theme=dark" is for those who take pictures.
    document.getElementById("theme").addEventListener("click", () => {
      setTheme(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]);
      if (window.Plotly) drawAll();
    });
    document.getElementById("print").addEventListener("click", () => window.print());
    figures.forEach((figure) => {
      figure.addEventListener("change", () => draw(figure));
      const acts = { in: () => zoom(figure, 1.5), out: () => zoom(figure, 1 / 1.5), reset: () => reset(figure), png: () => save(figure, "png"), svg: () => save(figure, "svg") };
      for (const button of figure.querySelectorAll("[data-act]")) button.addEventListener("click", acts[button.dataset.act]);
    });
    let width = root.clientWidth;
    window.addEventListener("resize", () => {
      if (root.clientWidth === width || printing) return;
      width = root.clientWidth;
      markCut();
      if (window.Plotly) drawAll();
    });
    document.addEventListener("toggle", markCut, true);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.Plotly && drawAll());
    window.addEventListener("beforeprint", () => print(true));
    window.addEventListener("afterprint", () => print(false));
    matchMedia("print").addEventListener("change", (query) => print(query.matches));
    markCut();
    try {
      for (const figure of figures) {
        await new Promise((resume) => setTimeout(resume)); // The page is shown before its charts, and stays responsive between them.
        if (!figure.querySelector(".main-svg")) draw(figure);
      }
    } catch (failure) {
      say(`The charts could not be drawn (${failure.message}). All numbers are in the tables.`);
      throw failure;
    }
    root.classList.add("drawn");
  }

  function print(now) {
    if (printing === now) return;
    printing = now;
    root.style.colorScheme = now ? "light" : root.dataset.theme || "light dark";
    drawAll();
  }

  begin();
})();
