"use strict";
const galleries = JSON.parse(document.getElementById("galleries").textContent);
const field = (id) => document.getElementById(id);
const meanings = {
  budget: "every step was accepted",
  oracle: "the oracle rejected the next step",
  rejected: "the oracle rejected the first step",
  stuck: "the classifier's gradient was zero",
  nonfinite: "no finite step was left",
};

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => {
    const option = element("option", "", text);
    option.value = value;
    return option;
  }));
  if (options.some(([value]) => value === before)) select.value = before;
  select.parentElement.hidden = options.length < 2;
}

const shownSplit = () => galleries[Number(field("split").value)];

function answers(row) {
  return row.said[field("classifier").selectedIndex] || [null, null];
}

function outcome(row) {
  const [before, after] = answers(row);
  if (after === null) return "unknown";
  if (after === row.label) return "kept";
  return before === row.label ? "fooled" : before === null ? "fooled" : "wrong";
}

function missedByAll(row) {
  return shownSplit().missed.includes(row.id);
}

function judged(row) {
  const seen = Object.values(row.judges);
  return !seen.length ? "unasked" : seen.every((label) => label === row.label) ? "agree" : "doubt";
}

function image(address, alternative) {
  const made = element("img");
  made.alt = alternative;
  made.loading = "lazy";
  made.decoding = "async";
  made.onload = () => { if (made.naturalWidth <= 96) made.className = "small"; };
  made.src = address;
  const button = element("button", "enlarge");
  button.type = "button";
  button.title = "enlarge";
  button.append(made);
  button.onclick = () => enlarge(made);
  return button;
}

function enlarge(shown) {
  const large = field("large");
  const copy = shown.cloneNode();
  copy.loading = "eager";
  large.replaceChildren(copy, element("p", "soft", shown.alt));
  large.showModal();
}

field("large").onclick = () => field("large").close();

function answer(gallery, row, said) {
  if (said === null || said === undefined) return element("span", "soft", "");
  const name = said < 0 ? "no answer" : gallery.class_names[said];
  return element("span", said === row.label ? "right" : "wrong", name);
}

function card(gallery, row) {
  const made = element("figure", "card");
  const label = gallery.class_names[row.label];
  const pair = element("div", "pair");
  if (row.original) pair.append(image(row.original, `original of ${row.id}, ${label}`));
  pair.append(image(row.image, `perturbed image of ${row.id}, ${label}`));
  const said = element("div", "said");
  const [before, after] = answers(row);
  if (row.original) said.append(answer(gallery, row, before));
  said.append(answer(gallery, row, after));
  const facts = [`id ${row.id}`];
  if (row.iterations !== null) facts.push(row.iterations === 1 ? "1 step" : `${row.iterations} steps`);
  if (row.probability !== null) facts.push(`oracle ${(100 * row.probability).toFixed(1)} %`);
  if (row.valid === false) facts.push("invalid");
  const seen = Object.entries(row.judges).map(([judge, label]) => `${judge}: ${label < 0 ? "none" : gallery.class_names[label]}`);
  const caption = element("figcaption", "", [...facts, ...seen].join(" · "));
  if (row.reason) caption.title = meanings[row.reason] || row.reason;
  made.append(element("div", "true", label), pair, said, caption);
  return made;
}

function chooseSplit() {
  const gallery = shownSplit();
  fill(field("classifier"), gallery.classifiers.map((name) => [name, name]));
  const classes = [...new Set(gallery.rows.map((row) => row.label))].sort((a, b) => a - b);
  fill(field("class"), [["", "all"], ...classes.map((label) => [String(label), gallery.class_names[label]])]);
  const reasons = [...new Set(gallery.rows.map((row) => row.reason).filter(Boolean))].sort();
  fill(field("reason"), [["", "all"], ...reasons.map((reason) => [reason, meanings[reason] || reason])]);
  fill(field("judges"), gallery.rows.some((row) => Object.keys(row.judges).length) ? [["", "all"], ["doubt", "a judge does not see the class"], ["agree", "all judges see the class"]] : []);
  field("answer").parentElement.hidden = gallery.classifiers.length === 0;
  const missed = [...field("answer").options].find((option) => option.value === "missed");
  missed.hidden = missed.disabled = !gallery.rows.some(missedByAll);
  if (missed.disabled && missed.selected) field("answer").value = "";
  show();
}

function show() {
  const gallery = shownSplit();
  const chosen = (id) => field(id).value;
  const rows = gallery.rows.filter((row) =>
    (!chosen("class") || row.label === Number(chosen("class"))) &&
    (!chosen("reason") || row.reason === chosen("reason")) &&
    (!chosen("judges") || judged(row) === chosen("judges")) &&
    (!chosen("answer") || (chosen("answer") === "missed" ? missedByAll(row) : outcome(row) === chosen("answer"))));
  field("cards").replaceChildren(...rows.map((row) => card(gallery, row)));
  field("count").textContent = `Showing ${rows.length} of ${gallery.rows.length} rows`;
}

fill(field("split"), galleries.map((gallery, number) => [String(number), gallery.short]));
field("split").onchange = chooseSplit;
for (const id of ["classifier", "class", "answer", "reason", "judges"]) field(id).onchange = show;
chooseSplit();
