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
function key(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.sort !== undefined) return cell.dataset.sort === "" ? -Infinity : Number(cell.dataset.sort);
  const number = Number.parseFloat(cell.textContent);
  return Number.isNaN(number) ? cell.textContent.trim().toLowerCase() : number;
}
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.className = "sort";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") === "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const x = key(a, column), y = key(b, column);
        const order = typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "string" ? 1 : -1;
        return rising ? order : -order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
filter();
