"use strict";
// `audit` has the raters, the names of the classes and, in a page without a server, the images of each rater and a key.
const audit = JSON.parse(document.getElementById("audit").textContent);
const NONE = -1, UNSURE = -2, FEW = 12, SHOWN = 12;
const at = id => document.getElementById(id);
const alone = Boolean(audit.images);
let rater = null, number = 0, total = 0, began = 0, busy = false;
let unsent = [];

// --- where answers go -------------------------------------------------------------------------------------------
const placeOf = name => `fmrgen-audit ${alone ? audit.key : location.host} ${name}`;
const read = name => { try { return JSON.parse(localStorage.getItem(placeOf(name))) || []; } catch { return []; } };
const keep = answers => { try { localStorage.setItem(placeOf(rater), JSON.stringify(answers)); } catch { /* full or forbidden */ } };

async function ask(path, body) {
  const options = body && { method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, options);
  const found = await answer.json();
  // What is refused is refused for good. Else the disk may be full, or the program have a new address: nothing is lost.
  if (!answer.ok) throw Object.assign(new Error(found.error), { refused: [400, 409].includes(answer.status), said: true });
  return found;
}

async function send() {
  if (busy) return;
  busy = true;
  while (unsent.length) {
    const [path, body] = unsent[0];
    try {
      await ask(path, body);
      unsent.shift();
      keep(unsent);
      at("saved").textContent = "";
    } catch (error) {
      if (error.refused) { unsent = []; keep(unsent); at("saved").textContent = `${error.message}; open the page again`; break; }
      at("saved").textContent = `Not saved yet: ${error.said ? error.message : "the program does not answer"}. Leave this window open; it will keep trying.`;
      await new Promise(done => setTimeout(done, 1000));
    }
  }
  busy = false;
}

function give(path, body) {
  if (alone) { keep(unsent = path === "undo" ? unsent.slice(0, body.number) : [...unsent.slice(0, body.number), body]); return; }
  unsent.push([path, { rater, ...body }]);
  keep(unsent);
  send();
}

// --- who ---------------------------------------------------------------------------------------------------------
async function begin(name) {
  rater = name;
  if (alone) {
    unsent = read(rater);
    [number, total] = [unsent.length, audit.images[rater].length];
  } else {
    unsent = read(rater);  // of a window that was closed while the program did not answer
    await send();
    ({ done: number, total } = await ask(`state?rater=${encodeURIComponent(rater)}`));
  }
  at("who").hidden = true;
  show();
}

for (const name of audit.raters) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => begin(name));
  at("raters").append(button);
}

// --- what --------------------------------------------------------------------------------------------------------
const few = audit.names.length <= FEW;
const plain = audit.names.every(name => [...name].length === 1 && !"x?".includes(name.toLowerCase()));
const keyOf = label => plain ? audit.names[label].toLowerCase() : label < 9 ? String(label + 1) : label === 9 ? "0" : "";
const others = [["x", "None of these", () => answer(NONE)], ["?", "Can’t tell", () => answer(UNSURE)], ["⌫", "Take back", undo]];

function button(key, text, act, first) {
  const made = document.createElement("button");
  made.type = "button";
  if (key) {
    const shown = document.createElement("kbd");
    shown.setAttribute("aria-hidden", "true");
    shown.textContent = key;
    made.append(shown);
  }
  made.append(text);
  if (first) made.className = "first";
  made.addEventListener("click", act);
  return made;
}

function matches(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const found = audit.names.map((name, label) => [name.toLowerCase(), label]).filter(([name]) => words.every(word => name.includes(word)));
  const rank = name => name.startsWith(words[0]) ? 0 : name.split(/\W+/).some(part => part.startsWith(words[0])) ? 1 : 2;
  return found.sort((a, b) => rank(a[0]) - rank(b[0]) || a[0].localeCompare(b[0])).slice(0, SHOWN).map(([, label]) => label);
}

function offer() {
  const labels = few ? audit.names.map((_, label) => label) : matches(at("search").value);
  at("choices").replaceChildren(...labels.map((label, place) =>
    button(few ? (plain ? "" : keyOf(label)) : place ? "" : "⏎", audit.names[label], () => answer(label), !few && !place)));
}

const addressOf = of => alone ? audit.images[rater][of] : `image?rater=${encodeURIComponent(rater)}&number=${of}`;

function show() {
  const over = number >= total;
  at("ask").hidden = over;
  at("end").hidden = !over;
  if (over) { at("download").hidden = !alone; (alone ? at("download") : at("end-undo")).focus(); return; }
  at("count").textContent = `Image ${number + 1} of ${total}.`;
  at("progress").value = number / total;
  at("image").src = addressOf(number);
  if (number + 1 < total) new Image().src = addressOf(number + 1);
  at("search").value = "";
  offer();
  began = performance.now();
  if (!few) at("search").focus();
}

at("image").addEventListener("load", () => {
  at("image").classList.toggle("small", at("image").naturalWidth < 100);
  began = performance.now();
});

function answer(label) {
  if (at("ask").hidden) return;
  give("answer", { number, label, seconds: Math.round(performance.now() - began) / 1000 });
  number += 1;
  show();
}

function undo() {
  if (!rater || !number) return;
  number -= 1;
  give("undo", { number });
  show();
}

at("search").addEventListener("input", offer);
at("search-box").hidden = few;
at("others").replaceChildren(...others.map(([key, text, act]) => button(few ? key : "", text, act)));
at("end-undo").addEventListener("click", undo);
at("download").addEventListener("click", () => {
  const file = new Blob([JSON.stringify({ key: audit.key, rater, answers: unsent })], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `answers-${rater}.json`;
  link.click();
});

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || !rater) return;
  const typing = document.activeElement === at("search");
  if (typing && event.key === "Enter") { const first = matches(at("search").value)[0]; if (first !== undefined) answer(first); return; }
  if (event.key === "Backspace" && !(typing && at("search").value)) { event.preventDefault(); undo(); return; }
  if (typing || !few || at("ask").hidden) return;
  const key = event.key.toLowerCase();
  const label = audit.names.findIndex((_, of) => keyOf(of) === key);
  const other = others.find(([of]) => of === key);
  if (label >= 0 || other) { event.preventDefault(); label >= 0 ? answer(label) : other[2](); }
});

if (audit.raters.length === 1) begin(audit.raters[0]);
