"use strict";
(() => {
  const galleries = JSON.parse(document.getElementById("galleries").textContent).map(withRows);
  const byId = (id) => document.getElementById(id);
  const [SHOWN_FIRST, SHOWN_MORE] = [12, 60]; // cards
  const REASONS = {
    budget: "every step was accepted",
    oracle: "the oracle rejected the next step",
    rejected: "the oracle rejected the first step",
    reached: "the network was fooled",
    stuck: "the network's gradient was zero",
    nonfinite: "no finite step was left",
  };
  const OUTCOMES = {
    fooled: "fooled: right before, wrong after",
    kept: "not fooled: right after",
    right: "right",
    mistaken: "wrong",
    wrong: "wrong before and after",
    unknown: "no prediction",
  };
  const JUDGED = { doubt: "a judge does not see the class", agree: "all judges see the class", unjudged: "not judged" };

  // The address holds what is chosen: #class=3&outcome=fooled&sort=step&id=17.
  let chosen = new URLSearchParams(location.hash.slice(1));
  let listed = []; // the rows that pass all filters, in order
  let opened = null; // the row in the dialog

  function withRows(gallery) {
    const columns = Object.entries(gallery.columns);
    const rows = gallery.columns.id.map((_, place) => {
      const row = { place };
      for (const [name, values] of columns) row[name] = values[place];
      return row;
    });
    return { ...gallery, rows };
  }

  const gallery = () => galleries.find((other) => other.split === chosen.get("split")) || galleries[0];
  const network = () => Math.max(0, gallery().classifiers.indexOf(chosen.get("network")));
  const predictions = (row) => row.predictions?.[network()] || [null, null];
  const className = (label) => (label < 0 ? "no prediction" : gallery().class_names[label]);
  const has = (row, name) => row[name] !== null && row[name] !== undefined;
  const reason = (row) => REASONS[row.reason] || row.reason || "";
  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  function outcome(row) {
    const [before, after] = predictions(row);
    if (after === null) return "unknown";
    if (!has(row, "original_place")) return after === row.label ? "right" : "mistaken";
    if (after === row.label) return "kept";
    return before === null || before === row.label ? "fooled" : "wrong";
  }

  function judged(row) {
    const seen = Object.values(row.judges || {});
    if (!seen.length) return "unjudged";
    return seen.every((label) => label === row.label) ? "agree" : "doubt";
  }

  const numerically = (a, b) => a - b;
  // Each filter: its name in the address, its title, the values of a row, a value in words, and how values are sorted.
  const FILTERS = [
    { name: "class", title: "class", of: (row) => [row.label], text: className, order: numerically },
    { name: "prediction", title: "network's prediction", of: (row) => [predictions(row)[1]], text: className, order: numerically },
    { name: "outcome", title: "outcome", of: (row) => [outcome(row)], text: (value) => OUTCOMES[value] },
    // A range, 0-5, is of rows that the network first has wrong at one of these steps; a single step stands for all up to it.
    { name: "step", title: "wrong by step", of: (row) => [row.failed_at], text: (value) => `${value}`, order: numerically, adds: true },
    { name: "reason", title: "stopped", of: (row) => [row.reason], text: (value) => REASONS[value] || value },
    { name: "judges", title: "judges", of: (row) => [judged(row)], text: (value) => JUDGED[value] },
  ];
  const tags = new Set(galleries.flatMap((shown) => shown.rows.flatMap((row) => Object.keys(row.tags || {}))));
  for (const tag of tags) {
    FILTERS.push({ name: tag, title: tag, of: (row) => [row.tags?.[tag]], text: (value) => value });
  }
  const SORTS = {
    "": { title: "as in the split" },
    step: { title: "first wrong, soonest first", of: (row) => row.failed_at, needs: "failed_at" },
    steps: { title: "most steps first", of: (row) => -row.iterations, needs: "iterations" },
    oracle: { title: "oracle least sure first", of: (row) => row.probability, needs: "probability" },
    loss: { title: "network's loss, highest first", of: (row) => -row.loss, needs: "loss" },
    change: { title: "largest change first", of: (row) => -row.distance, needs: "distance" },
  };

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children.filter(Boolean));
    return made;
  }

  const values = (filter, row) => filter.of(row).filter((value) => value !== null && value !== undefined);

  function passes(filter, row) {
    const wanted = chosen.get(filter.name);
    if (!wanted) return true;
    if (filter.adds) {
      const [first, last] = /^\d+-\d+$/.test(wanted) ? wanted.split("-") : ["0", wanted];
      return values(filter, row).some((step) => step >= Number(first) && step <= Number(last));
    }
    return values(filter, row).some((value) => String(value) === wanted);
  }

  function choose(name, value) {
    if (value) chosen.set(name, value);
    else chosen.delete(name);
    show();
  }

  function field(name, title, options, value) {
    const select = element("select", { name }, ...options.map(([key, text]) => element("option", { value: key }, text)));
    select.value = value;
    select.onchange = () => choose(name, select.value);
    return element("label", {}, `${title} `, select);
  }

  function filterField(filter) {
    const others = FILTERS.filter((other) => other !== filter);
    const counts = new Map();
    let total = 0;
    const all = new Set();
    for (const row of gallery().rows) {
      const isCounted = others.every((other) => passes(other, row));
      total += isCounted;
      for (const value of values(filter, row)) {
        all.add(value);
        if (isCounted) counts.set(value, (counts.get(value) || 0) + 1);
      }
    }
    const wanted = chosen.get(filter.name) || "";
    if (all.size < 2 && !wanted) return null;
    const options = [["", `all (${total})`]];
    let sum = 0;
    for (const value of [...all].sort(filter.order)) {
      const count = counts.get(value) || 0;
      sum += count;
      options.push([String(value), `${filter.text(value)} (${filter.adds ? sum : count})`]);
    }
    if (wanted && !options.some(([value]) => value === wanted)) options.push([wanted, wanted]);
    return field(filter.name, filter.title, options, wanted);
  }

  function fields() {
    const shown = gallery();
    const made = [];
    if (galleries.length > 1) {
      const splits = galleries.map((other) => [other.split, other.short]);
      made.push(field("split", "split", splits, shown.split));
    }
    if (shown.classifiers.length > 1) {
      const names = shown.classifiers.map((name) => [name, name]);
      made.push(field("network", "network", names, shown.classifiers[network()]));
    }
    made.push(...FILTERS.map(filterField).filter(Boolean));
    const sorts = Object.entries(SORTS).filter(([, sort]) => !sort.needs || sort.needs in shown.columns);
    if (sorts.length > 1) {
      made.push(field("sort", "order", sorts.map(([name, sort]) => [name, sort.title]), chosen.get("sort") || ""));
    }
    return made;
  }

  const sheets = new Map(); // by address: images that load
  function sheet(address) {
    if (!sheets.has(address)) {
      const image = new Image();
      image.src = address;
      sheets.set(address, image.decode().then(() => image));
    }
    return sheets.get(address);
  }

  function draw(canvas, kind, place) {
    const { side, across, addresses } = gallery().sheets[kind];
    const each = across * across;
    const wanted = `${kind} ${place}`;
    canvas.dataset.wanted = wanted;
    canvas.classList.toggle("small", side <= 96);
    const [row, column] = [Math.floor((place % each) / across), place % across];
    sheet(addresses[Math.floor(place / each)]).then((image) => {
      if (canvas.dataset.wanted !== wanted) return; // another one has been asked for meanwhile
      canvas.width = canvas.height = side;
      const context = canvas.getContext("2d");
      context.drawImage(image, column * side, row * side, side, side, 0, 0, side, side);
      canvas.dataset.drawn = wanted;
    });
  }

  function picture(kind, place, alternative) {
    const canvas = element("canvas", { role: "img", ariaLabel: alternative });
    draw(canvas, kind, place);
    return canvas;
  }

  function prediction(row, label) {
    if (label === null || label === undefined) return element("span", { className: "soft" });
    const [kind, mark] = label === row.label ? ["right", "✓"] : ["wrong", "✗"];
    return element("span", { className: kind }, `${mark} ${className(label)}`);
  }

  function facts(row) {
    const lines = [`id ${row.id}`];
    if (has(row, "iterations")) lines.push(row.iterations === 1 ? "1 step" : `${row.iterations} steps`);
    if (has(row, "probability")) lines.push(`oracle ${percent(row.probability)}`);
    if (row.valid === false) lines.push("invalid: the oracle rejects the first step");
    for (const [judge, label] of Object.entries(row.judges || {})) {
      lines.push(`${judge}: ${label < 0 ? "none" : className(label)}`);
    }
    return lines;
  }

  function card(row) {
    const label = className(row.label);
    const hasOriginal = has(row, "original_place");
    const images = element(
      "div",
      { className: hasOriginal ? "pair" : "single" },
      hasOriginal && picture("original", row.original_place, `original of ${row.id}, ${label}`),
      picture("image", row.place, `image of ${row.id}, ${label}`),
    );
    const [before, after] = predictions(row);
    const below = hasOriginal ? [prediction(row, before), prediction(row, after)] : [prediction(row, after)];
    return element(
      "figure",
      { className: "card" },
      element("div", { className: "true" }, label),
      element("button", { className: "open", type: "button", ariaLabel: `${label}, id ${row.id}: enlarge`, onclick: () => open(row) }, images),
      element("div", { className: hasOriginal ? "predictions" : "predictions alone" }, ...below),
      element("figcaption", { title: reason(row) }, [...facts(row), ...(row.notes || [])].join(" · ")),
    );
  }

  byId("reset").onclick = () => {
    for (const filter of FILTERS) chosen.delete(filter.name);
    show();
  };

  // What stands below the gallery stays within reach: further cards come by a click.
  function more() {
    const made = byId("cards").childElementCount;
    byId("cards").append(...listed.slice(made, made + (made ? SHOWN_MORE : SHOWN_FIRST)).map(card));
    byId("more").hidden = byId("cards").childElementCount >= listed.length;
  }
  byId("more").onclick = more;

  function show() {
    const shown = gallery();
    const focused = document.activeElement?.name;
    byId("filters").replaceChildren(...fields());
    if (focused) document.querySelector(`#filters [name="${CSS.escape(focused)}"]`)?.focus();
    listed = shown.rows.filter((row) => FILTERS.every((filter) => passes(filter, row)));
    const sort = SORTS[chosen.get("sort") || ""];
    if (sort?.of) {
      const key = (row) => (Number.isFinite(sort.of(row)) ? sort.of(row) : Infinity);
      listed.sort((a, b) => key(a) - key(b) || a.place - b.place);
    }
    byId("cards").replaceChildren();
    more();
    const part = shown.total > shown.rows.length ? `, a sample of ${shown.total}` : "";
    byId("count").textContent = `${listed.length} of ${shown.rows.length} rows${part}.`;
    byId("reset").hidden = !FILTERS.some((filter) => chosen.get(filter.name));
    remember();
  }

  function remember() {
    const text = chosen.toString();
    if (location.hash.slice(1) !== text) history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  // The enlarged row: its images, its path with a slider, and what each network says.
  const dialog = byId("large");
  dialog.addEventListener("close", () => {
    opened = null;
    chosen.delete("id");
    remember();
  });
  dialog.onclick = (event) => {
    if (event.target === dialog) dialog.close();
  };
  dialog.addEventListener("keydown", (event) => {
    const isFree = event.target.type !== "range"; // which the arrows move
    if (event.key === "PageDown" || (isFree && event.key === "ArrowRight")) go(1);
    else if (event.key === "PageUp" || (isFree && event.key === "ArrowLeft")) go(-1);
    else return;
    event.preventDefault();
  });

  function go(by) {
    const next = listed[listed.indexOf(opened) + by];
    if (next) open(next);
  }

  function button(text, title, onclick) {
    return element("button", { className: "plain", type: "button", ariaLabel: title, title, onclick }, text);
  }

  function open(row) {
    opened = row;
    chosen.set("id", row.id);
    remember();
    const place = listed.indexOf(row);
    const bar = element(
      "div",
      { className: "head" },
      element("strong", {}, `${className(row.label)}, id ${row.id}`),
      element("span", { className: "soft" }, place < 0 ? "" : `${place + 1} of ${listed.length}`),
      button("←", "previous image (Page Up)", () => go(-1)),
      button("→", "next image (Page Down)", () => go(1)),
      button("✕", "close (Escape)", () => dialog.close()),
    );
    const images = element("div", { className: "images" });
    const add = (kind, index, text) => {
      const canvas = picture(kind, index, `${text}, id ${row.id}`);
      images.append(element("figure", {}, canvas, element("figcaption", { className: "soft" }, text)));
      return canvas;
    };
    if (has(row, "original_place")) add("original", row.original_place, "original");
    const image = add("image", row.place, has(row, "original_place") ? "perturbed" : "image");
    if (has(row, "difference_place")) {
      add("difference", row.difference_place, `difference of these two, × ${gallery().amplified}: ${row.distance.toFixed(1)} of 255 grey levels (RMS)`);
    }
    const parts = [bar, images];
    if (row.steps) parts.push(path(row, image));
    const lines = [...facts(row), ...(row.notes || []), reason(row)].filter(Boolean);
    parts.push(predictionsOfAll(row), element("p", { className: "soft" }, lines.join(" · ")));
    dialog.replaceChildren(...parts);
    if (!dialog.open) dialog.showModal();
    (dialog.querySelector("input") || dialog.querySelector("button.plain")).focus();
  }

  function predictionsOfAll(row) {
    const hasOriginal = has(row, "original_place");
    const titles = hasOriginal ? ["network", "original", "perturbed"] : ["network", "image"];
    const head = titles.map((text) => element("th", { scope: "col" }, text));
    const lines = gallery().classifiers.map((name, number) => {
      const labels = row.predictions[number].slice(hasOriginal ? 0 : 1);
      const cells = labels.map((label) => element("td", {}, prediction(row, label)));
      return element("tr", {}, element("th", { scope: "row" }, name), ...cells);
    });
    const table = element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...lines));
    return element("div", { className: "scroll", tabIndex: 0 }, table);
  }

  // The path: a slider over the steps, what both say at each, and the image if it was decoded again.
  function path(row, image) {
    const { predictions, confidence, oracle, shown, first } = row.steps;
    const last = predictions.length - 1;
    const slider = element("input", { type: "range", min: 0, max: last, value: last, id: "step" });
    const line = element("p", { role: "status" });
    const [chart, mark] = curves(row);
    slider.oninput = () => {
      const step = Number(slider.value);
      const name = className(row.label);
      line.replaceChildren(
        `${step === 0 ? "reconstruction" : `step ${step}`} of ${last}: ${gallery().own} says `,
        prediction(row, predictions[step]),
        `, ${percent(confidence[step])} for ${name}; ${gallery().judge} gives ${name} ${percent(oracle[step])}`,
      );
      mark(step);
      if (!shown.length) return;
      image.nextSibling.textContent = step === last ? "perturbed" : `step ${step}`;
      const difference = image.parentElement.nextElementSibling;
      if (difference) difference.classList.toggle("stale", step !== last); // it is that of the stored image
      const frame = shown.findLastIndex((other) => other <= step);
      if (step === last || frame < 0) draw(image, "image", row.place);
      else draw(image, "steps", first + frame);
    };
    slider.oninput();
    const made = element("div", { className: "path" }, element("label", {}, "step ", slider), line);
    if (!shown.length) {
      const others = gallery().rows.some((other) => other.steps?.shown.length);
      const cure = others ? "and came out otherwise here." : "fmrgen show --steps decodes them.";
      made.append(element("p", { className: "soft" }, `The images of the steps between are not stored: ${cure}`));
    }
    made.append(chart);
    return made;
  }

  function svg(tag, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function curves(row) {
    const { predictions, confidence, oracle } = row.steps;
    const [width, height, left, right, top] = [560, 130, 40, 450, 8];
    const x = (step) => left + (step * (right - left)) / Math.max(1, predictions.length - 1);
    const y = (share) => top + (1 - share) * (height - top - 22);
    const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "curves", role: "img" });
    chart.append(svg("title", {}, `probability of ${className(row.label)} by step: by ${gallery().own}, and by ${gallery().judge}`));
    for (const share of [0, 0.5, 1]) {
      chart.append(svg("line", { x1: left, x2: right, y1: y(share), y2: y(share), class: "grid" }));
      chart.append(svg("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
    }
    const ends = [];
    for (const [shares, kind, name] of [[oracle, "oracle", gallery().judge], [confidence, "network", gallery().own]]) {
      const points = shares.map((share, step) => `${x(step)},${y(share)}`).join(" ");
      chart.append(svg("polyline", { points, class: kind }));
      ends.push({ kind, name, at: y(shares[shares.length - 1]) + 4 });
    }
    // Names right of the ends of their lines, not on top of each other.
    const [above, below] = ends.sort((a, b) => a.at - b.at);
    below.at = Math.max(below.at, above.at + 13);
    for (const { kind, name, at } of ends) chart.append(svg("text", { x: right + 6, y: at, class: kind }, name));
    if (has(row, "failed_at")) {
      chart.append(svg("line", { x1: x(row.failed_at), x2: x(row.failed_at), y1: top, y2: height - 22, class: "crossing" }));
      const side = row.failed_at > predictions.length / 2 ? "end" : "start";
      chart.append(svg("text", { x: x(row.failed_at), y: height - 6, "text-anchor": side }, `first wrong at step ${row.failed_at}`));
    }
    const here = svg("line", { y1: top, y2: height - 22, class: "here" });
    chart.append(here);
    return [chart, (step) => { here.setAttribute("x1", x(step)); here.setAttribute("x2", x(step)); }];
  }

  function restore() {
    const hash = location.hash;
    chosen = new URLSearchParams(hash.slice(1));
    chosen.delete("gallery"); // #gallery is the place itself
    const id = chosen.get("id");
    // A page opens on the failures.
    if (!hash && gallery().rows.some((row) => outcome(row) === "fooled")) chosen.set("outcome", "fooled");
    show();
    const row = id === null ? undefined : gallery().rows.find((other) => String(other.id) === id);
    if (row) open(row);
    if (hash && !dialog.open) byId("gallery").scrollIntoView();
  }

  // A second click on the same figure changes no address.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) byId("gallery").scrollIntoView();
  });
  window.addEventListener("hashchange", restore);
  restore();
})();
