// The charts of the report: unpack plotly.js, draw what the page holds as data, and follow the reader's choices.
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

  // Drawing.

  function drawing(figure) {
    const { data, layout, marks } = charts[figure.dataset.chart];
    const chosen = chosenIn(figure);
    const width = printing ? printedWidth : figure.clientWidth;
    const kept = marks.filter((mark) => fits(mark.meta, chosen));
    const shown = merge({}, structuredClone(layout));
    kept.filter((mark) => mark.layout).forEach((mark) => merge(shown, structuredClone(mark.layout)));
    shown.shapes = kept.filter((mark) => mark.shape).map((mark) => structuredClone(mark.shape));
    shown.annotations = kept.filter((mark) => mark.annotation).map((mark) => structuredClone(mark.annotation));
    for (const [key, values] of Object.entries(chosen)) {
      if (!key.startsWith("layout.")) continue;
      const path = key.split(".").slice(1);
      const last = path.pop();
      path.reduce((place, name) => (place[name] ??= {}), shown)[last] = [...values][0];
      shown.yaxis.tickmode = [...values][0] === "log" ? "array" : "auto";
    }
    if (width < narrowWidth) {
      shown.font.size = 11;
      merge(shown, { margin: { l: 44, r: 12 }, legend: { font: { size: 11 } } });
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
      if (width < narrowWidth && drawn.mode === "lines+text") drawn.mode = "lines"; // The legend names it too.
      if (again) drawn.showlegend = false;
      return drawn;
    });
    return { traces, layout: coloured(shown) };
  }

  function draw(figure) {
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

  async function unpacked() {
    const packed = document.getElementById("plotly").textContent.trim();
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
  }

  async function begin() {
    setTheme(new URLSearchParams(location.search).get("theme") ?? ""); // "?theme=dark" is for those who take pictures.
    document.getElementById("theme").addEventListener("click", () => {
      setTheme(themes[(themes.indexOf(root.dataset.theme) + 1) % themes.length]);
      if (window.Plotly) drawAll();
    });
    document.getElementById("print").addEventListener("click", () => window.print());
    if (typeof DecompressionStream === "undefined") {
      say("This browser cannot unpack the charts: it has no DecompressionStream. Chrome 80, Firefox 113, Safari 16.4 and later have it. All numbers are in the tables.");
      return;
    }
    try {
      const script = document.createElement("script");
      script.nonce = nonce;
      script.textContent = await unpacked();
      document.head.append(script);
      for (const figure of figures) {
        draw(figure);
        await new Promise((resume) => setTimeout(resume)); // The page stays responsive between charts.
      }
    } catch (failure) {
      say(`The charts could not be drawn (${failure.message}). All numbers are in the tables.`);
      throw failure;
    }
    figures.forEach((figure) => {
      figure.addEventListener("change", () => draw(figure));
      const acts = { in: () => zoom(figure, 1.5), out: () => zoom(figure, 1 / 1.5), reset: () => reset(figure), png: () => save(figure, "png"), svg: () => save(figure, "svg") };
      for (const button of figure.querySelectorAll("[data-act]")) button.addEventListener("click", acts[button.dataset.act]);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
    let width = root.clientWidth;
    window.addEventListener("resize", () => {
      if (root.clientWidth === width || printing) return;
      width = root.clientWidth;
      drawAll();
    });
    window.addEventListener("beforeprint", () => print(true));
    window.addEventListener("afterprint", () => print(false));
    matchMedia("print").addEventListener("change", (query) => print(query.matches));
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
