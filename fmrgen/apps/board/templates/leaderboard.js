"use strict";
const filters = document.getElementById("filters"), count = document.getElementById("count");
const search = document.getElementById("search"), protocol = document.getElementById("protocol");
filters.hidden = count.hidden = false;
function filter() {
  const wanted = search.value.trim().toLowerCase();
  let shown = 0;
  for (const section of document.querySelectorAll("section[data-protocol]")) {
    section.hidden = !!(protocol && protocol.value) && section.dataset.protocol !== protocol.value;
    for (const row of section.querySelectorAll("tr[data-model]")) {
      row.hidden = !row.dataset.model.toLowerCase().includes(wanted);
      shown += !row.hidden && !section.hidden;
    }
  }
  count.textContent = `${shown} model${shown === 1 ? "" : "s"} shown`;
}
search.addEventListener("input", filter);
if (protocol) protocol.addEventListener("change", filter);
filter();
